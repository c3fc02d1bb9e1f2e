"""The cameras of the key frame at a size of one's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from projects.occ.structures import Cameras, OccBatch, VoxelGrid


def resized(cameras: Cameras, size: Sequence[int]) -> Cameras:
    """The same cameras with images of (height, width) pixels, each axis scaled on its own."""
    height, width = size
    target = torch.tensor([width, height])
    K = cameras.K.clone()
    K[..., :2, :] *= (target / cameras.sizes.double()).to(K).unsqueeze(-1)
    return Cameras(cameras.ref2cam, K, target.expand_as(cameras.sizes).clone(), cameras.frame)


class KeyFrameCameras(nn.Module):
    """All real cameras of the key frame, unmoved.

    Args:
        size: (height, width) to render, pixels; pixels need not be square. None: the size of the original images.
        cull: Rule by which a view leaves out voxels, a key of ``splat.CULLS``, for example ``'half_space'``, as the original
            does for six cameras; None: none, the rasteriser finds out what an image shows.
        grid: Not needed; every view provider is given it.
    """

    gives = Cameras
    reads: tuple[str, ...] = ()
    kinds = ('cam',)
    gives_real_cameras = True

    def __init__(
        self,
        size: Sequence[int] | None = None,
        cull: str | None = None,
        grid: VoxelGrid | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.cull: Mapping[str, str | None] = {'cam': cull}
        if size is not None and (len(size) != 2 or min(size) < 1):
            raise ValueError(f'views.size must be (height, width) in pixels, got {size}')
        self.size = None if size is None else tuple(size)

    def forward(self, batch: OccBatch) -> dict[str, Cameras]:
        """The cameras of the batch."""
        cameras = batch.cameras.at(0)
        return {'cam': cameras if self.size is None else resized(cameras, self.size)}
