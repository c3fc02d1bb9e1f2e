"""Losses of rendered rays: scale-invariant depth, classes, light that is left."""

from collections.abc import Sequence

import torch
from torch import Tensor

EPSILON = 1e-7
"""Added to predicted depths before the logarithm, metres."""


def silog(
    depth: Tensor,
    target: Tensor,
    valid: Tensor | None = None,
    balance: float = 0.85,
    floor: float = 1e-12,
    epsilon: float = EPSILON,
) -> Tensor:
    """Scale-invariant logarithmic error of depths: ``sqrt(mean(e^2) - balance * mean(e)^2)``, e the difference of logarithms.

    Args:
        depth: (...) predicted, metres, >= 0.
        target: (...) measured, metres, > 0 where valid.
        valid: (...) bool, None: all.
        balance: 1 forgives any common factor, 0 none.
        floor: Smallest radicand: its root has a finite gradient.
        epsilon: Added to predicted depths, metres.

    Returns:
        Scalar; 0, connected to the graph, if nothing is valid.
    """
    if valid is None:
        valid = torch.ones_like(target, dtype=torch.bool)
    # values that do not count must not make a gradient of NaN
    error = (torch.where(valid, depth, 1.0) + epsilon).log() - torch.where(valid, target, 1.0 + epsilon).log()
    error = torch.where(valid, error, 0.0)
    count = valid.sum()
    mean, square = error.sum() / count.clamp_min(1), error.square().sum() / count.clamp_min(1)
    radicand = torch.where(count > 0, (square - balance * mean.square()).clamp_min(floor), 1.0)
    return torch.where(count > 0, radicand.sqrt(), error.sum())


def last_entropy(transmittance: Tensor, margin: float = 1e-6, reduce: bool = True) -> Tensor:
    """Mean entropy of the light that rays have left: pushes every ray to hit or to miss.

    Args:
        transmittance: (...) in [0, 1].
        margin: Clamped to [margin, 1 - margin].
        reduce: False: the entropy of every ray, (...).

    Returns:
        Scalar; 0 without rays.
    """
    p = transmittance.clamp(margin, 1 - margin)
    entropy = -p * p.log() - (1 - p) * (1 - p).log()
    if not reduce:
        return entropy
    return entropy.sum() / max(entropy.numel(), 1)


def log_class_weights(counts: Sequence[float]) -> Tensor:
    """1 / ln(count + 0.001): mild weights of classes from their numbers of voxels.

    Raises:
        ValueError: If a count is too small for a positive weight.
    """
    counts = torch.as_tensor(counts, dtype=torch.float64)
    if bool((counts + 0.001 <= 1).any()):
        raise ValueError(f'log_class_weights: every class needs a count above 1, got {counts.min().item():g}')
    return 1 / (counts + 0.001).log()
