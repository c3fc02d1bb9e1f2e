"""Voxel labels from 2D evidence: pixels or LiDAR points with a depth and a class vote for voxels; nobody has labelled anything.

The same aggregation as in ``label_making.py``, from another source of points. A voxel takes the class that most of its points
have. Cells that a ray crosses before its end are free. Points of classes that move count in their own frame alone. What no ray
reached is ``ignore_index``, so that the ordinary voxel loss says nothing there.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from projects.occ.structures import VoxelGrid

from .voxel_rays import mark_traversed

# rays end this far before their point, in voxels: the cell of the point itself is no free one
_STOP = 1.0


@dataclass
class VotingPoints:
    """Points of one view or sweep.

    Attributes:
        points: (P, 3), metres, in the frame of the grid at the key frame.
        classes: (P,) class ids of the grid; ``ignore_index`` where unknown: such points make cells free and vote for none.
        origin: (3,), where they were seen from, same frame.
        key: Whether they were seen at the moment of the key frame.
    """

    points: np.ndarray
    classes: np.ndarray
    origin: np.ndarray
    key: bool = True


def pixel_points(
    depth: np.ndarray,
    classes: np.ndarray,
    cam2img: np.ndarray,
    cam2ref: np.ndarray,
    edge: float = 0.1,
    key: bool = True,
    stride: int = 1,
) -> VotingPoints:
    """Points of the pixels of a depth map.

    Pixels at depth edges are dropped: those whose depth differs from that of one of their four neighbours by more than
    ``edge`` times their own; what was interpolated between two objects belongs to none.

    Args:
        depth: (H, W), metres along the optical axis; 0 or not finite where unknown.
        classes: (H, W) class ids of the grid, see :class:`VotingPoints`.
        cam2img: (3, 3), pixels of the depth map, pixel centres at +0.5.
        cam2ref: (4, 4), camera -> frame of the grid at the key frame, metres, with the motion of the vehicle.
        edge: See above.
        key: Whether the image was taken at the key frame.
        stride: Every so many pixels.

    Raises:
        ValueError: If the maps have different shapes.
    """
    depth, classes = np.asarray(depth, dtype=np.float64), np.asarray(classes)
    if depth.ndim != 2 or depth.shape != classes.shape:
        raise ValueError(f'pixel_points: depth and classes must be maps of one shape, got {depth.shape} and {classes.shape}')
    known = np.isfinite(depth) & (depth > 0)
    kept = known.copy()
    safe = np.where(known, depth, 0.0)
    for axis in (0, 1):
        # a neighbour without a depth is no edge
        both = np.minimum(*(np.take(known, np.arange(s, n), axis) for s, n in _pairs(depth.shape[axis])))
        first, second = (np.take(safe, np.arange(s, n), axis) for s, n in _pairs(depth.shape[axis]))
        step = np.abs(second - first)
        for place, own in ((slice(None, -1), first), (slice(1, None), second)):
            index = (place, slice(None)) if axis == 0 else (slice(None), place)
            kept[index] &= ~(both & (step > edge * own))
    chosen = np.zeros_like(kept)
    chosen[::stride, ::stride] = True
    row, column = np.nonzero(kept & chosen)
    pixels = np.stack([column + 0.5, row + 0.5, np.ones(len(row))], 1)
    camera = pixels @ np.linalg.inv(np.asarray(cam2img, dtype=np.float64)).T * depth[row, column, None]
    cam2ref = np.asarray(cam2ref, dtype=np.float64)
    return VotingPoints(camera @ cam2ref[:3, :3].T + cam2ref[:3, 3], classes[row, column], cam2ref[:3, 3], key)


def _pairs(length: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (0, length - 1), (1, length)


def make_pseudo_label(
    sources: Sequence[VotingPoints], grid: VoxelGrid, dynamic: Collection[int] = (), min_votes: int = 1
) -> np.ndarray:
    """The label of one key frame.

    A voxel with at least ``min_votes`` votes takes the class with most of them; of classes with equally many, that with the
    smallest id. A voxel with fewer is free if a ray crosses it, else ignored.

    Args:
        sources: Points of views and sweeps of the scene.
        grid: Where to make the label.
        dynamic: Ids of the classes that move: their points of other frames neither vote nor make cells free.
        min_votes: See above.

    Returns:
        (X, Y, Z) uint8 class ids and ``grid.ignore_index``.

    Raises:
        ValueError: If a class id is none of the grid's, or ``min_votes`` is below 1.
    """
    if min_votes < 1:
        raise ValueError(f'make_pseudo_label: min_votes must be at least 1, got {min_votes}')
    votes = np.zeros((grid.num_voxels, grid.num_classes), dtype=np.int32)
    crossed = np.zeros(grid.shape, dtype=bool)
    lower, size = np.asarray(grid.lower), np.asarray(grid.voxel_size)
    for source in sources:
        classes = np.asarray(source.classes).astype(np.int64)
        unknown = classes == grid.ignore_index
        if ((classes < 0) | (classes >= grid.num_classes))[~unknown].any():
            worst = int(classes[~unknown].max())
            raise ValueError(f'make_pseudo_label: class id {worst} is outside 0..{grid.num_classes - 1} and is not ignored')
        points = np.asarray(source.points, dtype=np.float64)
        if not source.key:
            still = ~np.isin(classes, list(dynamic))
            points, classes, unknown = points[still], classes[still], unknown[still]
        index, inside = grid.point_to_index(points)
        voting = inside & ~unknown & (classes != grid.free_index)
        flat = np.ravel_multi_index(tuple(index[voting].T), grid.shape)
        np.add.at(votes, (flat, classes[voting]), 1)
        origin = (np.asarray(source.origin, dtype=np.float64) - lower) / size
        ends = (points - lower) / size
        way = ends - origin
        length = np.linalg.norm(way, axis=1, keepdims=True)
        stops = origin + way * np.maximum(1 - _STOP / np.maximum(length, 1e-9), 0)
        mark_traversed(crossed, origin, np.ascontiguousarray(stops))
    label = np.where(crossed.reshape(-1), grid.free_index, grid.ignore_index).astype(np.uint8)
    occupied = votes.sum(1) >= min_votes
    label[occupied] = votes[occupied].argmax(1)
    return label.reshape(grid.shape)
