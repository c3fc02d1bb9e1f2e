"""Fixed colours of the benchmarks' classes and of prediction errors. Free space is never drawn.

The class colours are those published with the benchmarks (nuScenes occupancy: GaussRender, TPVFormer and SurroundOcc use the
same ones; KITTI-360: SSCBench), so that pictures can be laid beside those of other papers.
"""

import colorsys
from collections.abc import Sequence

import numpy as np

Color = tuple[int, int, int]

NUSCENES_PALETTE: dict[str, Color] = {
    'others': (0, 0, 0),
    'barrier': (255, 120, 50),
    'bicycle': (255, 192, 203),
    'bus': (255, 255, 0),
    'car': (0, 150, 245),
    'construction_vehicle': (0, 255, 255),
    'motorcycle': (200, 180, 0),
    'pedestrian': (255, 0, 0),
    'traffic_cone': (255, 240, 150),
    'trailer': (135, 60, 0),
    'truck': (160, 32, 240),
    'driveable_surface': (255, 0, 255),
    'other_flat': (139, 137, 137),
    'sidewalk': (75, 0, 75),
    'terrain': (150, 240, 80),
    'manmade': (230, 230, 250),
    'vegetation': (0, 175, 0),
}
KITTI360_PALETTE: dict[str, Color] = {
    'car': (100, 150, 245),
    'bicycle': (100, 230, 245),
    'motorcycle': (30, 60, 150),
    'truck': (80, 30, 180),
    'other-vehicle': (0, 0, 255),
    'person': (255, 30, 30),
    'road': (255, 0, 255),
    'parking': (255, 150, 255),
    'sidewalk': (75, 0, 75),
    'other-ground': (175, 0, 75),
    'building': (255, 200, 0),
    'fence': (255, 120, 50),
    'vegetation': (0, 175, 0),
    'terrain': (150, 240, 80),
    'pole': (255, 240, 150),
    'traffic-sign': (255, 0, 0),
    'other-structure': (255, 150, 0),
    'other-object': (50, 255, 255),
}
BENCHMARK_PALETTES = (NUSCENES_PALETTE, KITTI360_PALETTE)

IGNORED_COLOR: Color = (200, 200, 200)
FREE_COLOR: Color = (255, 255, 255)

# error volumes hold these ids; the colours stay apart for colour-blind readers
ERROR_CLASSES = ('correct', 'wrong class', 'missed', 'not there')
ERROR_PALETTE: tuple[Color, ...] = ((200, 205, 210), (240, 160, 0), (213, 40, 60), (30, 110, 200))
ERROR_FREE = len(ERROR_CLASSES)


def _plain(name: str) -> str:
    return name.lower().replace('-', '_').replace(' ', '_').removesuffix('s')


def palette_for(class_names: Sequence[str], free_index: int | None = None) -> np.ndarray:
    """Colours of classes by name.

    Args:
        class_names: Names of all classes in the order of their ids, as in ``VoxelGrid.class_names``.
        free_index: Id of empty space, which gets ``FREE_COLOR``; it needs no name in the palettes.

    Returns:
        (C, 3) uint8 RGB: the benchmark palette that knows every class, else evenly spread hues in a fixed order.
    """
    semantic = [c for c in range(len(class_names)) if c != free_index]
    colors = np.full((len(class_names), 3), FREE_COLOR, dtype=np.uint8)
    for palette in BENCHMARK_PALETTES:
        table = {_plain(name): color for name, color in palette.items()}
        if all(_plain(class_names[c]) in table for c in semantic):
            for c in semantic:
                colors[c] = table[_plain(class_names[c])]
            return colors
    for position, c in enumerate(semantic):
        # golden ratio steps keep neighbouring ids apart however many classes there are
        hue, value = (position * 0.618034) % 1, 0.95 if position % 2 else 0.75
        colors[c] = [round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 0.75, value)]
    return colors


def error_volume(
    pred: np.ndarray, gt: np.ndarray, free_index: int, ignore_index: int, mask: np.ndarray | None = None
) -> np.ndarray:
    """Kind of error per voxel.

    Args:
        pred: (X, Y, Z) predicted ids.
        gt: (X, Y, Z) true ids.
        free_index: Id of empty space.
        ignore_index: Unlabelled voxels; they are not judged.
        mask: (X, Y, Z) bool, voxels to judge; None judges all.

    Returns:
        (X, Y, Z) uint8 index into ``ERROR_CLASSES``; ``ERROR_FREE`` where both are free or nothing is judged.
    """
    judged = gt != ignore_index
    if mask is not None:
        judged = judged & np.asarray(mask, dtype=bool)
    there, guessed = gt != free_index, pred != free_index
    errors = np.full(gt.shape, ERROR_FREE, dtype=np.uint8)
    errors[judged & there & (pred == gt)] = 0
    errors[judged & there & guessed & (pred != gt)] = 1
    errors[judged & there & ~guessed] = 2
    errors[judged & ~there & guessed] = 3
    return errors
