"""Pictures of generated frames: the six images, their class maps and the labels from above."""

from pathlib import Path

import cv2
import numpy as np

from projects.occ.atomic_write import write_atomically
from projects.occ.structures.benchmarks import BENCHMARKS

from .config import KITTI360, SyntheticConfig
from .frame import Frame

# others, 1..16 as nuScenes draws them, sky
_COLOURS = np.array([(70, 70, 70), *BENCHMARKS['occ3d'].colors[1:-1], (196, 216, 250)], dtype=np.uint8)
_KITTI360_COLOURS = np.full((256, 3), 60, dtype=np.uint8)
_KITTI360_COLOURS[: len(BENCHMARKS[KITTI360].colors)] = BENCHMARKS[KITTI360].colors
_ORDER = ('CAM_FRONT_LEFT', 'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_RIGHT', 'CAM_BACK', 'CAM_BACK_LEFT')


def top_down(labels: np.ndarray, free_index: int, unseen: np.ndarray) -> np.ndarray:
    """Highest class of every column seen from above, driving direction up: (X, Y, 3) uint8 RGB.

    Args:
        labels: (X, Y, Z), x forward, y left.
        free_index: Id of free space.
        unseen: (X, Y, Z) bool; columns without any seen voxel are dark.
    """
    occupied = labels != free_index
    top = labels.shape[2] - 1 - occupied[..., ::-1].argmax(axis=2)
    classes = np.take_along_axis(labels, top[..., None], axis=2)[..., 0].astype(np.int64)
    picture = _COLOURS[np.where(classes < 17, classes, 0)]
    picture[~occupied.any(axis=2)] = (32, 34, 38)
    picture[unseen.all(axis=2) & ~occupied.any(axis=2)] = (12, 12, 14)
    return picture[::-1, ::-1]


def preview_frame(frame: Frame, config: SyntheticConfig) -> np.ndarray:
    """Images above class maps, the labels from above on the right: (H, W, 3) uint8 RGB."""
    if KITTI360 in config.grids:
        return _preview_kitti360(frame)
    width = min(config.image_size[0], 480)
    height = round(config.image_size[1] * width / config.image_size[0])
    rows = []
    for source in ('image', 'class_map'):
        for names in (_ORDER[:3], _ORDER[3:]):
            tiles = []
            for name in names:
                tile = getattr(frame.views[name], source)
                tile = _COLOURS[tile] if source == 'class_map' else tile
                tile = cv2.resize(
                    tile, (width, height), interpolation=cv2.INTER_NEAREST if source == 'class_map' else cv2.INTER_AREA
                )
                tiles.append(np.pad(tile, ((0, 2), (0, 2), (0, 0))))
            rows.append(np.concatenate(tiles, axis=1))
    mosaic = np.concatenate(rows)
    columns = []
    for name, grid in config.grids.items():
        labels = frame.labels[name]
        unseen = ~frame.mask_camera[name]
        if grid.ahead == 'y':  # x right, y forward -> x forward, y left
            labels, unseen = (np.rot90(volume, -1, axes=(0, 1)) for volume in (labels, unseen))
            labels = np.where(labels == grid.ignore_index, 255, labels)
        picture = top_down(labels, grid.free_index, unseen)
        side = mosaic.shape[0] // len(config.grids)
        side = min(side, mosaic.shape[0])
        columns.append(cv2.resize(picture, (side, side), interpolation=cv2.INTER_NEAREST))
    column = np.concatenate(columns)
    column = np.pad(column, ((0, mosaic.shape[0] - column.shape[0]), (0, 0), (0, 0)))
    return np.concatenate([mosaic, column], axis=1)


def _preview_kitti360(frame: Frame) -> np.ndarray:
    """Image above its depth map (near is bright), the label from above on the right, driving direction up."""
    (view,) = frame.views.values()
    near = np.where(view.depth > 0, np.clip(1 - np.log(np.maximum(view.depth, 1)) / np.log(50), 0, 1), 0)
    mosaic = np.concatenate([view.image, np.repeat((255 * near).astype(np.uint8)[..., None], 3, axis=2)])
    labels = frame.labels[KITTI360]
    occupied = (labels != 0) & (labels != 255)
    top = labels.shape[2] - 1 - occupied[..., ::-1].argmax(axis=2)
    picture = _KITTI360_COLOURS[np.take_along_axis(labels, top[..., None], axis=2)[..., 0]]
    picture[~occupied.any(axis=2)] = (32, 34, 38)
    side = mosaic.shape[0]
    picture = cv2.resize(np.ascontiguousarray(picture[::-1, ::-1]), (side, side), interpolation=cv2.INTER_NEAREST)
    return np.concatenate([mosaic, picture], axis=1)


def write_png(path: Path, picture: np.ndarray) -> None:
    """Writes an RGB picture."""
    _, encoded = cv2.imencode('.png', np.ascontiguousarray(picture[..., ::-1]))
    write_atomically(path, lambda file: file.write(encoded.tobytes()))
