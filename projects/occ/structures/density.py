"""What a raw density of a voxel says: its opacity, and with class scores one distribution over all classes."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

DENSITY_SHIFT = math.log(1 / (1 - 1e-6) - 1)
"""Added to a raw density, so that 0 is an opacity of 1e-6 (DVGO); the same number as in ``gaussian_rasterization``."""


def density_depth(density: Tensor) -> Tensor:
    """Optical depth of a voxel that a ray crosses from side to side, ``softplus(density + shift)``: any shape."""
    return F.softplus(density + DENSITY_SHIFT)


def density_opacity(density: Tensor) -> Tensor:
    """Opacity of a voxel that a ray crosses from side to side: any shape, 0..1."""
    return -torch.expm1(-density_depth(density))


def joint_log_probabilities(density: Tensor, classes: Tensor, free_index: int) -> Tensor:
    """Logarithms of one distribution over all classes, from a density and scores of the occupied ones (UniOcc).

    Free has the probability of light to cross the voxel, the occupied classes share the rest.

    Args:
        density: (B, X, Y, Z), raw.
        classes: (B, K, X, Y, Z), scores of the occupied classes in the order of their ids.
        free_index: Position of the free class among the K + 1.

    Returns:
        (B, K + 1, X, Y, Z).
    """
    depth = density_depth(density)
    # log(1 - exp(-depth)) without cancellation
    occupied = torch.log((-torch.expm1(-depth)).clamp(min=torch.finfo(depth.dtype).tiny))
    shares = classes.log_softmax(1) + occupied.unsqueeze(1)
    return torch.cat([shares[:, :free_index], -depth.unsqueeze(1), shares[:, free_index:]], 1)
