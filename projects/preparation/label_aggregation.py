"""Brings the LiDAR frames of a scene into one of them, so that a label can be made from all.

Points of the static world are moved by the poses. Points in a box belong to its object: they are kept in the box's own axes
and put where the object's box is in the target frame, so that a moving car is seen from all sides and leaves no trail. Objects
without a box in the target frame are left out, and so are points of other frames that carry the class of an object but lie in
no box, since nobody knows whether they have moved, and those that lie where an object now is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from projects.occ.structures import VoxelGrid
from projects.occ.structures.frame_record import BoxRecord

from .label_making import LabelSettings, LidarSweep, ground_heights, in_box, transform

# lidarseg classes of things that can move: barrier to truck; of the ground: driveable surface to terrain
_LAST_THING, _LAST_GROUND = 10, 14
_NOT_IN_BOX = -1


@dataclass
class LidarFrame:
    """One turn of the LiDAR with what is known about it.

    Attributes:
        points: (P, 3) metres, LiDAR frame.
        lidar2global: (4, 4).
        boxes: With ``instance_tokens``, the names of objects across frames; a frame by itself needs none.
        semantics: (P,) lidarseg classes 1..16, 0 where unknown; None if there are none.
    """

    points: np.ndarray
    lidar2global: np.ndarray
    boxes: BoxRecord
    semantics: np.ndarray | None = None


class SceneAggregator:
    """All frames of a scene, ready to be seen from any of them.

    Args:
        frames: In any order.
        settings: Rules of label making; ``box_margin``, ``min_range`` and the ground's rules are used.
    """

    def __init__(self, frames: Sequence[LidarFrame], settings: LabelSettings | None = None) -> None:
        self.settings = settings or LabelSettings()
        self.frames = list(frames)
        self._ground = [self._ground_points(frame) for frame in self.frames]
        self._members = [self._box_members(*pair) for pair in zip(self.frames, self._ground)]

    def sweeps(self, target: int, grid: VoxelGrid, frames: Sequence[int] | None = None) -> list[LidarSweep]:
        """Frames as sweeps of frame ``target``, for :func:`make_label`.

        Args:
            target: Index of the key frame.
            grid: Frames that are too far away to reach it are left out.
            frames: Indices of the frames to use; None for all. The target is always used.

        Raises:
            ValueError: If more than one frame is used and boxes have no names across frames.
        """
        key = self.frames[target]
        numbers = {name: number for number, name in enumerate(_object_names(key.boxes))}
        to_key = np.linalg.inv(key.lidar2global)
        chosen = range(len(self.frames)) if frames is None else sorted({*frames, target})
        for index in chosen if len(chosen) > 1 else ():
            if self.frames[index].boxes.names and self.frames[index].boxes.instance_tokens is None:
                raise ValueError(
                    f'frame {index} has boxes without instance_tokens, so objects cannot be followed through the scene; use an '
                    'annotation file made by tools/create_data.py, or make labels of single frames (--window 0)'
                )
        # no LiDAR of a vehicle sees further than this
        reach = 0.5 * float(np.linalg.norm(grid.extent[:2])) + 100.0
        result = []
        for index in chosen:
            motion = to_key @ self.frames[index].lidar2global
            if np.linalg.norm(motion[:3, 3]) <= reach:
                result.append(self._sweep(index, target, motion, numbers))
        return result

    def _sweep(self, index: int, target: int, motion: np.ndarray, numbers: dict[str, int]) -> LidarSweep:
        frame, key, members = self.frames[index], self.frames[target], self._members[index]
        static = members == _NOT_IN_BOX
        if index != target and frame.semantics is not None:
            static &= (frame.semantics == 0) | (frame.semantics > _LAST_THING)
        far = np.linalg.norm(frame.points[:, :2], axis=1) >= self.settings.min_range
        static &= far
        moved = transform(motion, frame.points)
        if index != target:
            for box in key.boxes.boxes:
                static &= self._ground[index] | ~in_box(moved, box, self.settings.box_margin)
        points = [moved[static]]
        belongs = [np.full(len(points[0]), _NOT_IN_BOX, dtype=np.int64)]
        kept = [np.flatnonzero(static)]
        # rays to objects of another time would pass through the present
        ends = points[0] if index != target else moved[far]
        for number, name in enumerate(_object_names(frame.boxes)):
            there = numbers.get(name)
            mine = np.flatnonzero((members == number) & far)
            if there is None or not len(mine):
                continue
            own = to_box_axes(frame.points[mine], frame.boxes.boxes[number])
            points.append(from_box_axes(own, key.boxes.boxes[there]))
            belongs.append(np.full(len(mine), there, dtype=np.int64))
            kept.append(mine)
        semantics = None if frame.semantics is None else frame.semantics[np.concatenate(kept)]
        return LidarSweep(np.concatenate(points), motion[:3, 3], semantics, np.concatenate(belongs), ends)

    def _ground_points(self, frame: LidarFrame) -> np.ndarray:
        """(P,) bool: points of the ground, by their class or else by their height."""
        points, settings = np.asarray(frame.points, dtype=np.float64), self.settings
        if frame.semantics is not None:
            return (frame.semantics > _LAST_THING) & (frame.semantics <= _LAST_GROUND)
        in_any = np.zeros(len(points), dtype=bool)
        for box in frame.boxes.boxes:
            in_any |= in_box(points, box, settings.box_margin)
        return points[:, 2] - ground_heights(points[~in_any], points, settings) <= settings.ground_height

    def _box_members(self, frame: LidarFrame, ground: np.ndarray) -> np.ndarray:
        """(P,) number of the box that a point belongs to, or -1. The street under a vehicle is not the vehicle."""
        members = np.full(len(frame.points), _NOT_IN_BOX, dtype=np.int64)
        other = ground if frame.semantics is None else frame.semantics > _LAST_THING
        for number, box in enumerate(frame.boxes.boxes):
            # low things such as cones are kept whole where only the height tells the ground, they have few points
            low = frame.semantics is None and box[5] < 4 * self.settings.ground_height
            members[in_box(frame.points, box, self.settings.box_margin) & (~other | low)] = number
        return members


def _object_names(boxes: BoxRecord) -> Sequence:
    """What tells the objects of a frame apart: their names, or their numbers if they have none."""
    return range(len(boxes.names)) if boxes.instance_tokens is None else boxes.instance_tokens


def to_box_axes(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(P, 3) points relative to the centre of ``box`` (x, y, z, l, w, h, yaw), x along its length."""
    cos, sin = np.cos(box[6]), np.sin(box[6])
    return (points - box[:3]) @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def from_box_axes(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Undoes :func:`to_box_axes`, perhaps with another box."""
    cos, sin = np.cos(box[6]), np.sin(box[6])
    return points @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + box[:3]
