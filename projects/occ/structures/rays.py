"""Rays of a batch: what a ray marcher renders and what LiDAR measures."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rays:
    """R rays of each of B samples, in the reference frame of the grid at the key frame.

    Samples with fewer rays than others are padded; ``valid`` says which rays count. Rays that are pixels of cameras know their
    view and pixel, so that a renderer of whole images can serve them too.

    Attributes:
        origin: (B, R, 3), metres.
        direction: (B, R, 3), unit length.
        depth_per_range: (B, R), depth along the optical axis per metre of the ray, in (0, 1]; 1 for rays without a camera.
        valid: (B, R) bool.
        view: (B, R) int64, position on the view axis of the cameras, -1 for rays of a camera that is not on it (LiDAR frames
            whose images are not loaded); or None.
        uv: (B, R, 2), pixel of the original image, x before y, the centre of the top left pixel is (0.5, 0.5); or None.
        depth: (B, R), measured depth along the optical axis, metres, or None.
        labels: (B, R) int64, measured class, the ignore index of the grid where unknown, or None.
        frame: (B, R) int64, offset of the frame that the ray was measured in, or None.
        cameras: B x V cameras (:class:`Cameras`) that ``view`` and ``uv`` refer to, or None.
    """

    origin: Tensor
    direction: Tensor
    depth_per_range: Tensor
    valid: Tensor
    view: Tensor | None = None
    uv: Tensor | None = None
    depth: Tensor | None = None
    labels: Tensor | None = None
    frame: Tensor | None = None
    cameras: Any = None

    def __post_init__(self) -> None:
        lead = self.origin.shape[:-1]
        for name, value in self._tensors().items():
            expected = (*lead, _VECTORS[name]) if name in _VECTORS else lead
            if tuple(value.shape) != tuple(expected):
                raise ValueError(f'rays: {name} must be {tuple(expected)} like origin, got {tuple(value.shape)}')

    def _tensors(self) -> dict[str, Tensor]:
        """What is there, by name."""
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)}

    @property
    def batch_size(self) -> int:
        """B."""
        return self.origin.shape[0]

    @property
    def num_rays(self) -> int:
        """R, with padding."""
        return self.origin.shape[1]

    @classmethod
    def stack(cls, items: Sequence['Rays'], ignore_index: int = 255) -> 'Rays':
        """One batch of samples with different numbers of rays, padded with rays that are not valid.

        Args:
            items: Rays of one or more samples each, without cameras. What one of them lacks, the batch lacks.
            ignore_index: Label of the padding.
        """
        count = max(item.num_rays for item in items)
        fill = dict(_PADDING, labels=ignore_index)

        def padded(item: 'Rays', name: str) -> Tensor:
            value = getattr(item, name)
            missing = (item.batch_size, count - item.num_rays, *value.shape[2:])
            padding = torch.tensor(fill[name], dtype=value.dtype, device=value.device).expand(missing)
            return torch.cat([value, padding], dim=1)

        return cls(
            **{
                name: torch.cat([padded(item, name) for item in items])
                for name in items[0]._tensors()
                if all(getattr(item, name) is not None for item in items)
            }
        )

    def samples(self, indices: Sequence[int]) -> 'Rays':
        """The rays of the samples ``indices`` of the batch."""
        indices = list(indices)
        taken = {name: value[indices] for name, value in self._tensors().items()}
        return Rays(**taken, cameras=self.cameras and self.cameras.samples(indices))

    def to(self, *args: Any, **kwargs: Any) -> 'Rays':
        """The same rays with ``Tensor.to(*args, **kwargs)`` applied; numbers that are no floats only move."""
        changed = {}
        for name, value in self._tensors().items():
            moved = value.to(*args, **kwargs)
            changed[name] = moved if value.is_floating_point() else moved.to(value.dtype)
        return Rays(**changed, cameras=self.cameras and self.cameras.to(*args, **kwargs))


_VECTORS = dict(origin=3, direction=3, uv=2)
# rays that point along x from the origin of the frame, with no measurement
_PADDING = dict(
    origin=0.0, direction=(1.0, 0.0, 0.0), depth_per_range=1.0, valid=False, view=-1, uv=0.0, depth=0.0, labels=255, frame=0
)
