"""Sizes, cell centres and layouts of the volumes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from projects.occ.structures import VoxelGrid


def per_axis(factor: int | Sequence[int], name: str) -> tuple[int, int, int]:
    """A factor for x, y, z, given one for all or three.

    Raises:
        ValueError: If it is neither, or not a positive integer.
    """
    triple = (factor,) * 3 if isinstance(factor, (int, float)) else tuple(factor)
    if len(triple) != 3 or any(int(n) != n or n < 1 for n in triple):
        raise ValueError(f'every element of {name} must be one positive integer or three (x, y, z), got {factor}')
    return tuple(int(n) for n in triple)


def volume_cells(grid: VoxelGrid, scale: Sequence[int], name: str) -> tuple[int, int, int]:
    """Cells (X, Y, Z) of a volume with ``scale`` voxels per cell along x, y, z.

    Raises:
        ValueError: If ``scale`` does not divide ``grid.shape``.
    """
    if any(n % s for n, s in zip(grid.shape, scale)):
        raise ValueError(f'{name} must divide grid.shape {grid.shape} on every axis, got {tuple(scale)}')
    return tuple(n // s for n, s in zip(grid.shape, scale))


def cell_centers(grid: VoxelGrid, cells: Sequence[int]) -> Tensor:
    """Centres of the cells of a volume, (Z*Y*X, 3) with z slowest and x fastest, metres, frame of the grid."""
    x, y, z = (
        (torch.arange(n, dtype=torch.float32) + 0.5) / n * extent + lower
        for n, extent, lower in zip(cells, grid.extent, grid.lower)
    )
    return torch.stack([axis.flatten() for axis in reversed(torch.meshgrid(z, y, x, indexing='ij'))], dim=-1)


def to_volume(queries: Tensor, cells: Sequence[int]) -> Tensor:
    """Queries (B, Z*Y*X, C), z slowest and x fastest -> volume (B, C, X, Y, Z)."""
    x, y, z = cells
    return queries.unflatten(1, (z, y, x)).permute(0, 4, 3, 2, 1)


def to_queries(volume: Tensor) -> Tensor:
    """Inverse of :func:`to_volume`."""
    return volume.permute(0, 4, 3, 2, 1).flatten(1, 3)
