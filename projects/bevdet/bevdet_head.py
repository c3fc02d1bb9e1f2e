"""From the fused volume to class logits of every voxel, with or without a density."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.occ.models.base_occ_head import BaseOccHead
from projects.occ.models.density_head import DensityBranches, softplus_mlp
from projects.occ.structures import OccBatch, OccPrediction, VoxelGrid

from .bevdet_encoder import LiftedScene
from .geometry import DepthBins, block_bins, resize_volume


class LiftedSceneHead(BaseOccHead):
    """What the heads of this family share: the last convolution, and the loss of the depth distribution.

    Args:
        grid: The voxel grid.
        in_channels: Channels of the volume.
        channels: Channels F of the voxel features.
        loss_depth: Config of the loss on the depth distribution of the key frame (``LiftedDepthLoss``), or None.
        **kwargs: ``loss_occ`` and ``init_cfg`` of the base class.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        in_channels: int = 32,
        channels: int = 32,
        loss_depth: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(grid=grid, **kwargs)
        self.final_conv = ConvModule(in_channels, channels, 3, padding=1, conv_cfg=dict(type='Conv3d'))
        self.loss_depth = MODELS.build(loss_depth) if loss_depth else None

    def forward(self, scene: LiftedScene) -> OccPrediction:
        """Logits (B, K, X, Y, Z), voxel features (B, F, X, Y, Z) and the depth distribution; a density where the head has one.

        A volume of another resolution than the grid is resized.
        """
        volume = resize_volume(scene.volume, self.grid.shape[::-1])
        feats = self.final_conv(volume).permute(0, 4, 3, 2, 1)
        bins = scene.bins
        return OccPrediction(
            voxel_feats=feats.movedim(-1, 1),
            depth_logits=scene.depth_logits,
            depth_bins=(bins.lower, bins.upper, bins.step),
            **self.outputs(feats),
        )

    @abstractmethod
    def outputs(self, feats: Tensor) -> dict[str, Any]:
        """Further fields of the prediction from voxel features (B, X, Y, Z, F): ``logits`` at least."""

    def loss_by_feat(self, prediction: OccPrediction, batch: OccBatch) -> dict[str, Tensor]:
        """Voxel losses, and ``loss_lss_depth`` with ``loss_depth``.

        Raises:
            ValueError: If a loss needs labels, a mask or depth maps, and the batch has none.
        """
        losses = super().loss_by_feat(prediction, batch)
        if self.loss_depth is not None:
            losses['loss_lss_depth'] = self.loss_depth(prediction, batch)
        return losses


@MODELS.register_module()
class BEVDetOccHead(LiftedSceneHead):
    """Classifies every voxel by two linear layers over the features of a last convolution.

    Args:
        grid: The voxel grid.
        **kwargs: See :class:`LiftedSceneHead`.
    """

    def __init__(self, grid: VoxelGrid | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(grid=grid, **kwargs)
        self.predictor = softplus_mlp(self.final_conv.out_channels, self.grid.num_classes)

    def outputs(self, feats: Tensor) -> dict[str, Any]:
        """Logits (B, K, X, Y, Z) of all classes."""
        return dict(logits=[self.predictor(feats).movedim(-1, 1)])


@MODELS.register_module()
class DensityOccHead(DensityBranches, LiftedSceneHead):
    """Predicts density and classes apart from the features of a last convolution, as RenderOcc does.

    Args:
        grid: The voxel grid.
        final_softplus: See :class:`DensityBranches`, like the next three.
        threshold: Density above which a voxel is occupied.
        joint: Logits are one distribution over all classes.
        rule: What is occupied.
        **kwargs: See :class:`LiftedSceneHead`.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        final_softplus: bool = True,
        threshold: float | None = 8.5,
        joint: bool = False,
        rule: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(grid=grid, **kwargs)
        self.build_branches(self.final_conv.out_channels, final_softplus, threshold, joint, rule)


@MODELS.register_module()
class LiftedDepthLoss(nn.Module):
    """Binary cross-entropy of the predicted depth distribution against the measured bin of each cell.

    The sum over the bins, averaged over the cells of the whole batch that have a measurement; computed in float32.

    Args:
        weight: Factor.
    """

    def __init__(self, weight: float = 0.05) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, prediction: OccPrediction, batch: OccBatch) -> Tensor:
        """Computes.

        Args:
            prediction: With ``depth_logits`` (B, N, D, h, w) of the key frame's N cameras.
            batch: With ``depths``; in each block of pixels that is one cell of the logits the smallest depth counts.

        Returns:
            Scalar; 0 if nothing was measured.

        Raises:
            ValueError: If the batch has no depth maps.
        """
        logits, depths = prediction.depth_logits, batch.at(0).depths
        if depths is None:
            raise ValueError(
                f'occ_head.loss_depth needs depth maps, but the batch {batch.tokens} has none; put LoadDepthFromLidar into the '
                'pipeline, or set occ_head.loss_depth=None'
            )
        bins = block_bins(depths, depths.shape[-1] // logits.shape[-1], DepthBins(*prediction.depth_bins))
        with torch.autocast(logits.device.type, enabled=False):
            known = bins >= 0
            probs = logits.float().softmax(2).movedim(2, -1)[known]
            target = F.one_hot(bins[known], probs.shape[-1]).to(probs.dtype)
            total = F.binary_cross_entropy(probs, target, reduction='sum')
            return self.weight * total / max(1, len(probs))
