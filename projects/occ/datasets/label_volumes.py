"""Volumes of class ids from files without a data set around them: labels of other projects, and predictions."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from projects.occ.file_arrays import load_arrays
from projects.occ.structures import VoxelGrid
from projects.occ.structures.masks import MASK_KEYS
from projects.occ.structures.voxel_grid import STORED_FIELDS

from .kitti360_labels import SSCBENCH_SHAPE
from .label_formats import (
    LABEL_KEYS,
    PREDICTION_KEYS,
    LabelError,
    label_and_prediction,
    read_dense,
    read_label,
    read_raw_label,
    read_rows,
)

_OTHER_VOLUMES = (*MASK_KEYS, 'mask', 'invalid')
OWN_GRID = 'of the file'
FORMATS = (
    '.npz with semantics (Occ3D), pred or one unnamed array (predictions), .npy dense (X, Y, Z) or SurroundOcc rows (K, 4), '
    '.label of SSCBench-KITTI-360'
)


@dataclass(frozen=True)
class LabelVolume:
    """A label volume from a file.

    Attributes:
        labels: (X, Y, Z) uint8 class ids of ``grid``.
        grid: The grid that was taken.
        grid_name: Its name among those offered.
        is_prediction: Whether the file says that it holds a prediction.
        mask_camera: (X, Y, Z) bool or None.
        tells_grid: Whether the file itself says which grid it has.
    """

    labels: np.ndarray
    grid: VoxelGrid
    grid_name: str
    is_prediction: bool = False
    mask_camera: np.ndarray | None = None
    tells_grid: bool = False


def read_label_volume(path: str | os.PathLike, grids: Mapping[str, VoxelGrid], others: bool = False) -> LabelVolume:
    """Reads a file of one of ``FORMATS``.

    Args:
        path: The file.
        grids: Name -> grid; the first one that the file fits is taken. Rows (K, 4) fit grids whose class 0 is free, ``.label``
            those of 256 x 256 x 32 voxels. A file that tells its grid fits no grid that contradicts it.
        others: Whether a file that tells its grid may have one that is not offered; it is called ``OWN_GRID``.

    Returns:
        The volume.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, of another format, or fits no grid.
    """
    path, what, remedy = Path(path), 'label file', f'known formats: {FORMATS}'
    if path.suffix == '.label':
        name, grid = _first(path, SSCBENCH_SHAPE, {n: g for n, g in grids.items() if g.shape == SSCBENCH_SHAPE}, grids)
        # without .invalid nothing is known to be unobserved
        invalid = path.with_suffix('.invalid').is_file()
        return LabelVolume(read_raw_label(path, grid.shape, what, remedy, invalid), grid, name, tells_grid=True)
    arrays = _load(path, what, remedy, ('mask_camera',))
    stored = _stored_grid(arrays, f"{what}: '{path}'")
    if stored is not None:
        grids = _agreeing(stored, grids, f"{what}: '{path}'", others)
    key = _key(arrays, (*LABEL_KEYS, *PREDICTION_KEYS), f"{what}: '{path}'")
    shape = arrays[key].shape
    sparse = len(shape) == 2
    name, grid = _first(
        path, shape, {n: g for n, g in grids.items() if (g.free_index == 0 if sparse else g.shape == shape)}, grids
    )
    origin = f"{what}: '{path}' read with the grid {name!r}"
    if sparse:
        return LabelVolume(read_rows(arrays[key], grid, origin), grid, name, key in PREDICTION_KEYS, tells_grid=True)
    masks = tuple({'mask_camera'} & set(arrays))
    labels, seen = read_dense(arrays, grid, origin, key, masks)
    return LabelVolume(labels, grid, name, key in PREDICTION_KEYS, seen.get('mask_camera'), stored is not None)


def read_prediction(path: str | os.PathLike, grid: VoxelGrid, ids: Mapping[int, int] | None = None) -> np.ndarray:
    """Reads a prediction.

    * ``.npz``: class ids (X, Y, Z) under the key ``pred`` (ours, SparseOcc), ``arr_0`` (GaussRender) or ``semantics`` (Occ3D),
      or as its only volume.
    * ``.npy``: class ids (X, Y, Z), or the occupied voxels as (K, 4) integers ix, iy, iz, class (SurroundOcc).
    * ``.label``: raw ids, uint16, z fastest (SSCBench).

    Args:
        path: The file.
        grid: Voxel grid that it belongs to.
        ids: Class id in the file -> class id of ``grid``, for classes that are numbered in another way; others stay. What the
            file says about its classes is then not compared with ``grid``.

    Returns:
        (X, Y, Z) uint8 class ids, 0..C-1.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, shape or class ids do not fit the grid, or the file says that it has another grid.
    """
    path, remedy = Path(path), 'write it again'
    origin = f"prediction: '{path}'"
    try:
        if path.suffix == '.label':
            labels = read_label(path, grid, 'prediction', remedy, invalid=False)[0]
            return read_dense({'': labels}, grid, origin, '', ignored=False)[0]
        arrays = _load(path, 'prediction', remedy)
        stored = _stored_grid(arrays, origin)
        if stored is not None and not ids:
            _agreeing(stored, {'of the labels': grid}, origin)
        key = _key(arrays, (*PREDICTION_KEYS, *LABEL_KEYS), origin)
        if ids:
            arrays[key] = _renumbered(arrays[key], ids)
        if arrays[key].ndim == 2:
            return read_rows(arrays[key], grid, origin, noise=False)
        return read_dense(arrays, grid, origin, key, ignored=False)[0]
    except LabelError as error:
        raise ValueError(
            f'{error}; the prediction belongs to another benchmark or grid, its classes are numbered in another way, or it '
            'holds logits (save their arg-max)'
        ) from None


def _renumbered(values: np.ndarray, ids: Mapping[int, int]) -> np.ndarray:
    """Class ids of a volume, or in the last column of rows, by another numbering."""
    changed = values.copy()
    old, new = (array[:, 3] if values.ndim == 2 and values.shape[1] == 4 else array for array in (values, changed))
    for source, target in ids.items():
        new[old == source] = target
    return changed


def read_stored_grid(path: str | os.PathLike) -> VoxelGrid | None:
    """The grid that an ``.npz`` tells, None if it tells none.

    Raises:
        ValueError: If the file is damaged, or what it tells is no grid.
    """
    if Path(path).suffix != '.npz':
        return None
    return _stored_grid(load_arrays(path, 'prediction', 'write it again', names=STORED_FIELDS), f"prediction: '{path}'")


def _load(path: str | os.PathLike, what: str, remedy: str, masks: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The arrays that are looked at; all of a file that has class ids under another name."""
    names = (*LABEL_KEYS, *PREDICTION_KEYS)
    arrays = load_arrays(path, what, remedy, names=(*names, *masks, *STORED_FIELDS))
    return arrays if {*names, ''} & set(arrays) else load_arrays(path, what, remedy)


