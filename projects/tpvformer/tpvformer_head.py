"""From the three planes to class logits of every voxel."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet3d.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from projects.occ.models.base_occ_head import BaseOccHead
from projects.occ.models.layers import recompute
from projects.occ.structures import OccPrediction, VoxelGrid

from .planes import PLANES, plane_cells, plane_size


@MODELS.register_module()
class TPVFormerOccHead(BaseOccHead):
    """Adds the up-sampled planes at every voxel and classifies the sum with a small network.

    Args:
        grid: The voxel grid.
        scale: Voxels per plane cell along x, y, z, the same as in the view encoder.
        in_dims: Channels C of the planes.
        hidden_dims: Hidden channels of the decoder.
        out_dims: Channels F of the voxel features.
        with_cp: Recompute decoder and classifier in the backward pass: less memory, more time, same numbers.
        **kwargs: ``loss_occ`` and ``init_cfg`` of the base class.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        scale: Sequence[int] = (2, 2, 2),
        in_dims: int = 256,
        hidden_dims: int = 512,
        out_dims: int = 256,
        with_cp: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(grid=grid, **kwargs)
        grid = VoxelGrid.build(grid)
        self.cells = plane_cells(grid, scale)
        self.voxels = grid.shape
        self.in_dims = in_dims
        self.with_cp = with_cp
        self.decoder = nn.Sequential(nn.Linear(in_dims, hidden_dims), nn.Softplus(), nn.Linear(hidden_dims, out_dims))
        self.classifier = nn.Linear(out_dims, grid.num_classes)

    def fuse(self, planes: Sequence[Tensor]) -> Tensor:
        """Sum of the planes at every voxel: hw, zh, wz, each (B, cells, C) -> (B, X, Y, Z, C).

        Raises:
            ValueError: If a plane does not have the size that grid and scale ask for.
        """
        maps = []
        for name, plane in zip(PLANES, planes):
            rows, columns = plane_size(name, self.cells)
            if plane.shape[1:] != (rows * columns, self.in_dims):
                raise ValueError(
                    f'plane {name} must be (B, {rows * columns}, {self.in_dims}), got {tuple(plane.shape)}; '
                    'model.view_encoder and model.occ_head must have the same grid, scale and channels'
                )
            plane = plane.transpose(1, 2).unflatten(2, (rows, columns))
            size = plane_size(name, self.voxels)
            if plane.shape[2:] != size:
                plane = F.interpolate(plane, size=size, mode='bilinear', align_corners=False)
            maps.append(plane)
        hw, zh, wz = maps
        volume = hw.permute(0, 3, 2, 1).unsqueeze(3) + zh.permute(0, 3, 2, 1).unsqueeze(1) + wz.permute(0, 2, 3, 1).unsqueeze(2)
        return volume

    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        return recompute(module, x) if self.with_cp else module(x)

    def forward(self, scene: Sequence[Tensor]) -> OccPrediction:
        """Classifies.

        Args:
            scene: Planes hw (B, Y*X, C), zh (B, Z*Y, C) and wz (B, X*Z, C) of the view encoder.

        Returns:
            One scale of logits (B, K, X, Y, Z) and voxel features (B, F, X, Y, Z).
        """
        voxel_feats = self._run(self.decoder, self.fuse(scene))
        logits = self._run(self.classifier, voxel_feats)
        return OccPrediction(logits=[logits.permute(0, 4, 1, 2, 3)], voxel_feats=voxel_feats.permute(0, 4, 1, 2, 3))
