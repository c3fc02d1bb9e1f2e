"""From image features of several frames to one volume of voxel features."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from projects.occ.structures import VoxelGrid

from .cost_volume import cost_volume
from .geometry import (
    DepthBins,
    block_bins,
    frustum_pixels,
    lift_grid,
    lift_points,
    normalise_positions,
    pool_voxels,
    voxel_ranks,
    warp_cells,
)


class LiftedScene(NamedTuple):
    """What the view encoder hands to the head.

    Attributes:
        volume: (B, C, Z, Y, X) voxel features of all frames.
        depth_logits: (B, N, D, h, w) depth logits of the cells of the key frame's feature maps.
        bins: Depth bins of the logits.
    """

    volume: Tensor
    depth_logits: Tensor
    bins: DepthBins


@MODELS.register_module()
class BEVDetViewEncoder(BaseModule):
    """Lifts image features into voxels by predicted depth, frame by frame, and mixes the frames by 3D convolutions.

    `Lift, Splat, Shoot <https://arxiv.org/abs/2008.05711>`_ without collapsing the height, as `BEVDet
    <https://arxiv.org/abs/2112.11790>`_ uses it for occupancy. Every frame is lifted into the reference frame of the key
    frame with its own poses. :class:`BEVDetSegmentor` feeds the frames.

    Args:
        grid: Voxel grid; its range is that of the volume.
        depth_net: Config of the network for depth and context (``LSSDepthNet``, ``CameraAwareDepthNet``); the numbers of bins
            and of context channels are added.
        voxel_encoder: Config of the network over the fused volume (``ResNet3D``), which takes ``num_frames * channels``.
        voxel_neck: Config of the neck over its outputs (``LSSFPN3D``).
        channels: Channels C of the lifted features.
        depth_bins: (lower, upper, step) of the depth bins, metres.
        num_frames: Frames that are fused, the key frame included. A network with stereo reads one frame more.
        frame_net: Config of the network over the volume of each frame before they are fused, or None.
        shape: Voxels (X, Y, Z) of the volume if not those of the grid.
        cost_bias: Cost of a depth whose point lies outside the earlier image, see :func:`~projects.bevdet.cost_volume`.
        reference_geometry: Lift and match as published weights were trained: cells spread from corner to corner, points at the
            near edge of their bin, a shell of one voxel below the lower bounds folded into the first voxels, outside told by
            one channel. Needed for released weights; False is right.
        with_history: False leaves earlier frames out: zeros take the place of their volumes and of the cost volume.
        depth_override: Config of a module (``MeasuredDepth``) that is called with the depth distribution (B, N, D, h, w) of the
            key frame and the measured bins (B, N, h, w) int64, -1 where nothing was measured, and returns the distribution to
            lift with; only where the batch has depth maps. None: lift with the predicted one.
        init_cfg: Extra initialisation, applied last.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        depth_net: Mapping[str, Any],
        voxel_encoder: Mapping[str, Any],
        voxel_neck: Mapping[str, Any],
        channels: int = 32,
        depth_bins: Sequence[float] = (1.0, 45.0, 0.5),
        num_frames: int = 1,
        frame_net: Mapping[str, Any] | None = None,
        shape: Sequence[int] | None = None,
        cost_bias: float = 5.0,
        reference_geometry: bool = False,
        with_history: bool = True,
        depth_override: Mapping[str, Any] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.grid = VoxelGrid.build(grid)
        if num_frames < 1:
            raise ValueError(f'view_encoder.num_frames must be at least 1, the key frame, got {num_frames}')
        self.depth_bins = DepthBins(*depth_bins)
        self.shape, self.voxel_size = lift_grid(self.grid, shape)
        self.channels, self.num_frames = channels, num_frames
        self.cost_bias, self.reference, self.with_history = cost_bias, reference_geometry, with_history
        self.depth_net = MODELS.build(depth_net, default_args=dict(num_bins=len(self.depth_bins), context_channels=channels))
        self.frame_net = MODELS.build(frame_net) if frame_net else None
        self.voxel_encoder = MODELS.build(voxel_encoder, default_args=dict(in_channels=num_frames * channels))
        self.voxel_neck = MODELS.build(voxel_neck)
        self.depth_override = MODELS.build(depth_override) if depth_override else None

    @property
    def stereo(self) -> bool:
        """Whether each frame is compared with the one before it."""
        return self.depth_net.stereo

    @property
    def num_read(self) -> int:
        """Frames that are read: those that are fused and, with stereo, one more."""
        return self.num_frames + int(self.stereo)

    def match(self, current: Tensor, previous: Tensor, warp: Tensor, size: Sequence[int]) -> Tensor:
        """Cost volume between two frames of the same cameras.

        Args:
            current: (B, N, C, h, w), stereo features.
            previous: (B, N, C, h, w), those of the earlier frame.
            warp: (B, N, 4, 4), (u*d, v*d, d, 1) in the current image -> that in the earlier one, pixels and metres.
            size: (W, H) of the network image, pixels.

        Returns:
            (B*N, D, h, w), probabilities of the depth bins.
        """
        height, width = current.shape[-2:]
        u, v = (axis.to(warp.device) for axis in frustum_pixels(size, (width, height), self.reference))
        depth = self.depth_bins.points(self.reference).to(warp.device)
        pixels, front = warp_cells(warp.flatten(0, 1), u, v, depth)
        positions = normalise_positions(pixels, front, size, self.reference)
        return cost_volume(current.flatten(0, 1), previous.flatten(0, 1), positions, self.cost_bias, self.reference)

    def lift(
        self,
        feats: Tensor,
        vector: Tensor,
        ref2img: Tensor,
        size: Sequence[int],
        cost: Tensor | None = None,
        depths: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Volume of one frame.

        Args:
            feats: (B, N, C_in, h, w), image features.
            vector: (B, N, 27), see :func:`~projects.bevdet.geometry.camera_vector`.
            ref2img: (B, N, 4, 4), reference frame of the key frame (metres) -> (u*d, v*d, d, 1), pixels of the network image.
            size: (W, H) of the network image, pixels.
            cost: (B*N, D, 4h, 4w), see :meth:`match`; None: zeros.
            depths: (B, N, H, W), measured depth maps for ``depth_override``, metres, 0 where unknown; None: do not call it.

        Returns:
            Volume (B, C, Z, Y, X) and depth logits (B, N, D, h, w).
        """
        height, width = feats.shape[-2:]
        if cost is None and self.stereo:
            cost = feats.new_zeros(len(feats) * feats.shape[1], len(self.depth_bins), 4 * height, 4 * width)
        logits, context = self.depth_net(feats.flatten(0, 1), vector.flatten(0, 1), cost)
        logits, context = (maps.unflatten(0, feats.shape[:2]) for maps in (logits, context))
        depth = logits.float().softmax(2)
        if depths is not None and self.depth_override is not None:
            depth = self.depth_override(depth, block_bins(depths, size[0] // width, self.depth_bins))
        volume = pool_voxels(depth, context, self._ranks(ref2img, size, (width, height)), self.shape)
        return volume if self.frame_net is None else self.frame_net(volume)[-1], logits

    def _ranks(self, ref2img: Tensor, size: Sequence[int], cells: Sequence[int]) -> Tensor:
        """Voxel (B, N, D, h, w) of each frustum point, -1 outside."""
        u, v = (axis.to(ref2img.device) for axis in frustum_pixels(size, cells, self.reference))
        points = lift_points(ref2img, u, v, self.depth_bins.points(self.reference).to(ref2img.device))
        return voxel_ranks(points, self.grid.lower, self.voxel_size, self.shape, self.reference)

    def forward(self, volumes: Sequence[Tensor]) -> Tensor:
        """Fuses the volumes (B, C, Z, Y, X) of the frames, oldest first: (B, C_out, Z, Y, X)."""
        return self.voxel_neck(self.voxel_encoder(torch.cat(list(volumes), dim=1)))
