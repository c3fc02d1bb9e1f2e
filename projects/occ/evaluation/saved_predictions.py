"""Folders of predictions, as ``tools/test.py --out`` and other code bases write them."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from ..structures import VoxelGrid

NPZ_KEYS = ('pred', 'arr_0', 'semantics')
SUFFIXES = ('.npz', '.npy', '.label')
# folders that tell nothing about a frame, and file names that the folder above names
_SILENT_FOLDERS = ('voxels', 'predictions', 'sequences')
_SILENT_STEM = 'labels'
_SCALE_SUFFIX = '_1_1'

RawIds = Callable[[np.ndarray, str], np.ndarray]


def index_predictions(root: str | os.PathLike) -> dict[str, Path]:
    """Finds the prediction files below a folder.

    The name of a prediction is its path below the folder without suffix, where folders called ``voxels``, ``predictions`` or
    ``sequences``, a file called ``labels`` and SSCBench's ``_1_1`` say nothing: ``a/labels.npz`` is ``a``,
    ``drive/predictions/000005.label`` is ``drive/000005``.

    Args:
        root: The folder.

    Returns:
        Name -> file, sorted by name.

    Raises:
        FileNotFoundError: If the folder does not exist or has no such file.
        ValueError: If two files have one name.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f'folder of predictions {str(root)!r} does not exist')
    found: dict[str, Path] = {}
    for path in sorted(path for path in root.rglob('*') if path.suffix in SUFFIXES and path.is_file()):
        relative = path.relative_to(root)
        stem = relative.name.removesuffix(relative.suffix).removesuffix(_SCALE_SUFFIX)
        parts = [part for part in relative.parts[:-1] if part not in _SILENT_FOLDERS]
        name = '/'.join(parts if stem == _SILENT_STEM and parts else [*parts, stem])
        if name in found:
            raise ValueError(f'two predictions are named {name!r}: {str(found[name])!r} and {str(path)!r}; remove one of them')
        found[name] = path
    if not found:
        raise FileNotFoundError(f'folder of predictions {str(root)!r} has no {", ".join(SUFFIXES)} file')
    return found


def read_prediction(path: str | os.PathLike, grid: VoxelGrid, raw_ids: RawIds | None = None) -> np.ndarray:
    """Reads one prediction.

    * ``.npz``: class ids (X, Y, Z) under the key ``pred`` (ours, SparseOcc), ``arr_0`` (GaussRender) or ``semantics`` (Occ3D).
    * ``.npy``: class ids (X, Y, Z), or the occupied voxels as (K, 4) integers ix, iy, iz, class (SurroundOcc).
    * ``.label``: raw ids, uint16, z fastest (SSCBench).

    Args:
        path: The file.
        grid: Voxel grid that it belongs to.
        raw_ids: ``(raw uint16 (X, Y, Z), origin) -> class ids`` for ``.label`` files; None if the benchmark has none.

    Returns:
        (X, Y, Z) uint8 class ids, 0..C-1.

    Raises:
        ValueError: If the file is damaged, or shape or class ids do not fit the grid.
    """
    path = Path(path)
    origin = f"prediction '{path}'"
    if path.suffix == '.label':
        if raw_ids is None:
            raise ValueError(f'{origin}: .label files belong to SSCBench; this benchmark has predictions as .npz or .npy')
        labels = raw_ids(_read_raw(path, grid, origin), origin)
    else:
        labels = _read_array(path, origin)
        if path.suffix == '.npy' and labels.ndim == 2 and labels.shape[1] == 4:
            labels = _dense(labels, grid, origin)
    if labels.dtype.kind == 'f' and labels.shape == grid.shape and (labels == np.round(labels)).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in 'iub' or labels.shape != grid.shape:
        raise ValueError(
            f'{origin}: expected class ids of shape {grid.shape}, found {labels.dtype} {labels.shape}; the prediction belongs '
            'to another benchmark or grid, or holds logits (save their arg-max)'
        )
    if labels.min() < 0 or labels.max() >= grid.num_classes:
        bad = labels.max() if labels.max() >= grid.num_classes else labels.min()
        raise ValueError(
            f'{origin}: class id {int(bad)} is outside 0..{grid.num_classes - 1}; the prediction belongs to another benchmark, '
            'or its classes are numbered in another way'
        )
    return labels.astype(np.uint8)


def _read_array(path: Path, origin: str) -> np.ndarray:
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            return loaded
        with loaded:
            key = next((key for key in NPZ_KEYS if key in loaded), None)
            if key is not None:
                return loaded[key]
            keys = list(loaded)
    except Exception as error:  # a damaged archive can raise nearly anything: zip, zlib, header and value errors
        raise ValueError(f'{origin}: damaged or cut short ({error}); write it again') from error
    raise ValueError(f'{origin}: expected one of the keys {NPZ_KEYS}, found {keys}')


def _read_raw(path: Path, grid: VoxelGrid, origin: str) -> np.ndarray:
    data = path.read_bytes()
    if len(data) != 2 * grid.num_voxels:
        raise ValueError(
            f'{origin}: {len(data)} bytes instead of the {2 * grid.num_voxels} of {grid.shape} voxels with 2 bytes each'
        )
    return np.frombuffer(data, dtype='<u2').reshape(grid.shape)


def _dense(rows: np.ndarray, grid: VoxelGrid, origin: str) -> np.ndarray:
    if rows.dtype.kind not in 'iuf' or not (np.isfinite(rows) & (rows == np.round(rows))).all():
        raise ValueError(
            f'{origin}: expected rows of whole numbers ix, iy, iz, class, found {rows.dtype} {rows.shape} that are none; save '
            'voxel indices, not metres, and class ids, not scores'
        )
    index = rows[:, :3].astype(np.int64)
    if ((index < 0) | (index >= np.array(grid.shape))).any():
        raise ValueError(f'{origin}: a voxel index lies outside the grid {grid.shape}; the prediction belongs to another grid')
    labels = np.full(grid.shape, grid.free_index, dtype=np.int64)
    labels[tuple(index.T)] = rows[:, 3]
    return labels


def match_predictions(
    names: Mapping[str, tuple[str, ...]], predictions: Mapping[str, Path]
) -> tuple[dict[str, Path], list[str]]:
    """Finds the prediction of every frame.

    Args:
        names: Token -> names that its prediction may have.
        predictions: Name -> file, of :func:`index_predictions`.

    Returns:
        Token -> file for the frames that have one, in the order of ``names``, and the names of predictions without a frame.

    Raises:
        ValueError: If a frame has two predictions.
    """
    matched: dict[str, Path] = {}
    used: set[str] = set()
    for token, candidates in names.items():
        hits = [name for name in dict.fromkeys(candidates) if name in predictions]
        if len(hits) > 1:
            raise ValueError(f'frame {token} has several predictions: {[str(predictions[name]) for name in hits]}; keep one')
        if hits:
            matched[token] = predictions[hits[0]]
            used.add(hits[0])
    return matched, [name for name in predictions if name not in used]
