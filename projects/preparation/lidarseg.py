"""Point classes of nuScenes-lidarseg: ``lidarseg/<version>/<LIDAR_TOP sample_data token>_lidarseg.bin``, uint8 per point."""

import os
from pathlib import Path

import numpy as np

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


def read_lidarseg(path: str | os.PathLike, num_points: int) -> np.ndarray:
    """Classes of a LiDAR file's points.

    Args:
        path: The ``_lidarseg.bin`` file.
        num_points: Number of points P of the LiDAR file.

    Returns:
        (P,) uint8, 1..16 as in the benchmarks, 0 where there is none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has another number of points or ids above 31.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"'{path}' does not exist; unpack nuScenes-lidarseg into the nuScenes folder")
    raw = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    if len(raw) != num_points:
        raise ValueError(f"'{path}' has {len(raw)} bytes for {num_points} LiDAR points; expected one per point, copy it again")
    if raw.size and raw.max() >= len(RAW_NAMES):
        raise ValueError(f"'{path}' holds the id {int(raw.max())}; ids of nuScenes-lidarseg are 0..{len(RAW_NAMES) - 1}")
    return CLASS_OF_RAW[raw]
