"""View providers: what a supervision looks through."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from projects.occ.structures import Cameras, OccBatch, Rays, VoxelGrid

from .camera_sampler import CameraSampler
from .camera_strategies import SensorCameras, bird_eye_camera


class SampledCameras(nn.Module):
    """Cameras of the key frame, drawn and moved by a strategy, and a bird's-eye view.

    Args:
        grid: Voxel grid or the dict that describes it.
        sampler: Arguments of :class:`CameraSampler`, or one.
        bev: Arguments of :func:`bird_eye_camera`; False for no bird's-eye view.
    """

    gives = Cameras
    reads: tuple[str, ...] = ()

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        sampler: Mapping[str, Any] | CameraSampler | None = None,
        bev: Mapping[str, Any] | bool | None = None,
    ) -> None:
        super().__init__()
        grid = VoxelGrid.build(grid)
        self.sampler = sampler if isinstance(sampler, nn.Module) else CameraSampler(**{'grid': grid, **(sampler or {})})
        self.bev_camera = None if bev is False else bird_eye_camera(grid, **({} if bev in (None, True) else bev))

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of views: ``'cam'`` and, unless switched off, ``'bev'``."""
        return ('cam',) if self.bev_camera is None else ('cam', 'bev')

    @property
    def gives_real_cameras(self) -> bool:
        """Whether the cameras are all those of the key frame, unmoved and in their order."""
        return isinstance(self.sampler.strategy, SensorCameras) and self.sampler.indices == 'all'

    @property
    def cull(self) -> dict[str, str | None]:
        """Rule of each kind of view by which voxels are left out, see ``splat.CULLS``."""
        # the bird's-eye view has no border that anything could leak in from
        return {'cam': 'inside', 'bev': None}

    def forward(self, batch: OccBatch, draws: Mapping[str, Tensor] | None = None) -> dict[str, Cameras]:
        """The views of one training step, by kind.

        Args:
            batch: With the real cameras.
            draws: Random numbers as the sampler's ``draw`` returned them; None draws new ones and counts the step.
        """
        cameras = batch.cameras.at(0)
        placed = self.sampler(cameras) if draws is None else self.sampler.place(cameras, draws)
        return self.of_cameras(placed)

    def of_cameras(self, cameras: Cameras, with_bev: bool = True) -> dict[str, Cameras]:
        """Exactly these cameras, and the bird's-eye view."""
        views = {'cam': cameras}
        if with_bev and self.bev_camera is not None:
            views['bev'] = bird_eye_views(self.bev_camera, cameras)
        return views


def bird_eye_views(bev: Cameras, cameras: Cameras) -> Cameras:
    """The bird's-eye camera for each sample of a batch, on the device and in the number format of ``cameras``."""
    batch = cameras.batch_size
    like = cameras.ref2cam
    return Cameras(
        bev.ref2cam.to(like.device, like.dtype).expand(batch, -1, -1, -1),
        bev.K.to(like.device, like.dtype).expand(batch, -1, -1, -1),
        bev.sizes.expand(batch, -1, -1),
    )


class MeasuredRays(nn.Module):
    """The rays that the data set measured: LiDAR points seen as pixels of cameras, ``batch.rays``.

    Args:
        min_depth: Rays with a measured depth up to this are left out, metres.
        max_depth: Rays with a larger measured depth are left out, metres; RenderOcc: 52.
        inside: Leave out rays whose measured point lies outside the grid, for renderers that see nothing there: splatting and
            uniform marching. Not needed where what is far is contracted into the grid.
        grid: Voxel grid, for ``inside``.

    Raises:
        ValueError: If the limits are not in order, or ``inside`` is set without a grid.
    """

    gives = Rays
    reads = ('rays',)
    kinds = ('ray',)
    cull: Mapping[str, str | None] = {'ray': None}

    def __init__(
        self,
        min_depth: float = 0.0,
        max_depth: float = 52.0,
        inside: bool = False,
        grid: VoxelGrid | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= min_depth < max_depth:
            raise ValueError(f'views.min_depth must lie between 0 and max_depth, got {min_depth} and {max_depth}')
        if inside and grid is None:
            raise ValueError('views.inside needs a grid')
        self.min_depth, self.max_depth = min_depth, max_depth
        self.grid = VoxelGrid.build(grid) if inside else None

    def forward(self, batch: OccBatch) -> dict[str, Rays]:
        """The rays of the batch; those that are not finite or too near or far do not count.

        Raises:
            ValueError: If the batch has none.
        """
        rays = batch.rays
        if rays is None:
            raise ValueError(f'the samples {batch.tokens} have no rays; put the transform that makes them into the pipeline')
        valid = rays.valid & torch.isfinite(rays.direction).all(-1) & torch.isfinite(rays.origin).all(-1)
        if rays.depth is not None:
            valid = valid & (rays.depth > self.min_depth) & (rays.depth <= self.max_depth)
            if self.grid is not None:
                points = rays.origin + rays.direction * (rays.depth / rays.depth_per_range)[..., None]
                lower, upper = points.new_tensor(self.grid.lower), points.new_tensor(self.grid.upper)
                valid = valid & ((points >= lower) & (points < upper)).all(-1)
        cameras = batch.cameras if rays.view is not None and rays.cameras is None else rays.cameras
        return {'ray': replace(rays, valid=valid, cameras=cameras)}
