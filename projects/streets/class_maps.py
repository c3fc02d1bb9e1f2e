"""Which class a label format gives to each material and object of the world."""

from dataclasses import dataclass

import cv2
import numpy as np

from projects.occ.datasets.transforms.pseudo_labels import GROUNDED_SAM_TO_OCC3D, IGNORE
from projects.occ.structures.benchmark_classes import NUSCENES_CLASSES
from projects.occ.structures.benchmarks import BENCHMARKS
from projects.preparation.info_writer import CATEGORIES

from .config import CLASS_ID, FREE, KITTI360
from .materials import MATERIAL_CLASS, Material


@dataclass(frozen=True)
class ClassMap:
    """Classes of one label format.

    Attributes:
        material: (M,) uint8 class of each static material.
        objects: Object name -> class.
        weights: (C,) float32; surface counts so much more towards occupying a voxel, so that thin things are not lost.
        things: (C,) bool, classes of objects, which are labelled as a whole once they were seen.
        free: Class of voxels that nothing occupies.
    """

    material: np.ndarray
    objects: dict[str, int]
    weights: np.ndarray
    things: np.ndarray
    free: int


_NUSCENES_WEIGHTS = {
    **dict.fromkeys(NUSCENES_CLASSES, 1.0),
    **dict.fromkeys(('manmade', 'vegetation'), 1.4),
    **dict.fromkeys(('car', 'bus', 'truck', 'trailer', 'construction_vehicle'), 2.5),
    **dict.fromkeys(('pedestrian', 'bicycle', 'motorcycle', 'traffic_cone', 'barrier'), 6.0),
    'others': 4.0,
}
_KITTI360_WEIGHTS = {
    **dict.fromkeys(BENCHMARKS[KITTI360].grid.class_names, 1.0),
    **dict.fromkeys(('building', 'other-structure', 'vegetation'), 1.4),
    **dict.fromkeys(('car', 'truck', 'other-vehicle', 'fence'), 2.5),
    'other-object': 4.0,
    **dict.fromkeys(('person', 'bicycle', 'motorcycle', 'pole', 'traffic-sign'), 6.0),
}
_KITTI360_MATERIALS = {
    'road': ('ASPHALT', 'MARKING'),
    'parking': ('PAVERS',),
    'sidewalk': ('KERB', 'PAVEMENT'),
    'other-ground': ('SOIL',),
    'building': ('PLASTER', 'BRICK', 'CONCRETE', 'WINDOW', 'DOOR', 'ROOF'),
    'fence': ('FENCE',),
    'vegetation': ('TRUNK', 'LEAF_DARK', 'LEAF_LIGHT', 'LEAF_OLIVE'),
    'terrain': ('GRASS',),
    'pole': ('METAL',),
    'traffic-sign': ('SIGN',),
    'other-structure': ('CLADDING',),
    'other-object': ('BIN',),
}
_KITTI360_OBJECTS = {
    'car': 'car',
    'bicycle': 'bicycle',
    'motorcycle': 'motorcycle',
    'truck': 'truck',
    'bus': 'other-vehicle',
    'trailer': 'other-vehicle',
    'construction_vehicle': 'other-vehicle',
    'pedestrian': 'person',
    'traffic_cone': 'other-object',
    'barrier': 'other-object',
}


def _nuscenes() -> ClassMap:
    names = ('others', *NUSCENES_CLASSES)
    weights = np.array([_NUSCENES_WEIGHTS[name] for name in names], dtype=np.float32)
    things = np.arange(len(names)) <= CLASS_ID['truck']
    return ClassMap(MATERIAL_CLASS, {name: CLASS_ID[name] for name in CATEGORIES}, weights, things, FREE)


def _kitti360() -> ClassMap:
    names = BENCHMARKS[KITTI360].grid.class_names
    class_id = {name: index for index, name in enumerate(names)}
    material = np.zeros(len(Material), dtype=np.uint8)
    for name, materials in _KITTI360_MATERIALS.items():
        material[[Material[m] for m in materials]] = class_id[name]
    objects = {name: class_id[target] for name, target in _KITTI360_OBJECTS.items()}
    things = np.zeros(len(names), dtype=bool)
    things[list(objects.values())] = True
    weights = np.array([_KITTI360_WEIGHTS[name] for name in names], dtype=np.float32)
    return ClassMap(material, objects, weights, things, free=0)


NUSCENES_MAP = _nuscenes()
KITTI360_MAP = _kitti360()


def class_map(name: str) -> ClassMap:
    """Classes of a label format; those of the two nuScenes formats are the generator's own."""
    return KITTI360_MAP if name == KITTI360 else NUSCENES_MAP


_STORED_ID = np.full(18, IGNORE, dtype=np.int8)
for _stored, _class in enumerate(GROUNDED_SAM_TO_OCC3D):
    if _stored:
        _STORED_ID[_class] = _stored


def painted_classes(classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a detector and a segmenter would paint over an image, in GroundedSAM's ids.

    Args:
        classes: (H, W) uint8, the generator's class of every pixel.
        rng: Where they miss something.

    Returns:
        (H, W) int8, -1 where there is no label: classes without an id, and patches that were missed.
    """
    coarse = (rng.random((-(-classes.shape[0] // 12), -(-classes.shape[1] // 12))) < 0.06).astype(np.uint8)
    missed = cv2.resize(coarse, classes.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    return np.where(missed, np.int8(IGNORE), _STORED_ID[classes])
