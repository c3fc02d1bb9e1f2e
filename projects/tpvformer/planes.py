"""Sizes and reference points of the three planes (w along x, h along y, z along z)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from projects.occ.structures import VoxelGrid

PLANES = ('hw', 'zh', 'wz')
# Rows, columns and pillar direction of each plane as axes of the reference frame (0 = x, 1 = y, 2 = z).
PLANE_AXES = dict(hw=(1, 0, 2), zh=(2, 1, 0), wz=(0, 2, 1))
# Distance in metres from the ends of a pillar to its first and last anchor.
PILLAR_MARGIN = 0.5


def plane_cells(grid: VoxelGrid, scale: Sequence[int]) -> tuple[int, int, int]:
    """Number of cells (x, y, z) of the planes: the voxel grid divided by ``scale``.

    Raises:
        ValueError: If ``scale`` is not three positive integers that divide ``grid.shape``.
    """
    scale = tuple(scale)
    if len(scale) != 3 or any(int(s) != s or s < 1 for s in scale) or any(n % s for n, s in zip(grid.shape, scale)):
        raise ValueError(f'scale must be three positive integers that divide grid.shape {grid.shape} (x, y, z), got {scale}')
    return tuple(n // int(s) for n, s in zip(grid.shape, scale))


def plane_size(plane: str, cells: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a plane, given the cells (x, y, z)."""
    rows, columns, _ = PLANE_AXES[plane]
    return cells[rows], cells[columns]


def cell_centers(num_cells: int) -> Tensor:
    """Centres of equal cells on [0, 1]: (num_cells,)."""
    return (torch.arange(num_cells, dtype=torch.float32) + 0.5) / num_cells


def plane_reference_points(plane: str, cells: Sequence[int]) -> Tensor:
    """Cell centres of a plane on itself: (1, rows * columns, 1, 2), column coordinate first, in [0, 1]."""
    rows, columns = (cell_centers(n) for n in plane_size(plane, cells))
    v, u = torch.meshgrid(rows, columns, indexing='ij')
    return torch.stack((u, v), dim=-1).reshape(1, -1, 1, 2)


def pillar_reference_points(plane: str, cells: Sequence[int], num_anchors: int, extent: Sequence[float]) -> Tensor:
    """Anchors of the pillars that stand on a plane.

    The anchors of a pillar are evenly spaced between half a *metre* from either end of the grid (not half a cell), as in the
    authors' code.

    Args:
        plane: ``'hw'``, ``'zh'`` or ``'wz'``.
        cells: Cells (x, y, z) of the planes.
        num_anchors: Anchors D per pillar.
        extent: Edge lengths (x, y, z) of the grid, metres.

    Returns:
        (1, D, rows * columns, 3), x, y, z in [0, 1] of the grid.
    """
    rows, columns, pillar = PLANE_AXES[plane]
    length = extent[pillar]
    steps = torch.linspace(PILLAR_MARGIN, length - PILLAR_MARGIN, num_anchors, dtype=torch.float32) / length
    coords: list[Tensor] = [torch.empty(0)] * 3
    coords[pillar], coords[rows], coords[columns] = torch.meshgrid(
        steps, cell_centers(cells[rows]), cell_centers(cells[columns]), indexing='ij'
    )
    return torch.stack(coords, dim=-1).reshape(1, num_anchors, -1, 3)
