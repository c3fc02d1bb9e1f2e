"""Voxel losses of heads that predict density and classes apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.occ.structures import OccBatch, OccPrediction, VoxelGrid


@MODELS.register_module()
class DensityOccLoss(nn.Module):
    """Occupied or free from density and free score, and the class of occupied voxels, as RenderOcc combines 2D and 3D labels.

    Both terms are cross-entropies: of the pair (density, free score) over all voxels, and of the scores of the occupied classes
    over voxels that are labelled occupied, there ``sum(w * nll) / sum(w)`` with class weights. Where no voxel takes part a
    term is 0.

    Args:
        grid: Voxel grid of the labels.
        class_weights: One weight per occupied class, in the order of their ids, or None for equal weights.
        geo_weight: Factor of the term occupied or free; 0 leaves it out.
        sem_weight: Factor of the term of the classes; 0 leaves it out.
        mask: Voxels that count: ``'none'`` (all labelled ones, as published), ``'camera'``, ``'lidar'`` or ``'both'``.

    Raises:
        ValueError: If the number of weights is not the number of occupied classes.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        class_weights: Sequence[float] | None = None,
        geo_weight: float = 1.0,
        sem_weight: float = 1.0,
        mask: str = 'none',
    ) -> None:
        super().__init__()
        self.grid = VoxelGrid.build(grid)
        self.classes = self.grid.semantic_classes
        if class_weights is not None and len(class_weights) != len(self.classes):
            raise ValueError(
                f'loss_occ.class_weights must have one weight for each of the {len(self.classes)} occupied classes, '
                f'got {len(class_weights)}'
            )
        self.class_weights = None if class_weights is None else tuple(float(w) for w in class_weights)
        self.geo_weight, self.sem_weight, self.mask = geo_weight, sem_weight, mask

    def forward(self, prediction: OccPrediction, batch: OccBatch) -> dict[str, Tensor]:
        """Computes the weighted terms.

        Args:
            prediction: With logits of all classes and ``density``; the channel of the free class is the free score.
            batch: With labels.

        Returns:
            ``loss_occ_geo_0`` and ``loss_occ_sem_0``, scalars, where their weight is not 0.

        Raises:
            ValueError: If the prediction has no density, or the batch no labels or mask.
        """
        if prediction.density is None:
            raise ValueError('loss_occ of type DensityOccLoss needs a head that predicts a density (DensityOccHead)')
        labels = batch.require_labels('DensityOccLoss')
        valid = labels != self.grid.ignore_index
        if self.mask != 'none':
            valid &= batch.require_mask(self.mask, 'DensityOccLoss')
        free = self.grid.free_index
        with torch.autocast(labels.device.type, enabled=False):
            scores = prediction.logits[-1].float().movedim(1, -1)
            pair = torch.stack((prediction.density.float(), scores[..., free]), dim=-1)[valid]
            classes = scores[..., list(self.classes)][valid & (labels != free)]
            # ids of the occupied classes without the gap that the free class leaves
            names = labels[valid & (labels != free)]
            names = names - (names > free).long()
            weight = None if self.class_weights is None else scores.new_tensor(self.class_weights)
            terms = dict(
                geo=(self.geo_weight, pair, (labels[valid] == free).long(), None),
                sem=(self.sem_weight, classes, names, weight),
            )
            return {
                f'loss_occ_{name}_0': factor * (F.cross_entropy(given, target, weight) if len(target) else given.sum())
                for name, (factor, given, target, weight) in terms.items()
                if factor
            }
