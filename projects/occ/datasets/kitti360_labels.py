"""Labels of SSCBench-KITTI-360: the raw ones, and the published converted ones."""

import io
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.fileio import get
from mmengine.logging import print_log

from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmark_classes import KITTI360_CLASSES

SSCBENCH_SHAPE = (256, 256, 32)
IGNORE = 255
LABEL_SUFFIX = '_1_1.npy'

# Class of the benchmark (0 is empty, the others in the order of KITTI360_CLASSES) -> raw ids of the .label files.
RAW_IDS: dict[int, tuple[int, ...]] = {
    0: (0,),
    1: (10, 252),
    2: (11,),
    3: (15,),
    4: (18, 258),
    5: (13, 16, 20, 256, 257, 259),
    6: (30, 254),
    7: (40, 60),
    8: (44,),
    9: (48,),
    10: (49,),
    11: (50,),
    12: (51,),
    13: (70,),
    14: (72,),
    15: (80,),
    16: (81,),
    17: (52,),
    18: (99,),
    IGNORE: (1, 31, 32, 71, 253, 255),
}

# Labels made by mistake with the map of nuScenes have no class above this one.
_LAST_SUSPICIOUS_CLASS = 10
_HOW = 'docs/datasets.md, "SSCBench-KITTI-360"'
_UNKNOWN = -1


def _lookup_table() -> np.ndarray:
    table = np.full(1 << 16, _UNKNOWN, dtype=np.int16)
    for class_id, raw_ids in RAW_IDS.items():
        table[list(raw_ids)] = class_id
    return table


_TABLE = _lookup_table()


def map_raw_labels(raw: np.ndarray, invalid: np.ndarray, origin: str = 'raw label') -> np.ndarray:
    """Classes of the benchmark from raw ids.

    A voxel is ignored if its raw id belongs to no class, or if it is empty and marked invalid; one that carries a class keeps
    it even if it is marked invalid (MonoScene's preprocessing, which made the published labels).

    Args:
        raw: (...) uint16 raw ids.
        invalid: (...) bool, or 0 and 1; True where a voxel was not observed.
        origin: Named in errors.

    Returns:
        (...) uint8, 0..18 or 255.

    Raises:
        ValueError: If a raw id is none of KITTI-360's in SSCBench.
    """
    classes = _TABLE[raw]
    if (classes == _UNKNOWN).any():
        ids = np.unique(raw[classes == _UNKNOWN])[:5].tolist()
        raise ValueError(
            f'{origin}: raw ids {ids} are not in the map of SSCBench-KITTI-360 (RAW_IDS in kitti360_labels.py), so this is a '
            'label of another data set or a damaged file'
        )
    labels = classes.astype(np.uint8)
    labels[(raw == 0) & (np.asarray(invalid) != 0)] = IGNORE
    return labels


def read_raw_label(label_path: str | os.PathLike, shape: Sequence[int] = SSCBENCH_SHAPE) -> np.ndarray:
    """Reads ``<frame>.label`` and the ``<frame>.invalid`` beside it and maps them to classes.

    Args:
        label_path: The ``.label`` file: uint16, little-endian, z fastest. ``.invalid`` has one byte per voxel.
        shape: Number of voxels (X, Y, Z).

    Returns:
        (X, Y, Z) uint8, 0..18 or 255.

    Raises:
        FileNotFoundError: If one of the files is missing.
        ValueError: If a file is not of the size that ``shape`` asks for, or has an unknown raw id.
    """
    path = Path(label_path)
    raw = _read_voxels(path, '<u2', shape)
    return map_raw_labels(raw, _read_voxels(path.with_suffix('.invalid'), 'u1', shape), f"'{path}'")


def _read_voxels(path: Path, dtype: str, shape: Sequence[int]) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"'{path}' does not exist; conversion needs both .label and .invalid of every frame ({_HOW})")
    data = path.read_bytes()
    expected = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if len(data) != expected:
        raise ValueError(
            f"'{path}' has {len(data)} bytes instead of the {expected} of {tuple(shape)} voxels "
            f'({np.dtype(dtype).itemsize} per voxel, not bit-packed), so it is cut short or belongs to another data set; copy '
            'it again from the release'
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def warn_if_upper_classes_miss(counts: np.ndarray, origin: str) -> bool:
    """Warns if labels have voxels of classes, but none of a class above 10 (building, vegetation, ...).

    Labels like that were made with the map of another data set; some copies of the published ones are.

    Args:
        counts: (256,) voxels of each label value.
        origin: Named in the warning.

    Returns:
        Whether it warned.
    """
    known = len(KITTI360_CLASSES)
    suspicious = bool(counts[1 : known + 1].any() and not counts[_LAST_SUSPICIOUS_CLASS + 1 : known + 1].any())
    if suspicious:
        print_log(
            f'{origin}: no voxel has a class above {_LAST_SUSPICIOUS_CLASS}, which hardly a street of KITTI-360 lacks, so they '
            f"seem made with another data set's map; convert the raw ones by convert_raw_labels(..., overwrite=True) ({_HOW})",
            logger='current',
            level=logging.WARNING,
        )
    return suspicious


def read_label(path: str, grid: VoxelGrid, what: str = 'label', backend_args: dict | None = None) -> np.ndarray:
    """Reads a converted label.

    Args:
        path: ``.npy`` file of (X, Y, Z) numbers: floating (as published) or integer, with integral values.
        grid: Its grid.
        what: Named in errors.
        backend_args: Arguments of mmengine's file backend.

    Returns:
        (X, Y, Z) uint8 class ids, ``grid.ignore_index`` where unlabelled.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or does not fit ``grid``.
    """
    try:
        data = get(path, backend_args=backend_args)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileNotFoundError(
            f"{what}: '{path}' does not exist; check dataset.data_root and dataset.data_prefix['occ'], or make it from the raw "
            f'labels with convert_raw_labels ({_HOW})'
        ) from None
    try:
        values = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # a damaged file can raise nearly anything: header, value, end-of-file and archive errors
        raise ValueError(
            f"{what}: '{path}' ({len(data)} bytes) is damaged or cut short ({error}); copy it again or make it from the raw "
            f'labels with convert_raw_labels ({_HOW})'
        ) from error
    origin = f"{what}: '{path}'"
    if not isinstance(values, np.ndarray) or values.dtype.kind not in 'iuf' or values.shape != grid.shape:
        found = f'{values.dtype} {values.shape}' if isinstance(values, np.ndarray) else f'an archive of {sorted(values)}'
        raise ValueError(
            f'{origin}: expected numbers of shape {grid.shape} (grid.shape), found {found}; labels at full resolution end in '
            f'{LABEL_SUFFIX}'
        )
    with np.errstate(invalid='ignore'):
        labels = values.astype(np.uint8)
    exact = labels == values
    if not exact.all():
        raise ValueError(
            f'{origin}: value {values[~exact].flat[0]} is no class id; expected 0..{grid.num_classes - 1} or '
            f'{grid.ignore_index}, so make the file again from the raw labels'
        )
    grid.check_labels(labels, origin)
    return labels
