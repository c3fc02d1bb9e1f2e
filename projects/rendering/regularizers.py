"""Terms that look at the field alone."""

from collections.abc import Sequence

import torch
from torch import Tensor


def opacity_entropy(opacity: Tensor, eps: float = 1e-8) -> Tensor:
    """One-sided entropy, mean of ``-o ln(o + eps)``: pushes opacities to 0 or 1 (GaussianOcc).

    Args:
        opacity: Any shape, 0..1.
        eps: Added inside the logarithm.
    """
    return (-opacity * torch.log(opacity + eps)).mean()


def total_variation(volume: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring voxels, averaged over the three axes.

    Args:
        volume: (B, C, X, Y, Z).
    """
    return sum(volume.diff(dim=axis).abs().mean() for axis in (2, 3, 4)) / 3


def class_weights(frequencies: Sequence[float]) -> Tensor:
    """Weights for a cross-entropy over rare and common classes (GaussianOcc).

    Args:
        frequencies: Number of pixels of every class; a class without pixels gets the weight 0, which leaves it out.

    Returns:
        (K,) float64: one over the square root, divided by the mean of all K numbers.

    Raises:
        ValueError: If all frequencies are zero, or one is negative.
    """
    counts = torch.as_tensor(frequencies, dtype=torch.float64)
    if (counts < 0).any() or not (counts > 0).any():
        raise ValueError(f'frequencies must be at least 0 and not all 0, got {list(frequencies)}')
    weights = torch.where(counts > 0, counts.clamp(min=1e-300).rsqrt(), torch.zeros_like(counts))
    return weights / weights.mean()
