"""The voxel-wise training losses on every scale of a prediction."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet3d.models.losses.lovasz_loss import lovasz_softmax_flat
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.occ.structures import OccBatch, OccPrediction, VoxelGrid
from projects.occ.structures.masks import MASK_FIELDS

from .frustum_proportion import frustum_proportion_loss
from .label_reduction import REDUCTIONS, reduce_labels, reduce_volume
from .scene_class_affinity import geo_scal_loss, sem_scal_loss
from .voxel_views import frustum_index


@MODELS.register_module()
class OccupancyLoss(nn.Module):
    """Weighted sum of voxel losses over all scales of a prediction.

    The loss of a scale is ``w_s * (ce_weight * CE + lovasz_weight * Lovász + sem_scal_weight * SemScal + geo_scal_weight *
    GeoScal + frustum_weight * Frustum)`` with ``w_s = decay ** s``, s = 0 for the finest. CE is the class-weighted mean
    ``sum(w * nll) / sum(w)``; Lovász-softmax averages over the classes present in the labels; for the affinity losses see
    :mod:`~projects.occ.models.scene_class_affinity`, for the proportions of classes in the frustums of a camera
    :mod:`~projects.occ.models.frustum_proportion`. Voxels of the whole batch are pooled. Where no voxel is labelled every
    term is 0.

    The defaults are GaussRender's (src/loss/occupancy_loss.py). SurroundOcc trains with ``ce_weight=1, lovasz_weight=0,
    sem_scal_weight=1, geo_scal_weight=1, label_reduction='sparse_last'`` and no class weights; Symphonies with ``ce_weight=1,
    lovasz_weight=0, sem_scal_weight=1, geo_scal_weight=1, frustum_weight=1, aux_weight=0.5`` and class weights.

    Args:
        grid: Voxel grid of the labels.
        class_weights: One cross-entropy weight per class, or None for equal weights.
        ce_weight: Factor of the cross-entropy; 0 leaves it out.
        lovasz_weight: Factor of the Lovász term; 0 leaves it out.
        decay: Factor from each scale to the next coarser one.
        mask: Voxels that count: ``'none'`` (all labelled ones, as published), ``'camera'``, ``'lidar'`` or ``'both'``. Training
            with a mask makes numbers incomparable with the published ones.
        sem_scal_weight: Factor of the semantic affinity; 0 leaves it out.
        geo_scal_weight: Factor of the geometric affinity; 0 leaves it out.
        label_reduction: How a coarse cell gets its label from the voxels in it, see :func:`reduce_labels`.
        scale_weights: Factors of the scales, coarse to fine, instead of the powers of ``decay``.
        binary: Tell free from occupied only. All terms then work on these two classes; logits may have one channel (the logit
            of being occupied) or one per class.
        aux_weight: Factor of every output but the last, instead of the powers of ``decay``.
        frustum_weight: Factor of the frustum proportion term; 0 leaves it out.
        frustums: Boxes per side of the image into which the frustums divide it.

    Raises:
        ValueError: If the number of weights is not the number of classes, a name is unknown, class weights meet ``binary``, or
            there is more than one rule for the factors of the scales.
    """

    def __init__(
        self,
        grid: VoxelGrid | dict,
        class_weights: Sequence[float] | None = None,
        ce_weight: float = 10.0,
        lovasz_weight: float = 1.0,
        decay: float = 0.5,
        mask: str = 'none',
        sem_scal_weight: float = 0.0,
        geo_scal_weight: float = 0.0,
        label_reduction: str = 'strided',
        scale_weights: Sequence[float] | None = None,
        binary: bool = False,
        aux_weight: float | None = None,
        frustum_weight: float = 0.0,
        frustums: int = 8,
    ) -> None:
        super().__init__()
        self.grid = VoxelGrid.build(grid)
        if class_weights is not None and len(class_weights) != self.grid.num_classes:
            raise ValueError(
                f'loss_occ.class_weights must have one weight for each of the {self.grid.num_classes} classes of the grid, '
                f'got {len(class_weights)}'
            )
        if class_weights is not None and binary:
            raise ValueError('loss_occ.class_weights have no meaning with loss_occ.binary=True; set them to None')
        if scale_weights is not None and aux_weight is not None:
            raise ValueError(
                'loss_occ.scale_weights and loss_occ.aux_weight both set the factors of the scales; set one to None'
            )
        if mask not in MASK_FIELDS:
            raise ValueError(f'loss_occ.mask must be one of {tuple(MASK_FIELDS)}, got {mask!r}')
        if label_reduction not in REDUCTIONS:
            raise ValueError(f'loss_occ.label_reduction must be one of {REDUCTIONS}, got {label_reduction!r}')
        self.class_weights = None if class_weights is None else tuple(float(w) for w in class_weights)
        self.ce_weight = ce_weight
        self.lovasz_weight = lovasz_weight
        self.sem_scal_weight = sem_scal_weight
        self.geo_scal_weight = geo_scal_weight
        self.decay = decay
        self.scale_weights = None if scale_weights is None else tuple(float(w) for w in scale_weights)
        self.mask = mask
        self.label_reduction = label_reduction
        self.binary = binary
        self.aux_weight = aux_weight
        self.frustum_weight = frustum_weight
        self.frustums = frustums

    def _weight_of(self, level: int, num_levels: int) -> float:
        if self.scale_weights is not None:
            return self.scale_weights[level]
        scale = num_levels - 1 - level
        return self.decay**scale if self.aux_weight is None else (self.aux_weight if scale else 1.0)

    def forward(self, prediction: OccPrediction, batch: OccBatch) -> dict[str, Tensor]:
        """The weighted terms of every scale of a prediction, see :meth:`compute`.

        Raises:
            ValueError: If a sample has no label, not the mask that ``mask`` asks for, or no frustums where they are needed.
        """
        labels = batch.require_labels('loss_occ')
        mask = None if self.mask == 'none' else batch.require_mask(self.mask, 'loss_occ.mask')
        boxes = frustum_index(batch, self.grid, self.frustums) if self.frustum_weight else None
        return self.compute(prediction.logits, labels, mask, boxes)

    def compute(
        self, logits: Sequence[Tensor], labels: Tensor, mask: Tensor | None = None, boxes: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Computes the weighted terms of every scale.

        A GPU is waited for once, whatever the number of scales.

        Args:
            logits: Coarse to fine, each (B, C, X_s, Y_s, Z_s); with ``binary`` also (B, 1, X_s, Y_s, Z_s).
            labels: (B, X, Y, Z) integer class ids.
            mask: (B, X, Y, Z) bool, voxels that count, or None for all.
            boxes: (B, X, Y, Z) integer, box of the image that a voxel projects into, negative for none; needed with
                ``frustum_weight``. A coarse cell takes the box of its last child.

        Returns:
            ``loss_occ_<term>_<s>``, scalars, s = 0 for the finest scale; the terms, where their weight is not 0, are ``ce``,
            ``lovasz``, ``sem_scal``, ``geo_scal`` and ``frustum``.

        Raises:
            ValueError: If the shapes of logits, labels and grid do not fit, a label is no class of the grid, the number of
                scales is not that of ``scale_weights``, or frustums are needed and missing.
        """
        if self.frustum_weight and boxes is None:
            raise ValueError('loss_occ.frustum_weight needs boxes, the box of the image that each voxel projects into')
        if tuple(labels.shape[1:]) != self.grid.shape:
            raise ValueError(f'labels must be (B, X, Y, Z) with the grid shape {self.grid.shape}, got {tuple(labels.shape)}')
        if self.scale_weights is not None and len(self.scale_weights) != len(logits):
            raise ValueError(
                f'loss_occ.scale_weights must have one factor for each of the {len(logits)} outputs of the head, '
                f'got {len(self.scale_weights)}'
            )
        channels = {self.grid.num_classes, 1} if self.binary else {self.grid.num_classes}
        for scores in logits:
            if scores.dim() != 5 or scores.shape[1] not in channels or scores.shape[0] != labels.shape[0]:
                raise ValueError(
                    f'logits must be (B, C, X, Y, Z) with B={labels.shape[0]} and C={self.grid.num_classes} '
                    f'(grid.class_names), got {tuple(scores.shape)}'
                )
        targets = [reduce_labels(labels, scores.shape[2:], self.grid, self.label_reduction, mask) for scores in logits]
        losses = {}
        for level, (scores, target, counts) in enumerate(zip(logits, targets, self._count(targets), strict=True)):
            scale, weight = len(logits) - 1 - level, self._weight_of(level, len(logits))
            reduced = reduce_volume(boxes, scores.shape[2:]) if self.frustum_weight else None
            for name, value in self._scale_terms(scores, target, reduced, counts).items():
                losses[f'loss_occ_{name}_{scale}'] = weight * value
        return losses

    def _count(self, targets: Sequence[Tensor]) -> list[list[int]]:
        """Number of voxels of every class in the labels of every scale, in one transfer."""
        classes = torch.arange(self.grid.num_classes, device=targets[0].device)
        classes = torch.cat([classes, classes.new_tensor([self.grid.ignore_index])])
        counts = torch.stack([(target.flatten()[:, None] == classes).sum(0) for target in targets]).tolist()
        for target, count in zip(targets, counts, strict=True):
            if sum(count) != target.numel():
                ids = sorted(set(target.unique().tolist()) - set(classes.tolist()))
                raise ValueError(
                    f'labels: class ids {ids} are outside 0..{self.grid.num_classes - 1} and not ignore_index '
                    f'{self.grid.ignore_index}; check grid.class_names against the label files'
                )
        return [count[:-1] for count in counts]

    def _scale_terms(self, scores: Tensor, target: Tensor, boxes: Tensor | None, counts: Sequence[int]) -> dict[str, Tensor]:
        """Terms of one scale: scores (B, C, X_s, Y_s, Z_s), target (B, X_s, Y_s, Z_s) int64, boxes likewise or None."""
        with torch.autocast(scores.device.type, enabled=False):
            # the number of labelled voxels is known, so nothing is waited for
            valid = torch.nonzero_static(target.flatten() != self.grid.ignore_index, size=sum(counts)).squeeze(1)
            picked = scores.float().movedim(1, -1).flatten(0, -2).index_select(0, valid)  # (P, C)
            labels = target.flatten().index_select(0, valid)  # (P,)
            free = self.grid.free_index
            present = [label for label, count in enumerate(counts) if count]
            if self.binary:
                present = [int(label != free) for label in present]
            if self.binary:
                picked, labels, free = _free_or_occupied(picked, free), (labels != free).long(), 0
            probs = picked.softmax(-1)
            weight = None if self.class_weights is None else picked.new_tensor(self.class_weights)
            losses = dict(
                ce=(self.ce_weight, lambda: F.cross_entropy(picked, labels, weight=weight)),
                lovasz=(self.lovasz_weight, lambda: lovasz_softmax_flat(probs, labels, classes=sorted(set(present)))),
                sem_scal=(self.sem_scal_weight, lambda: sem_scal_loss(probs, labels)),
                geo_scal=(self.geo_scal_weight, lambda: geo_scal_loss(probs[:, free], labels == free)),
                frustum=(
                    self.frustum_weight,
                    lambda: frustum_proportion_loss(probs, labels, boxes.flatten()[valid].long(), self.frustums**2),
                ),
            )
            nothing = labels.numel() == 0
            return {name: factor * (picked.sum() if nothing else loss()) for name, (factor, loss) in losses.items() if factor}


def _free_or_occupied(scores: Tensor, free: int) -> Tensor:
    """Logits (P, 2) of free and occupied from (P, C) class logits or (P, 1) occupancy logits."""
    if scores.shape[1] > 1:
        others = [c for c in range(scores.shape[1]) if c != free]
        scores = scores[:, others].logsumexp(-1, keepdim=True) - scores[:, free, None]
    return torch.cat((torch.zeros_like(scores), scores), dim=-1)
