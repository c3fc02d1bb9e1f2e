"""Image features at points in space, averaged over the cameras that see them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from projects.occ.structures import ContractedGrid, OccBatch, VoxelGrid

ALIGNMENTS = ('corner', 'mixed')


def _pixels(points: Tensor, ref2img: Tensor, image_wh: Sequence[int], map_wh: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Projects points into a feature map: pixels (P, 2) from the corner of the image, and depths (P,)."""
    projected = points @ ref2img[:3, :3].T + ref2img[:3, 3]
    depth = projected[:, 2]
    scale = projected.new_tensor([map_wh[0] / image_wh[0], map_wh[1] / image_wh[1]])
    return projected[:, :2] / depth.clamp(min=1e-6).unsqueeze(1) * scale, depth


def average_lift(
    features: Tensor, points: Tensor, ref2img: Tensor, image_wh: Sequence[int], align: str = 'corner', eps: float = 1e-6
) -> Tensor:
    """Mean of the features that cameras have of points (SimpleOccupancy, GaussianOcc).

    Args:
        features: (N, C, h, w), one map per camera.
        points: (P, 3), metres, reference frame.
        ref2img: (N, 4, 4), reference frame -> (u*d, v*d, d, 1) in pixels of the network image.
        image_wh: (W, H) of the network images, pixels.
        align: ``'corner'``: a pixel of the map is ``w / W`` of one of the image, measured from the image's corner. ``'mixed'``:
            up to one pixel off at the right and lower border, as the original is and its published weights expect.
        eps: Added to the number of cameras.

    Returns:
        (C, P): sum over the cameras divided by ``eps`` plus the number of cameras whose value is not zero, channel by channel;
        zero at points that no camera sees.
    """
    channels, (height, width) = features.shape[1], features.shape[-2:]
    size = points.new_tensor([width, height])
    total = features.new_zeros(channels, len(points))
    seen = features.new_zeros(channels, len(points))
    for feature, matrix in zip(features, ref2img):
        uv, depth = _pixels(points, matrix, image_wh, (width, height))
        offset = 0.5 if align == 'mixed' else 0.0
        visible = ((uv > -offset) & (uv < size - offset)).all(1) & (depth > 0)
        index = visible.nonzero().squeeze(1)
        # grid_sample measures from the corner of the map; the original divides by one pixel less than that
        normalised = 2 * uv[index] / (size - 1 if align == 'mixed' else size) - 1
        normalised = normalised.clamp(-2, 2).to(feature.dtype)
        values = F.grid_sample(feature[None], normalised[None, None], padding_mode='zeros', align_corners=False)[0, :, 0]
        total = total.index_add(1, index, values)
        seen.index_add_(1, index, (values.detach() != 0).to(seen.dtype))
    return total / (eps + seen)


@MODELS.register_module()
class AverageLiftViewEncoder(BaseModule):
    """Image features at every vertex of a grid. Has no parameters and takes any number of cameras.

    Args:
        grid: The voxel grid; its centres are the points if there is no contraction.
        contraction: ``ContractedGrid`` whose vertices are the points, or None.
        align: See :func:`average_lift`; weights published by the authors expect ``'mixed'``.
        level: Feature level to look up.
        init_cfg: Initialisation, see mmengine.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        contraction: ContractedGrid | Mapping[str, Any] | None = None,
        align: str = 'corner',
        level: int = 0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if align not in ALIGNMENTS:
            raise ValueError(f'view_encoder.align must be one of {ALIGNMENTS}, got {align!r}')
        self.align = align
        self.level = level
        lattice = VoxelGrid.build(grid) if contraction is None else ContractedGrid.build(contraction)
        self.shape = lattice.shape
        self.register_buffer('points', lattice.centers().reshape(-1, 3), persistent=False)

    def forward(self, img_feats: Sequence[Tensor], batch: OccBatch) -> Tensor:
        """Lifts.

        Args:
            img_feats: Feature maps, each (B, N, C, h, w).
            batch: The batch of the same N views, for its cameras.

        Returns:
            (B, C, X, Y, Z) float32.
        """
        features = img_feats[self.level]
        # single precision: half has too few digits for matrices in pixels and for points hundreds of metres away
        with torch.autocast(features.device.type, enabled=False):
            lifted = [
                average_lift(feature.float(), self.points, matrix, batch.input_wh, self.align)
                for feature, matrix in zip(features, batch.cameras.ref2img)
            ]
        return torch.stack(lifted).unflatten(2, self.shape)