def _stored_grid(arrays: dict[str, np.ndarray], origin: str) -> VoxelGrid | None:
    """The grid that a file tells."""
    try:
        return VoxelGrid.from_arrays(arrays)
    except ValueError as error:
        raise ValueError(f'{origin}: {error}') from error


def _agreeing(stored: VoxelGrid, grids: Mapping[str, VoxelGrid], origin: str, others: bool = False) -> dict[str, VoxelGrid]:
    """The grids that a file does not contradict."""
    found = {name: grid for name, grid in grids.items() if not grid.differences(stored)}
    if found or others:
        return found or {OWN_GRID: stored}
    name, grid = next(iter(grids.items()))
    raise ValueError(
        f'{origin}: the file says that its grid is another than the grid {name!r}: {"; ".join(grid.differences(stored))}; '
        'choose the preset or config that it was predicted with, or convert it'
    )


def _key(arrays: Mapping[str, np.ndarray], keys: tuple[str, ...], origin: str) -> str:
    """Name of the array of class ids: one of ``keys``, or that of an only volume."""
    volumes = [name for name, array in arrays.items() if array.ndim == 3 and name not in _OTHER_VOLUMES]
    found = [key for key in (*keys, '') if key in arrays] or (volumes if len(volumes) == 1 else [])
    if problem := label_and_prediction(found):
        raise ValueError(f'{origin}: {problem}')
    if not found:
        raise ValueError(f'{origin}: expected one of the keys {keys}, found {list(arrays)}')
    return found[0]


def _first(path: Path, shape: tuple, fitting: Mapping[str, VoxelGrid], grids: Mapping[str, VoxelGrid]) -> tuple[str, VoxelGrid]:
    if not fitting:
        known = ', '.join(f'{name} {grid.shape}' for name, grid in grids.items())
        raise ValueError(
            f"label file: '{path}' has the shape {shape}, which fits none of the grids {known}; choose the grid "
            'with --preset or by naming a CONFIG (a file with nothing but grid = dict(...) is enough)'
        )
    return next(iter(fitting.items()))
