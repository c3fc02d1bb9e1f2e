"""Losses of rendered rays: scale-invariant depth, classes, light that is left."""

from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-7
"""Added to predicted depths before the logarithm, metres."""


def silog(depth: Tensor, target: Tensor, valid: Tensor | None = None, balance: float = 0.85, floor: float = 1e-12) -> Tensor:
    """Scale-invariant logarithmic error of depths: ``sqrt(mean(e^2) - balance * mean(e)^2)``, e the difference of logarithms.

    Args:
        depth: (...) predicted, metres, >= 0.
        target: (...) measured, metres, > 0 where valid.
        valid: (...) bool, None: all.
        balance: 1 forgives any common factor, 0 none.
        floor: Smallest radicand: its root has a finite gradient.

    Returns:
        Scalar; 0, connected to the graph, if nothing is valid.
    """
    if valid is None:
        valid = torch.ones_like(target, dtype=torch.bool)
    # values that do not count must not make a gradient of NaN
    error = (torch.where(valid, depth, 1.0) + EPSILON).log() - torch.where(valid, target, 1.0 + EPSILON).log()
    error = torch.where(valid, error, 0.0)
    count = valid.sum()
    mean, square = error.sum() / count.clamp_min(1), error.square().sum() / count.clamp_min(1)
    radicand = torch.where(count > 0, (square - balance * mean.square()).clamp_min(floor), 1.0)
    return torch.where(count > 0, radicand.sqrt(), error.sum())


def last_entropy(transmittance: Tensor, margin: float = 1e-6) -> Tensor:
    """Mean entropy of the light that rays have left: pushes every ray to hit or to miss.

    Args:
        transmittance: (...) in [0, 1].
        margin: Clamped to [margin, 1 - margin].

    Returns:
        Scalar; 0 without rays.
    """
    p = transmittance.clamp(margin, 1 - margin)
    entropy = -p * p.log() - (1 - p) * (1 - p).log()
    return entropy.sum() / max(entropy.numel(), 1)


def ray_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None = None, ignore: int = 255) -> Tensor:
    """Weighted cross entropy of composited logits: divided by the sum of the weights of the labels.

    Args:
        logits: (..., C).
        labels: (...) class ids; others than 0..C-1 must be ``ignore``.
        weights: (C,) of the classes.
        ignore: Label of rays that do not count.

    Returns:
        Scalar; 0, connected to the graph, if no ray counts.
    """
    classes = logits.shape[-1]
    counted = labels != ignore
    ids = torch.where(counted, labels, 0).long()
    loss = -logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    share = (logits.new_ones(classes) if weights is None else weights.to(logits))[ids] * counted
    return (torch.where(counted, loss, 0.0) * share).sum() / share.sum().clamp_min(torch.finfo(logits.dtype).tiny)


def log_class_weights(counts: Sequence[float]) -> Tensor:
    """1 / ln(count + 0.001): mild weights of classes from their numbers of voxels.

    Raises:
        ValueError: If a count is too small for a positive weight.
    """
    counts = torch.as_tensor(counts, dtype=torch.float64)
    if bool((counts + 0.001 <= 1).any()):
        raise ValueError(f'log_class_weights: every class needs a count above 1, got {counts.min().item():g}')
    return 1 / (counts + 0.001).log()
