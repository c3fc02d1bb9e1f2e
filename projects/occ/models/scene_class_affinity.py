"""Scene-class affinity losses (MonoScene, arXiv 2112.00726, section 3.4.1): precision, recall and specificity of a whole scene.

Unlike the original code they are finite whatever the labels are: a ratio without denominator (no voxel of a class, no free
voxel, nothing labelled) is left out.
"""

import torch
from torch import Tensor

MAX_LOG = 100.0  # as in PyTorch's binary cross-entropy


def _negative_log_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """-ln(numerator / denominator), between 0 and 100; 0 where the denominator is 0. Any shape; NaN stays NaN."""
    undefined = denominator <= 0
    ratio = (numerator / denominator.masked_fill(undefined, 1.0)).masked_fill(undefined, 1.0)
    nothing = ratio <= 0
    ratio = ratio.masked_fill(nothing, 1.0)
    # Rounding can lift a ratio above 1; a ratio of 0 would have an infinite slope. Not clamp, whose slope at the bound depends
    # on the version of PyTorch: a ratio of exactly 1 has one.
    loss = -torch.where(ratio > 1, 1.0, ratio).log()
    return loss.clamp(max=MAX_LOG).masked_fill(nothing, MAX_LOG)


def sem_scal_loss(probs: Tensor, labels: Tensor) -> Tensor:
    """Semantic affinity: for every class that occurs, the free one included, how well its voxels are found as a whole.

    Args:
        probs: (P, C), class probabilities of the labelled voxels of the whole batch.
        labels: (P,) int64, 0..C-1.

    Returns:
        Mean over the classes present of the negative logarithms of precision, recall and specificity; float32 or wider;
        0 with P = 0.
    """
    with torch.autocast(probs.device.type, enabled=False):
        probs = probs.to(torch.promote_types(probs.dtype, torch.float32))
        members = labels[:, None] == torch.arange(probs.shape[1], device=labels.device)
        hits = probs.masked_fill(~members, 0.0).sum(0)
        rejections = (1.0 - probs).masked_fill(members, 0.0).sum(0)
        count = members.sum(0).to(probs.dtype)
        others = len(labels) - count
        terms = (
            _negative_log_ratio(hits, probs.sum(0)) + _negative_log_ratio(hits, count) + _negative_log_ratio(rejections, others)
        )
        present = count > 0
        return (terms * present).sum() / present.sum().clamp(min=1)


def geo_scal_loss(free_probs: Tensor, is_free: Tensor) -> Tensor:
    """Geometric affinity: how well occupied space is found as a whole.

    Args:
        free_probs: (P,), probability of being free of the labelled voxels of the whole batch.
        is_free: (P,) bool, labelled free.

    Returns:
        Sum of the negative logarithms of precision, recall and specificity of occupied space; float32 or wider; 0 with P = 0.
    """
    with torch.autocast(free_probs.device.type, enabled=False):
        free = free_probs.to(torch.promote_types(free_probs.dtype, torch.float32))
        occupied = 1.0 - free
        hits = occupied.masked_fill(is_free, 0.0).sum()
        precision = _negative_log_ratio(hits, occupied.sum())
        recall = _negative_log_ratio(hits, (~is_free).sum().to(free.dtype))
        specificity = _negative_log_ratio(free.masked_fill(~is_free, 0.0).sum(), is_free.sum().to(free.dtype))
        return precision + recall + specificity
