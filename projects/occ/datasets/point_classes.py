"""Classes of LiDAR points.

* nuScenes-lidarseg: ``lidarseg/<version>/<LIDAR_TOP sample_data token>_lidarseg.bin``, uint8 per point.
* SemanticKITTI: ``<frame>.label``, uint32 per point, the lower half is the raw id (that of SSCBench-KITTI-360's voxels too).
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from projects.occ.file_arrays import read_bytes
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmark_classes import KITTI360_CLASSES, NUSCENES_CLASSES
from projects.occ.structures.voxel_grid import plain_class_name

from .kitti360_labels import map_raw_labels

# The 32 raw classes in the order of their ids, as the table ``category`` names them.
RAW_NAMES = (
    'noise',
    'animal',
    'human.pedestrian.adult',
    'human.pedestrian.child',
    'human.pedestrian.construction_worker',
    'human.pedestrian.personal_mobility',
    'human.pedestrian.police_officer',
    'human.pedestrian.stroller',
    'human.pedestrian.wheelchair',
    'movable_object.barrier',
    'movable_object.debris',
    'movable_object.pushable_pullable',
    'movable_object.trafficcone',
    'static_object.bicycle_rack',
    'vehicle.bicycle',
    'vehicle.bus.bendy',
    'vehicle.bus.rigid',
    'vehicle.car',
    'vehicle.construction',
    'vehicle.emergency.ambulance',
    'vehicle.emergency.police',
    'vehicle.motorcycle',
    'vehicle.trailer',
    'vehicle.truck',
    'flat.driveable_surface',
    'flat.other',
    'flat.sidewalk',
    'flat.terrain',
    'static.manmade',
    'static.other',
    'static.vegetation',
    'vehicle.ego',
)
# Class 1..16 of the benchmarks -> raw ids; every other raw id is class 0, noise.
_RAW_IDS: dict[int, tuple[int, ...]] = {
    1: (9,),
    2: (14,),
    3: (15, 16),
    4: (17,),
    5: (18,),
    6: (21,),
    7: (2, 3, 4, 6),
    8: (12,),
    9: (22,),
    10: (23,),
    11: (24,),
    12: (25,),
    13: (26,),
    14: (27,),
    15: (28,),
    16: (30,),
}
# raw id -> class; longer than needed, so that a byte never points outside
CLASS_OF_RAW = np.zeros(256, dtype=np.uint8)
# class -> one raw id that has it
LIDARSEG_ID = np.zeros(17, dtype=np.uint8)
for _class_id, _raw_ids in _RAW_IDS.items():
    CLASS_OF_RAW[list(_raw_ids)] = _class_id
    LIDARSEG_ID[_class_id] = _raw_ids[0]


def read_lidarseg(path: str | os.PathLike, num_points: int, backend_args: dict | None = None) -> np.ndarray:
    """Classes of a LiDAR file's points.

    Args:
        path: The ``_lidarseg.bin`` file.
        num_points: Number of points P of the LiDAR file.
        backend_args: Arguments of mmengine's file backend.

    Returns:
        (P,) uint8, 1..16 as in the benchmarks, 0 where there is none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has another number of points or ids above 31.
    """
    data = read_bytes(path, 'point classes', 'unpack nuScenes-lidarseg into the nuScenes folder', backend_args)
    raw = np.frombuffer(data, dtype=np.uint8)
    if len(raw) != num_points:
        raise ValueError(f"'{path}' has {len(raw)} bytes for {num_points} LiDAR points; expected one per point, copy it again")
    if raw.size and raw.max() >= len(RAW_NAMES):
        raise ValueError(f"'{path}' holds the id {int(raw.max())}; ids of nuScenes-lidarseg are 0..{len(RAW_NAMES) - 1}")
    return CLASS_OF_RAW[raw]


def read_point_classes(
    path: str | os.PathLike, num_points: int, grid: VoxelGrid, backend_args: dict | None = None
) -> np.ndarray:
    """Classes of a LiDAR file's points as a grid numbers them.

    Args:
        path: A file of nuScenes-lidarseg, or of SemanticKITTI (``.label``).
        num_points: Number of points P of the LiDAR file.
        grid: The grid.
        backend_args: Arguments of mmengine's file backend.

    Returns:
        (P,) uint8, ``grid.ignore_index`` where there is none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has another number of points, unknown ids, or the grid has other classes.
    """
    if Path(path).suffix != '.label':
        return benchmark_classes(read_lidarseg(path, num_points, backend_args), grid, f"'{path}'")
    data = read_bytes(path, 'point classes', 'check the folder of the point labels', backend_args)
    if len(data) != 4 * num_points:
        raise ValueError(
            f"'{path}' has {len(data)} bytes for {num_points} LiDAR points; expected four (uint32) per point, copy it again"
        )
    _check_names(grid, KITTI360_CLASSES, f"'{path}'")
    raw = (np.frombuffer(data, dtype='<u4') & 0xFFFF).astype(np.int64)
    classes = map_raw_labels(raw, np.zeros(raw.shape, dtype=bool), f"'{path}'")
    return np.where((classes == 0) | (classes >= grid.num_classes), grid.ignore_index, classes).astype(np.uint8)


def benchmark_classes(classes: np.ndarray, grid: VoxelGrid, origin: str) -> np.ndarray:
    """Ids of a nuScenes benchmark's grid from point classes 0..16: what is noise belongs to "others" where the grid has it.

    Raises:
        ValueError: If the grid has other classes than the nuScenes benchmarks.
    """
    _check_names(grid, NUSCENES_CLASSES, origin)
    noise = grid.ignore_index if grid.free_index == 0 else 0
    return np.where(classes == 0, noise, classes).astype(np.uint8)


def _check_names(grid: VoxelGrid, names: Sequence[str], origin: str) -> None:
    found = [plain_class_name(name) for name in grid.class_names[1 : len(names) + 1]]
    if found != [plain_class_name(name) for name in names]:
        raise ValueError(
            f'{origin} holds the classes {names[0]} ... {names[-1]}, but ids 1..{len(names)} of grid.class_names are '
            f'{grid.class_names[1 : len(names) + 1]}; leave the point classes out, or use the grid of the benchmark'
        )
