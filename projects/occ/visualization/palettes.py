"""Fixed colours of the benchmarks' classes and of prediction errors. Free space is never drawn.

The class colours are those published with the benchmarks (nuScenes occupancy: GaussRender, TPVFormer and SurroundOcc use the
same ones; KITTI-360: SSCBench), so that pictures can be laid beside those of other papers.
"""

import colorsys
from collections.abc import Sequence

import numpy as np

from projects.occ.structures.benchmark_classes import Color
from projects.occ.structures.benchmarks import BENCHMARKS
from projects.occ.structures.voxel_grid import plain_class_name

IGNORED_COLOR: Color = (200, 200, 200)
FREE_COLOR: Color = (255, 255, 255)

# error volumes hold these ids; the colours stay apart for colour-blind readers
ERROR_CLASSES = ('correct', 'wrong class', 'missed', 'not there')
ERROR_PALETTE: tuple[Color, ...] = ((200, 205, 210), (240, 160, 0), (213, 40, 60), (30, 110, 200))
ERROR_FREE = len(ERROR_CLASSES)


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
    for benchmark in BENCHMARKS.values():
        names = [plain_class_name(name) for name in class_names]
        table = {plain_class_name(name): color for name, color in benchmark.palette.items()}
        if all(names[c] in table for c in semantic):
            for c in semantic:
                colors[c] = table[names[c]]
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
