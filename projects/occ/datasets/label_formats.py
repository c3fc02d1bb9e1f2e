"""The file formats of occupancy labels, and their one reader, for loaders, checks and scores alike.

* ``.npz``: ``semantics`` (X, Y, Z) and masks of that shape (Occ3D).
* ``.npy``: (K, 4) rows ix, iy, iz, class of the voxels that are not free, class 0 being noise (SurroundOcc), or (X, Y, Z)
  (SSCBench, whose published files hold floats).
* ``.label``: raw ids, uint16, little-endian, z fastest, with ``.invalid`` beside it, a byte per voxel (SSCBench).
"""

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from projects.occ.file_arrays import load_arrays, read_bytes
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmark_classes import KITTI360_CLASSES
from projects.occ.structures.masks import MASK_KEYS

from .kitti360_labels import map_raw_labels

_REMEDY = 'copy the label again from the release of the benchmark'
LABEL_KEYS, PREDICTION_KEYS = ('semantics',), ('pred', 'arr_0')
Labels = tuple[np.ndarray, dict[str, np.ndarray]]


class LabelError(ValueError):
    """A label that does not fit its grid.

    Attributes:
        problems: (kind, sentence) of everything that is wrong; the kinds are those of the findings of a check.
    """

    def __init__(self, origin: str, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__(f'{origin}: {"; ".join(sentence for _, sentence in problems)}')
        self.problems = tuple(problems)


def read_label(
    path: str | os.PathLike,
    grid: VoxelGrid,
    what: str = 'label',
    remedy: str = _REMEDY,
    masks: Sequence[str] | None = MASK_KEYS,
    invalid: bool = True,
    backend_args: dict | None = None,
) -> Labels:
    """Reads a label file of any of the formats.

    Args:
        path: The file; its suffix and the shape of its array tell the format.
        grid: The grid of the label.
        what: Named in errors.
        remedy: What to do if the file is missing or damaged.
        masks: The masks that an ``.npz`` must hold; None for those that it has.
        invalid: Whether an ``.invalid`` file lies beside a ``.label``.
        backend_args: Arguments of mmengine's file backend.

    Returns:
        (X, Y, Z) uint8 class ids, ``grid.ignore_index`` where unlabelled; masks by name, (X, Y, Z) bool.

    Raises:
        FileNotFoundError: If there is no such file.
        LabelError: If its content does not fit ``grid``.
        ValueError: If it is damaged.
    """
    path = os.fspath(path)
    suffix = os.path.splitext(path)[1]
    if suffix == '.label':
        if grid.num_classes != len(KITTI360_CLASSES) + 1:
            problem = f'raw ids are those of SSCBench-KITTI-360 with {len(KITTI360_CLASSES) + 1} classes, the grid has others'
            raise LabelError(f"{what}: '{path}'", [('label-class', problem)])
        return read_raw_label(path, grid.shape, what, remedy, invalid, backend_args), {}
    wanted = (*LABEL_KEYS, *PREDICTION_KEYS, *(MASK_KEYS if masks is None else masks))
    arrays = load_arrays(path, what, remedy, backend_args, wanted)
    if masks is None:
        masks = [name for name in MASK_KEYS if name in arrays]
    return labels_from_arrays(arrays, grid, f"{what}: '{path}'", masks if suffix == '.npz' else ())


def labels_from_arrays(arrays: Mapping[str, np.ndarray], grid: VoxelGrid, origin: str, masks: Sequence[str]) -> Labels:
    """Labels and masks from the arrays of a file, see :func:`read_label`.

    Raises:
        LabelError: If they do not fit ``grid``, or a prediction lies beside them; ``origin`` is named.
    """
    if problem := label_and_prediction(arrays):
        raise LabelError(origin, [('label-array', problem)])
    if '' in arrays and arrays[''].ndim == 2:
        return read_rows(arrays[''], grid, origin), {}
    return read_dense(arrays, grid, origin, '' if '' in arrays else 'semantics', masks)


def label_and_prediction(names: Iterable[str]) -> str:
    """What is wrong with a file of these arrays that one reader would take for a label and another for a prediction, or ''."""
    found = [name for name in names if name in (*LABEL_KEYS, *PREDICTION_KEYS)]
    if set(found) & set(LABEL_KEYS) and set(found) & set(PREDICTION_KEYS):
        return f'it holds a label and a prediction ({sorted(found)}); keep one of them'
    return ''


def read_dense(
    arrays: Mapping[str, np.ndarray],
    grid: VoxelGrid,
    origin: str,
    key: str = 'semantics',
    masks: Sequence[str] = (),
    ignored: bool = True,
) -> Labels:
    """Labels of a whole volume.

    Args:
        arrays: Arrays of the file by name.
        grid: The grid of the label.
        origin: Named in errors.
        key: Name of the class ids: whole numbers of any type.
        masks: Names of masks that must be there.
        ignored: Whether ``grid.ignore_index`` may occur.

    Returns:
        As :func:`read_label`.

    Raises:
        LabelError: Says everything that is wrong.
    """
    problems = [
        ('label-array', f'has no array {name!r}, only {sorted(arrays)}') for name in (key, *masks) if name not in arrays
    ]
    labels, seen = None, {}
    if key in arrays:
        labels = _class_ids(arrays[key], grid, ignored, problems)
    for name in masks:
        mask = arrays.get(name)
        if mask is not None and mask.shape != grid.shape:
            problems.append(('mask-shape', f'{name} has the shape {mask.shape}, the grid {grid.shape}'))
        elif mask is not None and not ((mask == 0) | (mask == 1)).all():
            problems.append(('mask-values', f'{name} holds other values than 0 and 1'))
        elif mask is not None:
            # uint8 in the file; as an index numpy would take that for row numbers
            seen[name] = mask.astype(bool)
    if problems:
        raise LabelError(origin, problems)
    return labels, seen


def read_rows(rows: np.ndarray, grid: VoxelGrid, origin: str, noise: bool = True) -> np.ndarray:
    """Labels of the voxels that are not free.

    Args:
        rows: (K, 4) whole numbers ix, iy, iz, class.
        grid: The grid of the label.
        origin: Named in errors.
        noise: Whether class 0 means unlabelled noise, which becomes ``grid.ignore_index``.

    Returns:
        (X, Y, Z) uint8; what is not listed is ``grid.free_index``.

    Raises:
        LabelError: If the rows are no voxels and classes of ``grid``.
    """
    if rows.ndim != 2 or rows.shape[1] != 4:
        problem = f'has the shape {rows.shape}; expected (K, 4): ix, iy, iz, class, or {grid.shape} (grid.shape)'
        raise LabelError(origin, [('label-shape', problem)])
    if rows.dtype.kind not in 'iuf' or not (np.isfinite(rows) & (rows == np.rint(rows))).all():
        problem = f'holds {rows.dtype} that are no whole numbers; expected voxel indices, not metres, and class ids, not scores'
        raise LabelError(origin, [('label-type', problem)])
    index, classes = rows[:, :3].astype(np.int64), rows[:, 3].astype(np.int64)
    outside = ((index < 0) | (index >= np.array(grid.shape))).any(1)
    if outside.any():
        problem = (
            f'voxel index {tuple(index[outside][0].tolist())} is outside the grid {grid.shape}; label and config describe '
            'different grids'
        )
        raise LabelError(origin, [('label-shape', problem)])
    bad = (classes < 0) | (classes >= grid.num_classes)
    if bad.any():
        raise LabelError(origin, [('label-class', _wrong_class(classes[bad][0], grid, False))])
    labels = np.full(grid.shape, grid.free_index, dtype=np.uint8)
    labels[tuple(index.T)] = np.where((classes == 0) & noise, grid.ignore_index, classes)
    return labels


def read_raw_label(
    path: str | os.PathLike,
    shape: Sequence[int],
    what: str = 'raw label',
    remedy: str = _REMEDY,
    invalid: bool = True,
    backend_args: dict | None = None,
) -> np.ndarray:
    """Reads ``<frame>.label``, and ``<frame>.invalid`` beside it, and maps the raw ids to classes of SSCBench-KITTI-360.

    Args:
        path: The ``.label`` file.
        shape: Number of voxels (X, Y, Z).
        what: Named in errors.
        remedy: What to do if a file is missing or damaged.
        invalid: Whether there is an ``.invalid`` file. Without it nothing is known to be unobserved.
        backend_args: Arguments of mmengine's file backend.

    Returns:
        (X, Y, Z) uint8, 0..18 or 255.

    Raises:
        FileNotFoundError: If one of the files is missing.
        ValueError: If a file is not of the size that ``shape`` asks for, or has an unknown raw id.
    """

    def voxels(file: str, dtype: str) -> np.ndarray:
        data, size = read_bytes(file, what, remedy, backend_args), np.dtype(dtype).itemsize
        if len(data) != size * np.prod(shape):
            raise ValueError(
                f"{what}: '{file}' has {len(data)} bytes instead of the {size * np.prod(shape)} of {tuple(shape)} voxels "
                f'({size} per voxel, not bit-packed), so it is cut short or belongs to another data set; {remedy}'
            )
        return np.frombuffer(data, dtype=dtype).reshape(tuple(shape))

    path = os.fspath(path)
    raw = voxels(path, '<u2')
    unseen = voxels(f'{os.path.splitext(path)[0]}.invalid', 'u1') if invalid else np.zeros(raw.shape, dtype=bool)
    return map_raw_labels(raw, unseen, f"{what}: '{path}'")


def _class_ids(values: np.ndarray, grid: VoxelGrid, ignored: bool, problems: list[tuple[str, str]]) -> np.ndarray | None:
    """``values`` as uint8; adds to ``problems`` what is wrong with them."""
    if values.dtype.kind == 'b':
        problems.append(('label-type', 'holds bool, a mask; expected class ids, of which 0 and 1 are two'))
        return None
    if values.dtype.kind not in 'iuf':
        problems.append(('label-type', f'holds {values.dtype}; expected numbers, one class id per voxel'))
        return None
    if values.shape != grid.shape:
        problems.append(('label-shape', f'has the shape {values.shape}, the grid {grid.shape}'))
        return None
    with np.errstate(invalid='ignore'):
        labels = values.astype(np.uint8)
    exact = labels == values
    if not exact.all():
        problems.append(('label-class', _wrong_class(values[~exact].flat[0], grid, ignored)))
        return None
    bad = labels >= grid.num_classes
    if ignored:
        bad &= labels != grid.ignore_index
    if bad.any():
        problems.append(('label-class', _wrong_class(labels[bad].max(), grid, ignored)))
    return labels


def _wrong_class(value: float, grid: VoxelGrid, ignored: bool) -> str:
    also = f' or {grid.ignore_index}' if ignored else ''
    return f'{value} is no class id; expected 0..{grid.num_classes - 1}{also} (grid.class_names)'
