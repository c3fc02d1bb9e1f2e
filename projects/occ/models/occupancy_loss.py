"""The voxel-wise training loss: class-weighted cross-entropy and Lovász-softmax on every scale."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet3d.models.losses.lovasz_loss import lovasz_softmax_flat
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.occ.structures import VoxelGrid


def reduce_volume(volume: Tensor, shape: Sequence[int]) -> Tensor:
    """Brings labels or masks to a coarser grid by taking the last child of every cell on each axis.

    That is what the original's scatter ("last write wins") gives on a CPU; here it is the rule on every device.

    Args:
        volume: (B, X, Y, Z), any dtype.
        shape: Coarse (X_s, Y_s, Z_s); each must divide the fine size.

    Returns:
        (B, X_s, Y_s, Z_s), a view.

    Raises:
        ValueError: If a coarse size does not divide the fine one.
    """
    fine = tuple(volume.shape[1:])
    if any(s < 1 or f % s for f, s in zip(fine, shape)):
        raise ValueError(f'the coarse grid {tuple(shape)} must divide the full grid {fine} on every axis')
    rx, ry, rz = (f // s for f, s in zip(fine, shape))
    return volume[:, rx - 1 :: rx, ry - 1 :: ry, rz - 1 :: rz]


@MODELS.register_module()
class OccupancyLoss(nn.Module):
    """Cross-entropy plus Lovász-softmax over all scales of a prediction.

    The loss of a scale is ``decay ** s * (ce_weight * CE + lovasz_weight * Lovász)`` with s = 0 for the finest. CE is the
    class-weighted mean ``sum(w * nll) / sum(w)``; Lovász-softmax averages over the classes present in the labels. Voxels of the
    whole batch are pooled. Where no voxel is labelled both are 0. (GaussRender, src/loss/occupancy_loss.py.)

    Args:
        grid: Voxel grid of the labels.
        class_weights: One cross-entropy weight per class, or None for equal weights.
        ce_weight: Factor of the cross-entropy; 0 leaves it out.
        lovasz_weight: Factor of the Lovász term; 0 leaves it out.
        decay: Factor from each scale to the next coarser one.
        mask: Voxels that count: ``'none'`` (all labelled ones, as published), ``'camera'``, ``'lidar'`` or ``'both'``. Training
            with a mask makes numbers incomparable with the published ones.

    Raises:
        ValueError: If the number of weights is not the number of classes, or the mask is unknown.
    """

    MASKS = ('none', 'camera', 'lidar', 'both')

    def __init__(
        self,
        grid: VoxelGrid | dict,
        class_weights: Sequence[float] | None = None,
        ce_weight: float = 10.0,
        lovasz_weight: float = 1.0,
        decay: float = 0.5,
        mask: str = 'none',
    ) -> None:
        super().__init__()
        self.grid = VoxelGrid.build(grid)
        if class_weights is not None and len(class_weights) != self.grid.num_classes:
            raise ValueError(
                f'loss_occ.class_weights must have one weight for each of the {self.grid.num_classes} classes of the grid, '
                f'got {len(class_weights)}'
            )
        if mask not in self.MASKS:
            raise ValueError(f'loss_occ.mask must be one of {self.MASKS}, got {mask!r}')
        self.class_weights = None if class_weights is None else tuple(float(w) for w in class_weights)
        self.ce_weight = ce_weight
        self.lovasz_weight = lovasz_weight
        self.decay = decay
        self.mask = mask

    def forward(self, logits: Sequence[Tensor], labels: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Computes the weighted terms of every scale.

        Args:
            logits: Coarse to fine, each (B, C, X_s, Y_s, Z_s).
            labels: (B, X, Y, Z) integer class ids.
            mask: (B, X, Y, Z) bool, voxels that count, or None for all.

        Returns:
            ``loss_occ_ce_<s>`` and ``loss_occ_lovasz_<s>``, scalars, s = 0 for the finest scale.

        Raises:
            ValueError: If the shapes of logits, labels and grid do not fit.
        """
        if tuple(labels.shape[1:]) != self.grid.shape:
            raise ValueError(f'labels must be (B, X, Y, Z) with the grid shape {self.grid.shape}, got {tuple(labels.shape)}')
        valid = labels != self.grid.ignore_index
        if mask is not None:
            valid = valid & mask
        losses = {}
        for level, scores in enumerate(logits):
            if scores.dim() != 5 or scores.shape[1] != self.grid.num_classes or scores.shape[0] != labels.shape[0]:
                raise ValueError(
                    f'logits must be (B, C, X, Y, Z) with B={labels.shape[0]} and C={self.grid.num_classes} '
                    f'(grid.class_names), got {tuple(scores.shape)}'
                )
            scale = len(logits) - 1 - level
            terms = self._scale_terms(
                scores, reduce_volume(labels, scores.shape[2:]).long(), reduce_volume(valid, scores.shape[2:])
            )
            for name, value in terms.items():
                losses[f'loss_occ_{name}_{scale}'] = self.decay**scale * value
        return losses

    def _scale_terms(self, scores: Tensor, labels: Tensor, valid: Tensor) -> dict[str, Tensor]:
        with torch.autocast(scores.device.type, enabled=False):
            picked = scores.float().movedim(1, -1)[valid]  # (P, C)
            target = labels[valid]
            empty = target.numel() == 0
            terms = {}
            if self.ce_weight:
                weight = None if self.class_weights is None else picked.new_tensor(self.class_weights)
                ce = picked.sum() if empty else F.cross_entropy(picked, target, weight=weight)
                terms['ce'] = self.ce_weight * ce
            if self.lovasz_weight:
                lovasz = picked.sum() if empty else lovasz_softmax_flat(picked.softmax(-1), target, classes='present')
                terms['lovasz'] = self.lovasz_weight * lovasz
        return terms
