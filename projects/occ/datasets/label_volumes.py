"""Opens label volumes of any of the known on-disk formats, without a data set around them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from projects.occ.structures import VoxelGrid

from .kitti360_labels import SSCBENCH_SHAPE, map_raw_labels
from .label_formats import sparse_labels

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
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"label file '{path}' does not exist")
    if path.suffix == '.label':
        values, key, masks = _raw_label(path), '', {}
        candidates = {name: grid for name, grid in grids.items() if grid.shape == SSCBENCH_SHAPE}
    else:
        values, key, masks = _arrays(path)
        sparse = values.ndim == 2
        candidates = {n: g for n, g in grids.items() if (g.free_index == 0 if sparse else g.shape == values.shape)}
    if not candidates:
        known = ', '.join(f'{name} {grid.shape}' for name, grid in grids.items())
        raise ValueError(
            f"label file '{path}' has the shape {values.shape}, which fits none of the grids {known}; choose the grid "
            'with --preset or by naming a CONFIG (a file with nothing but grid = dict(...) is enough)'
        )
    name, grid = next(iter(candidates.items()))
    if values.ndim == 2:
        labels = sparse_labels(values, grid, f"label file '{path}'")
    else:
        grid.check_labels(values, f"label file '{path}' read with the grid {name!r}")
        labels = values.astype(np.uint8)
    mask = masks.get('mask_camera')
    if mask is not None and mask.shape != grid.shape:
        raise ValueError(f"label file '{path}': expected mask_camera of shape {grid.shape}, found {mask.shape}")
    return LabelVolume(labels, grid, name, key in PREDICTION_KEYS, None if mask is None else mask != 0)


def _raw_label(path: Path) -> np.ndarray:
    raw = np.fromfile(path, dtype='<u2')
    if raw.size != np.prod(SSCBENCH_SHAPE):
        raise ValueError(
            f"label file '{path}' has {path.stat().st_size} bytes instead of the {2 * np.prod(SSCBENCH_SHAPE)} of SSCBench"
        )
    invalid_path = path.with_suffix('.invalid')
    # without it nothing is known to be unobserved
    invalid = np.fromfile(invalid_path, dtype='u1') if invalid_path.is_file() else np.zeros(raw.size, np.uint8)
    if invalid.size != raw.size:
        raise ValueError(f"'{invalid_path}' has {invalid.size} bytes instead of one for each of the {raw.size} voxels")
    return map_raw_labels(raw, invalid, f"label file '{path}'").reshape(SSCBENCH_SHAPE)


def _arrays(path: Path) -> tuple[np.ndarray, str, dict[str, np.ndarray]]:
    """Class ids, the key they were found under, and all arrays."""
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = {key: loaded[key] for key in loaded} if isinstance(loaded, np.lib.npyio.NpzFile) else {'': loaded}
    except Exception as error:  # a damaged archive can raise nearly anything: zip, zlib, header and value errors
        raise ValueError(f"cannot read label file '{path}': {error}; known formats: {FORMATS}") from error
    volumes = [name for name, array in arrays.items() if array.ndim == 3]
    key = next((name for name in (*LABEL_KEYS, *PREDICTION_KEYS, '') if name in arrays), None)
    if key is None and len(volumes) == 1:
        key = volumes[0]
    if key is None:
        raise ValueError(f"label file '{path}' has the keys {list(arrays)}, expected one of {(*LABEL_KEYS, *PREDICTION_KEYS)}")
    values = arrays[key]
    integral = values.dtype.kind in 'iub' or (values.dtype.kind == 'f' and (values == np.rint(values)).all())
    if not integral or (values.ndim != 3 and (values.ndim, values.shape[-1]) != (2, 4)):
        raise ValueError(
            f"label file '{path}': expected class ids (X, Y, Z) or rows (K, 4), found {values.dtype} {values.shape}; "
            f'known formats: {FORMATS}'
        )
    return values.astype(np.int64), key, arrays
