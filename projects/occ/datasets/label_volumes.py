"""Volumes of class ids from files without a data set around them: labels of other projects, and predictions."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from projects.occ.file_arrays import load_arrays
from projects.occ.structures import VoxelGrid

from .kitti360_labels import SSCBENCH_SHAPE
from .label_formats import LabelError, read_dense, read_label, read_raw_label, read_rows

LABEL_KEYS = ('semantics',)
PREDICTION_KEYS = ('pred', 'arr_0')
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
    """

    labels: np.ndarray
    grid: VoxelGrid
    grid_name: str
    is_prediction: bool = False
    mask_camera: np.ndarray | None = None


def read_label_volume(path: str | os.PathLike, grids: Mapping[str, VoxelGrid]) -> LabelVolume:
    """Reads a file of one of ``FORMATS``.

    Args:
        path: The file.
        grids: Name -> grid; the first one that the file fits is taken. Rows (K, 4) fit grids whose class 0 is free, ``.label``
            those of 256 x 256 x 32 voxels.

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
        return LabelVolume(read_raw_label(path, grid.shape, what, remedy, invalid), grid, name)
    arrays = load_arrays(path, what, remedy, names=(*LABEL_KEYS, *PREDICTION_KEYS, 'mask_camera'))
    key = _key(arrays, (*LABEL_KEYS, *PREDICTION_KEYS), f"{what}: '{path}'")
    shape = arrays[key].shape
    sparse = len(shape) == 2
    name, grid = _first(
        path, shape, {n: g for n, g in grids.items() if (g.free_index == 0 if sparse else g.shape == shape)}, grids
    )
    origin = f"{what}: '{path}' read with the grid {name!r}"
    if sparse:
        return LabelVolume(read_rows(arrays[key], grid, origin), grid, name, key in PREDICTION_KEYS)
    masks = tuple({'mask_camera'} & set(arrays))
    labels, seen = read_dense(arrays, grid, origin, key, masks)
    return LabelVolume(labels, grid, name, key in PREDICTION_KEYS, seen.get('mask_camera'))


def read_prediction(path: str | os.PathLike, grid: VoxelGrid) -> np.ndarray:
    """Reads a prediction.

    * ``.npz``: class ids (X, Y, Z) under the key ``pred`` (ours, SparseOcc), ``arr_0`` (GaussRender) or ``semantics`` (Occ3D).
    * ``.npy``: class ids (X, Y, Z), or the occupied voxels as (K, 4) integers ix, iy, iz, class (SurroundOcc).
    * ``.label``: raw ids, uint16, z fastest (SSCBench).

    Args:
        path: The file.
        grid: Voxel grid that it belongs to.

    Returns:
        (X, Y, Z) uint8 class ids, 0..C-1.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged, or shape or class ids do not fit the grid.
    """
    path, remedy = Path(path), 'write it again'
    origin = f"prediction: '{path}'"
    try:
        if path.suffix == '.label':
            labels = read_label(path, grid, 'prediction', remedy, invalid=False)[0]
            return read_dense({'': labels}, grid, origin, '', ignored=False)[0]
        arrays = load_arrays(path, 'prediction', remedy, names=(*PREDICTION_KEYS, *LABEL_KEYS))
        key = _key(arrays, (*PREDICTION_KEYS, *LABEL_KEYS), origin, lone=False)
        if arrays[key].ndim == 2:
            return read_rows(arrays[key], grid, origin, noise=False)
        return read_dense(arrays, grid, origin, key, ignored=False)[0]
    except LabelError as error:
        raise ValueError(
            f'{error}; the prediction belongs to another benchmark or grid, its classes are numbered in another way, or it '
            'holds logits (save their arg-max)'
        ) from None


def _key(arrays: Mapping[str, np.ndarray], keys: tuple[str, ...], origin: str, lone: bool = True) -> str:
    """Name of the array of class ids; with ``lone`` also that of an only volume."""
    volumes = [name for name, array in arrays.items() if lone and array.ndim == 3]
    found = [key for key in (*keys, '') if key in arrays] or (volumes if len(volumes) == 1 else [])
    if set(found) & set(LABEL_KEYS) and set(found) & set(PREDICTION_KEYS):
        raise ValueError(f'{origin}: it holds a label and a prediction ({found}); keep one of them')
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
