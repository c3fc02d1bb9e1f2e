"""Classes of SSCBench-KITTI-360: from the raw ids of its labels, and labels that lack some."""

import logging

import numpy as np
from mmengine.logging import print_log

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
