"""Cells, pixels and the folded volume against their definitions."""

import itertools

import pytest
import torch

from projects.occ.structures import VoxelGrid
from projects.symphonies.scene_geometry import (
    SceneCells,
    back_project,
    cell_indices,
    cells_of_points,
    fold,
    mark_cells,
    merge_heights,
    plane_reference,
    to_volume,
)

GRID = VoxelGrid((0, -4, -2, 8, 4, 2), 0.5, (16, 16, 8), 'lidar', free_index=0, class_names=('free', 'car'))
CELLS = SceneCells(GRID, 2, 2)


def test_cells():
    assert CELLS.shape == (8, 8, 2) and CELLS.number == 128 and CELLS.plane_size == (16, 8)
    with pytest.raises(ValueError, match=r'along z, volume_scale \* downsample_z 6 must divide grid.shape'):
        SceneCells(GRID, 2, 3)


def test_back_projection_inverts_the_projection():
    torch.manual_seed(0)
    depths = torch.rand(2, 5, 7) + 1
    intrinsics = torch.tensor([[[10.0, 0, 3.2], [0, 11, 2.1], [0, 0, 1]]], dtype=torch.float64).repeat(2, 1, 1)
    turn = torch.linalg.qr(torch.randn(2, 3, 3, dtype=torch.float64))[0]
    ref2cam = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    ref2cam[:, :3, :3], ref2cam[:, :3, 3] = turn, torch.randn(2, 3, dtype=torch.float64)
    points = back_project(depths, intrinsics, ref2cam)
    camera = torch.einsum('bij,bhwj->bhwi', ref2cam[:, :3, :3], points) + ref2cam[:, None, None, :3, 3]
    torch.testing.assert_close(camera[..., 2], depths.double())
    pixels = torch.einsum('bij,bhwj->bhwi', intrinsics, camera) / camera[..., 2:]
    v, u = torch.meshgrid(torch.arange(5.0).double(), torch.arange(7.0).double(), indexing='ij')
    torch.testing.assert_close(pixels[..., :2], torch.stack((u, v), -1).expand(2, -1, -1, -1))


def test_rounding():
    points = torch.tensor([[0.0, -4, -2], [1.6, -2.4, -0.1], [7.9, 3.9, 1.9], [-0.4, -4.4, -2.4], [-3, 0, 0]]).double()
    assert cells_of_points(points, CELLS, 'floor').tolist() == [[0, 0, 0], [1, 1, 0], [7, 7, 1], [-1, -1, -1], [-3, 4, 1]]
    # (1.6 - 0) / 1 - 0.5 = 1.1; along z ((1.9) / 1 - 0.5) / 2 = 0.7; truncation brings -0.9 to 0
    assert cells_of_points(points, CELLS).tolist() == [[0, 0, 0], [1, 1, 0], [7, 7, 1], [0, 0, 0], [-3, 3, 0]]
    strange = torch.tensor([[float('nan'), float('inf'), -1e30]]).double()
    index = cells_of_points(strange, CELLS)
    assert ((index < 0) | (index > 100)).all()


def test_marking():
    index = torch.tensor([[[0, 0, 1], [0, 0, 1], [7, 7, 1], [8, 0, 0]], [[-1, 0, 0], [1, 2, 0], [0, 0, 0], [0, 3, 2]]])
    valid = torch.tensor([[True, True, True, True], [True, True, False, True]])
    marked = mark_cells(index, valid, CELLS)
    assert [row.nonzero()[:, 0].tolist() for row in marked] == [[1, 127], [(1 * 8 + 2) * 2]]


def test_heights_are_merged_as_interpolation_does():
    torch.manual_seed(0)
    for factor in (1, 2, 3, 4):
        grid = VoxelGrid((0, 0, 0, 2, 2, 12), 1, (2, 2, 12), 'lidar', free_index=0, class_names=('free', 'car'))
        cells = SceneCells(grid, 1, factor)
        pixels, visible = torch.randint(-50, 50, (2, 48, 2)), torch.rand(2, 48) < 0.3
        ours, seen = merge_heights(pixels, visible, cells)
        volume = torch.cat((pixels, visible.unsqueeze(-1)), -1).double().view(2, 2, 2, 12, 3).permute(0, 4, 1, 2, 3)
        expected = torch.nn.functional.interpolate(volume, size=(2, 2, 12 // factor), mode='trilinear', align_corners=False)
        expected = expected.permute(0, 2, 3, 4, 1).flatten(1, 3)
        assert torch.equal(ours, expected[..., :2].trunc().float()) and torch.equal(seen, expected[..., 2] > 0)
        exact, _ = merge_heights(pixels, visible, cells, truncate=False)
        assert torch.equal(exact, expected[..., :2].float())
    assert merge_heights(torch.tensor([[[-3, 2], [0, 3]]]), torch.tensor([[True, False]]), _pair())[0].tolist() == [[[-1, 2]]]


def _pair():
    grid = VoxelGrid((0, 0, 0, 1, 1, 2), 1, (1, 1, 2), 'lidar', free_index=0, class_names=('free', 'car'))
    return SceneCells(grid, 1, 2)


def test_folded_volume():
    index = cell_indices(CELLS)
    assert index[5].tolist() == [0, 2, 1]
    scene = torch.arange(128.0).view(1, 128, 1)
    volume = to_volume(scene, CELLS.shape)[0, 0]
    plane = fold(scene, CELLS).view(16, 8)
    centred = plane_reference(index, CELLS, 'centred')
    for (x, y, z), reference in zip(itertools.product(range(8), range(8), range(2)), centred):
        assert volume[x, y, z] == plane[x * 2 + z, y] == (x * 8 + y) * 2 + z
        # the reference is the middle of this pixel
        assert reference.tolist() == pytest.approx([(y + 0.5) / 8, (x * 2 + z + 0.5) / 16])


def test_compatible_references():
    reference = plane_reference(torch.tensor([[0, 0, 0], [7, 7, 1], [3, 1, 1], [-5, 9, 1]]), CELLS)
    expected = [[0, -0.25], [1, 1.25], [1 / 7, 3 / 7 + 0.25], [1, 0.25]]
    torch.testing.assert_close(reference, torch.tensor(expected))
