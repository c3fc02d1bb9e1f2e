"""Frames of a drive one after another, each with those before it."""

import logging
from collections.abc import Sequence

import numpy as np
from mmengine.logging import print_log

from projects.occ.structures.frame_inputs import frame_inputs, in_reference_of, join_frames

from .camera_frames import CameraFrame


class FrameHistory:
    """Remembers the frames that a model will see again, and gives every new frame together with them.

    Views of earlier frames are placed by ``ref2global``. Where there is no earlier frame (at the start of a drive, or without
    poses), the key frame's own views stand in for it, as in the data sets. A frame of another ``scene``, or with other cameras,
    starts anew, and so does one without ``ref2global``.

    Args:
        offsets: Frames that the model sees, 0 and negative numbers.
        frame: Reference frame of the model's grid, ``'ego'`` or ``'lidar'``.

    Raises:
        ValueError: If the model sees frames after the key frame.
    """

    def __init__(self, offsets: Sequence[int], frame: str) -> None:
        self.offsets = tuple(int(offset) for offset in offsets)
        if 0 not in self.offsets or max(self.offsets) > 0:
            raise ValueError(f'the model sees the frames {self.offsets}; of a drive only 0 and earlier ones are there')
        self.frame = frame
        self.earlier: list[CameraFrame] = []

    @property
    def length(self) -> int:
        """Number of earlier frames that are kept."""
        return -min(self.offsets)

    def clear(self) -> None:
        """Forgets all frames: the next one is the first of a drive."""
        self.earlier = []

    def inputs(self, frame: CameraFrame) -> dict:
        """What a pipeline starts from (see ``frame_inputs``): the views of a frame and of the earlier ones, newest first.

        Args:
            frame: The next frame of the drive; it is remembered.
        """
        if not (self.earlier and _follows(frame, self.earlier[-1])):
            self.clear()
        members: list[tuple[int, CameraFrame | None]] = [
            (offset, self.earlier[offset] if -offset <= len(self.earlier) else None) for offset in self.offsets if offset
        ]
        key = frame_inputs(frame.record(self.frame), self.frame)
        results = key
        if members:
            others = [(offset, None if other is None else self._seen_from(other, frame)) for offset, other in members]
            results = join_frames(key, others)
        parts = [frame, *(frame if other is None else other for _, other in members)]
        if not frame.from_files:
            results['img'] = [image.copy() for part in parts for image in part.images]
        if frame.depth is not None:
            results['depth'] = [depth.copy() for part in parts for depth in part.depth]
        self._remember(frame)
        return results

    def _seen_from(self, other: CameraFrame, key: CameraFrame) -> dict:
        moved = np.linalg.inv(other.ref2global) @ key.ref2global
        return in_reference_of(frame_inputs(other.record(self.frame), self.frame), moved)

    def _remember(self, frame: CameraFrame) -> None:
        if not self.length:
            return
        if frame.ref2global is None:
            print_log(
                f'frame {frame.token!r} has no ref2global, so the model sees no earlier frame, as it did in training '
                '(docs/inference.md, "Drives")',
                logger='current',
                level=logging.WARNING,
            )
            return
        self.earlier = [*self.earlier, frame][-self.length :]


def _follows(frame: CameraFrame, last: CameraFrame) -> bool:
    """Whether a frame can be seen together with the one before it."""
    alike = all((getattr(frame, name) is None) == (getattr(last, name) is None) for name in ('depth', 'ref2global'))
    return alike and (frame.scene, frame.cam_names, frame.from_files) == (last.scene, last.cam_names, last.from_files)
