"""Base of the heads that turn a scene representation into voxel logits."""

from abc import ABCMeta, abstractmethod
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from projects.occ.structures import OccDataSample, OccPrediction, VoxelGrid

from .voxel_views import sample_frustum_index


class BaseOccHead(BaseModule, metaclass=ABCMeta):
    """Owns the voxel loss; subclasses implement ``forward``.

    Args:
        grid: Voxel grid of the labels.
        loss_occ: Config of the voxel loss (``OccupancyLoss``), or None to train without voxel supervision (rendering only).
        init_cfg: Initialisation, see mmengine.
    """

    def __init__(self, grid: VoxelGrid | dict, loss_occ: dict | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.grid = VoxelGrid.build(grid)
        self.loss_occ = MODELS.build(loss_occ, default_args=dict(grid=self.grid)) if loss_occ else None

    @abstractmethod
    def forward(self, scene: Any) -> OccPrediction:
        """Computes voxel logits (and features for the aggregator) from what the family's view encoder returns."""

    def predict_labels(self, logits: Tensor) -> Tensor:
        """Class ids of logits: the largest one, where a head has no other rule.

        Args:
            logits: (B, C, X, Y, Z), full resolution.

        Returns:
            (B, X, Y, Z) int64.
        """
        return logits.argmax(1)

    def loss_by_feat(self, prediction: OccPrediction, batch_data_samples: list[OccDataSample]) -> dict[str, Tensor]:
        """Voxel losses of a prediction; an empty dict without ``loss_occ``.

        Raises:
            ValueError: If a sample has no label, or not the mask that the loss asks for.
        """
        if self.loss_occ is None:
            return {}
        labels = _stack(batch_data_samples, 'gt_occ')
        mask = None
        for which in {'none': (), 'both': ('camera', 'lidar')}.get(self.loss_occ.mask, (self.loss_occ.mask,)):
            visible = _stack(batch_data_samples, f'mask_{which}')
            mask = visible if mask is None else mask & visible
        if not getattr(self.loss_occ, 'frustum_weight', 0):
            return self.loss_occ(prediction.logits, labels, mask)
        boxes = [sample_frustum_index(sample, self.grid, self.loss_occ.frustums) for sample in batch_data_samples]
        return self.loss_occ(prediction.logits, labels, mask, torch.stack(boxes).to(labels.device))


def _stack(samples: list[OccDataSample], field: str) -> Tensor:
    for sample in samples:
        if field not in sample:
            raise ValueError(
                f'sample {sample.get("token", "?")} has no {field!r}, which training needs; '
                'the pipeline must contain LoadOccLabels, and masks exist in Occ3D labels only (loss_occ.mask)'
            )
    return torch.stack([sample.get(field) for sample in samples])
