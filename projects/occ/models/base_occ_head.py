"""Base of the heads that turn a scene representation into voxel logits."""

from abc import ABCMeta, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from projects.occ.structures import OccBatch, OccField, OccPrediction, VoxelGrid
from projects.occ.structures.density import density_opacity


class BaseOccHead(BaseModule, metaclass=ABCMeta):
    """Owns the voxel loss and the decision what is occupied; subclasses implement ``forward``.

    Args:
        grid: Voxel grid of the labels.
        loss_occ: Config of the voxel loss (``OccupancyLoss``), or None to train without voxel supervision (rendering only).
        init_cfg: Initialisation, see mmengine.
    """

    def __init__(self, grid: VoxelGrid | dict, loss_occ: dict | None = None, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.grid = VoxelGrid.build(grid)
        self.loss_occ = MODELS.build(loss_occ, default_args=dict(grid=self.grid)) if loss_occ else None
        self._opacity_rule: tuple[Callable[[OccPrediction], OccField], float] | None = None

    @abstractmethod
    def forward(self, scene: Any) -> OccPrediction:
        """Computes voxel logits (and features for the supervisions) from what the family's view encoder returns."""

    def decide_by_opacity(self, field: Callable[[OccPrediction], OccField], threshold: float) -> None:
        """Makes voxels free whose opacity is low, for networks that were trained by rendering alone.

        Args:
            field: Gives the opacities; it stays outside this module, so that state-dict keys do not change.
            threshold: Voxels of lower opacity are free (0.1 in GaussRender, train.py).
        """
        self._opacity_rule = (field, threshold)

    def predict_opacity(self, prediction: OccPrediction) -> Tensor:
        """How sure the head is that voxels are occupied, for metrics and pictures along rays.

        Args:
            prediction: Output of the head.

        Returns:
            (B, X, Y, Z) in [0, 1], float32: opacity of a voxel that a ray crosses, from the density if the head predicts one,
            else one minus the probability of the free class.
        """
        if prediction.density is not None:
            return density_opacity(prediction.density.float())
        logits = prediction.logits[-1].float()
        others = logits[:, list(self.grid.semantic_classes)].logsumexp(1)
        return (others - logits[:, self.grid.free_index]).sigmoid()

    def predict_labels(self, prediction: OccPrediction) -> Tensor:
        """The decision what is where: the only place where a prediction becomes labels.

        The class of the largest logit where a head has no other rule, see :meth:`classify`; after :meth:`decide_by_opacity`
        voxels of low opacity are free.

        Returns:
            (B, X, Y, Z) int64.
        """
        labels = self.classify(prediction)
        if self._opacity_rule is not None:
            field, threshold = self._opacity_rule
            labels = labels.masked_fill(field(prediction).opacity < threshold, self.grid.free_index)
        return labels

    def classify(self, prediction: OccPrediction) -> Tensor:
        """Class ids (B, X, Y, Z) int64 by the head's own rule; the largest logit."""
        return prediction.logits[-1].argmax(1)

    def average(self, predictions: Iterable[OccPrediction]) -> OccPrediction:
        """One prediction from several of the same scene: the mean class probabilities, as logits that are their logarithms."""
        total, count = 0, 0
        for prediction in predictions:
            total, count = total + prediction.logits[-1].float().softmax(1), count + 1
        mean = total / count
        # a class that nothing speaks for keeps a finite logarithm
        return OccPrediction(logits=[mean.clamp(min=torch.finfo(mean.dtype).tiny).log()])

    def loss_by_feat(self, prediction: OccPrediction, batch: OccBatch) -> dict[str, Tensor]:
        """Voxel losses of a prediction; an empty dict without ``loss_occ``.

        Raises:
            ValueError: If a sample has no label, or not the mask that the loss asks for.
        """
        return {} if self.loss_occ is None else self.loss_occ(prediction, batch)
