"""Losses against what a teacher says."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.occ.structures import OccBatch, OccPrediction, VoxelGrid


@MODELS.register_module()
class TeacherConsistency(nn.Module):
    """Pulls the student's prediction of unlabelled samples to the teacher's; for ``model.aggregator``, alone or in a group.

    ``loss_pseudo_occ`` is the mean cross entropy of the voxels with a pseudo label, ``loss_teacher_feat`` the mean squared
    distance of the voxel features. Both are 0 for a batch without unlabelled samples. ``TeacherStudentHook`` asks the teacher.

    Args:
        grid: The voxel grid.
        pseudo_weight: Weight of the cross entropy.
        feature_weight: Weight of the distance; 0: there is none.
    """

    def __init__(self, grid: VoxelGrid | Mapping[str, Any], pseudo_weight: float = 1.0, feature_weight: float = 0.1) -> None:
        super().__init__()
        self.grid = VoxelGrid.build(grid)
        self.pseudo_weight, self.feature_weight = pseudo_weight, feature_weight

    def loss(self, prediction: OccPrediction, batch: OccBatch) -> dict[str, Tensor]:
        """Losses of the unlabelled samples.

        Args:
            prediction: The student's, logits (B, K, X, Y, Z).
            batch: With ``teacher``, or without where no sample is unlabelled.

        Raises:
            ValueError: If the student or the teacher has no voxel features and ``feature_weight`` asks for them.
        """
        teacher, logits = batch.teacher, prediction.logits[-1]
        rows = [] if teacher is None else teacher.index.tolist()
        chosen = logits[rows].float()
        losses = {}
        if teacher is None:
            losses['loss_pseudo_occ'] = chosen.sum()
        else:
            ignored = self.grid.ignore_index
            total = F.cross_entropy(chosen, teacher.labels, ignore_index=ignored, reduction='sum')
            losses['loss_pseudo_occ'] = self.pseudo_weight * total / (teacher.labels != ignored).sum().clamp(min=1)
        if self.feature_weight:
            feats = prediction.voxel_feats
            if feats is None or (teacher is not None and teacher.feats is None):
                raise ValueError(
                    'TeacherConsistency.feature_weight compares voxel features, but the head or TeacherStudentHook (features) '
                    'hands none over; set feature_weight=0'
                )
            mine = feats[rows].float()
            losses['loss_teacher_feat'] = (
                mine.sum() if teacher is None else self.feature_weight * F.mse_loss(mine, teacher.feats.float())
            )
        return losses
