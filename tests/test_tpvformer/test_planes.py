"""Plane sizes and reference points, with spot values of the original at full size."""

import pytest
import torch

from projects.occ.structures import VoxelGrid
from projects.tpvformer.planes import (
    cell_centers,
    pillar_reference_points,
    plane_cells,
    plane_reference_points,
    plane_size,
)

NAMES = ('free', 'other')
GRIDS = dict(
    surroundocc=VoxelGrid((-50, -50, -5, 50, 50, 3), 0.5, (200, 200, 16), 'lidar', 0, class_names=NAMES),
    occ3d=VoxelGrid((-40, -40, -1, 40, 40, 5.4), 0.4, (200, 200, 16), 'ego', 0, class_names=NAMES),
)
OBLONG = VoxelGrid((-8, -6, -1, 8, 6, 3), (1, 1, 0.5), (16, 12, 8), 'lidar', 0, class_names=NAMES)


@pytest.mark.parametrize(
    'grid, plane, anchor, query, point',
    [
        ('surroundocc', 'hw', 0, 0, (-49.5, -49.5, -4.5)),
        ('surroundocc', 'hw', 3, 0, (-49.5, -49.5, 2.5)),
        ('surroundocc', 'hw', 0, 1, (-48.5, -49.5, -4.5)),
        ('surroundocc', 'hw', 2, 9999, (49.5, 49.5, 0.1667)),
        ('surroundocc', 'zh', 5, 799, (-33.5323, 49.5, 2.5)),
        ('surroundocc', 'wz', 1, 0, (-49.5, -46.3064, -4.5)),
        ('occ3d', 'hw', 0, 0, (-39.6, -39.6, -0.5)),
        ('occ3d', 'hw', 3, 0, (-39.6, -39.6, 4.9)),
        ('occ3d', 'zh', 1, 0, (-36.9516, -39.6, -0.6)),
        ('occ3d', 'zh', 0, 100, (-39.5, -39.6, 0.2)),
        ('occ3d', 'wz', 0, 8, (-38.8, -39.5, -0.6)),
        ('occ3d', 'wz', 31, 799, (39.6, 39.5, 5.0)),
    ],
)
def test_spot_values_of_the_original(grid, plane, anchor, query, point):
    grid = GRIDS[grid]
    cells = plane_cells(grid, (2, 2, 2))
    points = pillar_reference_points(plane, cells, 4 if plane == 'hw' else 32, grid.extent)
    metres = points[0, anchor, query] * torch.tensor(grid.extent) + torch.tensor(grid.lower)
    torch.testing.assert_close(metres, torch.tensor(point), atol=1e-4, rtol=0)


def test_letters_and_axes_of_an_oblong_grid():
    cells = plane_cells(OBLONG, (2, 2, 2))
    assert cells == (8, 6, 4)  # w from x, h from y
    assert [plane_size(plane, cells) for plane in ('hw', 'zh', 'wz')] == [(6, 8), (4, 6), (8, 4)]
    hw = pillar_reference_points('hw', cells, 4, OBLONG.extent)
    assert hw.shape == (1, 4, 48, 3)
    torch.testing.assert_close(hw[0, 0, 2 * 8 + 5, :2], torch.tensor([5.5 / 8, 2.5 / 6]))
    torch.testing.assert_close(
        pillar_reference_points('wz', cells, 2, OBLONG.extent)[0, :, 0, 1], torch.tensor([0.5, 11.5]) / 12
    )


def test_reference_points_on_a_plane():
    points = plane_reference_points('zh', (8, 6, 4))
    assert points.shape == (1, 24, 1, 2)
    torch.testing.assert_close(points[0, 7, 0], torch.tensor([1.5 / 6, 1.5 / 4]))
    torch.testing.assert_close(cell_centers(4), torch.tensor([0.125, 0.375, 0.625, 0.875]))


@pytest.mark.parametrize('scale', [(3, 2, 2), (2, 2), (0, 1, 1), (1.5, 2, 2)])
def test_scale_must_divide_the_grid(scale):
    with pytest.raises(ValueError, match=r'scale must be three positive integers that divide grid.shape \(16, 12, 8\)'):
        plane_cells(OBLONG, scale)
