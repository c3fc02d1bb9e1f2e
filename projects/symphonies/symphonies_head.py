"""From the scene volumes of Symphonies to class logits of every voxel."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.occ.models.base_occ_head import BaseOccHead
from projects.occ.models.layers import recompute
from projects.occ.structures import OccPrediction, VoxelGrid

from .scene_geometry import SceneCells


@MODELS.register_module()
class SymphoniesHead(BaseOccHead):
    """Up-samples a scene volume to the full grid by transposed convolutions, first along z, and classifies every voxel.

    The same layers serve the volumes of all decoder layers. All outputs have full resolution.

    Args:
        grid: The voxel grid.
        volume_scale: Voxels per scene cell along each axis, 1 or 2, the same as in the view encoder.
        downsample_z: Further factor along z, the same as in the view encoder.
        embed_dims: Channels of the volumes and of the voxel features.
        with_cp: Recompute the layers in the backward pass: far less memory, more time, same numbers.
        **kwargs: ``loss_occ`` and ``init_cfg`` of the base class.

    Raises:
        ValueError: If grid and factors do not fit together, or there is no up-sampling for ``volume_scale``.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        volume_scale: int = 2,
        downsample_z: int = 2,
        embed_dims: int = 128,
        with_cp: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(grid=grid, **kwargs)
        if volume_scale not in (1, 2):
            raise ValueError(f'occ_head.volume_scale must be 1 or 2, got {volume_scale}')
        self.cells = SceneCells(self.grid, volume_scale, downsample_z)
        self.embed_dims, self.with_cp = embed_dims, with_cp
        self.up_z = self._up((1, 1, downsample_z)) if downsample_z > 1 else nn.Identity()
        self.up = self._up((volume_scale,) * 3) if volume_scale > 1 else nn.Identity()
        self.classifier = nn.Conv3d(embed_dims, self.grid.num_classes, kernel_size=1)

    def _up(self, stride: tuple[int, int, int]) -> nn.Sequential:
        rest = tuple(s - 1 for s in stride)
        return nn.Sequential(
            nn.ConvTranspose3d(self.embed_dims, self.embed_dims, 3, stride=stride, padding=1, output_padding=rest),
            nn.BatchNorm3d(self.embed_dims),
            nn.ReLU(inplace=True),
        )

    def _complete(self, volume: Tensor) -> tuple[Tensor, Tensor]:
        feats = self.up(self.up_z(volume))
        return self.classifier(feats), feats

    def forward(self, scene: Sequence[Tensor]) -> OccPrediction:
        """Classifies.

        Args:
            scene: Volumes of the decoder layers, each (B, C, X_s, Y_s, Z_s).

        Returns:
            Logits (B, K, X, Y, Z) of every volume in the same order, and voxel features (B, C, X, Y, Z) of the last one.

        Raises:
            ValueError: If the volumes do not have the shape that the head was built for.
        """
        expected = (self.embed_dims, *self.cells.shape)
        if any(tuple(volume.shape[1:]) != expected for volume in scene):
            raise ValueError(
                f'occ_head expects volumes (B, C, X, Y, Z) with {expected}, got {[tuple(volume.shape) for volume in scene]}; '
                'model.view_encoder and model.occ_head must have the same grid, volume_scale, downsample_z and embed_dims'
            )
        logits, feats = [], None
        for volume in scene:
            if self.with_cp:
                scores, feats = recompute(self, volume, function=self._complete)
            else:
                scores, feats = self._complete(volume)
            logits.append(scores)
        return OccPrediction(logits=logits, voxel_feats=feats)
