"""Frustums, lifting, pooling and warps: known scenes, borders, empty views and gradients."""

import pytest
import torch
from tiny_bevdet import BINS, GRID, SIZE, cameras

from projects.bevdet.geometry import (
    DepthBins,
    block_bins,
    camera_vector,
    frustum_pixels,
    lift_points,
    normalise_positions,
    pool_voxels,
    voxel_ranks,
    warp_cells,
)
from projects.occ.structures import VoxelGrid

GRID = VoxelGrid.build(GRID)
CELLS = (SIZE[0] // 16, SIZE[1] // 16)


def ranks_of(points, reference=False):
    return voxel_ranks(points, GRID.lower, GRID.voxel_size, GRID.shape, reference)


def test_bins():
    bins = DepthBins(*BINS)
    assert len(bins) == 16
    depths = torch.tensor([0.0, 0.99, 1.0, 1.49, 1.5, 8.99, 9.0, torch.inf, torch.nan, -3])
    assert bins.index(depths).tolist() == [-1, -1, 0, 0, 1, 15, -1, -1, -1, -1]
    assert torch.equal(bins.index(bins.points()), torch.arange(16))
    torch.testing.assert_close(bins.points() - bins.points(reference=True), torch.full((16,), 0.25))
    for wrong in ((1, 9, 0), (0, 9, 0.5), (1, 9, 0.3), (9, 1, 0.5)):
        with pytest.raises(ValueError, match='depth_bins'):
            DepthBins(*wrong)


def test_the_smallest_depth_of_a_block_in_range_counts():
    depths = torch.zeros(1, 4, 8)
    depths[0, 0, 0], depths[0, 3, 3], depths[0, 1, 1] = 5.2, 3.4, 0.2
    depths[0, 0, 7] = 20.0
    assert block_bins(depths, 4, DepthBins(*BINS)).tolist() == [[[4, -1]]]


@pytest.mark.parametrize('reference', [False, True])
def test_points_project_back_to_their_cells(reference):
    views = cameras(batch_size=2).at(0)
    u, v = frustum_pixels(SIZE, CELLS, reference)
    depth = DepthBins(*BINS).points(reference)
    points = lift_points(views.ref2img, u, v, depth)
    assert points.shape == (2, 2, 16, CELLS[1], CELLS[0], 3)
    back = torch.einsum('bnij,bndhwj->bndhwi', views.ref2img, torch.nn.functional.pad(points, (0, 1), value=1.0))
    torch.testing.assert_close(back[..., 2], depth[:, None, None].expand_as(back[..., 2]), atol=1e-4, rtol=0)
    torch.testing.assert_close(back[..., 0] / back[..., 2], u.expand(2, 2, 16, CELLS[1], -1), atol=1e-3, rtol=0)
    torch.testing.assert_close(back[..., 1] / back[..., 2], v[:, None].expand(2, 2, 16, -1, CELLS[0]), atol=1e-3, rtol=0)
    if reference:
        assert (u[0], u[-1], v[0], v[-1]) == (0, SIZE[0] - 1, 0, SIZE[1] - 1)
    else:
        assert (u[0], u[-1], v[0], v[-1]) == (8, SIZE[0] - 8, 8, SIZE[1] - 8)


def test_a_wall_is_lifted_into_its_own_voxels():
    """A wall 5.2 m ahead, in the bin from 5 to 5.5 m, lies in the voxels from 5 to 6 m, also by the middle of the bin."""
    views = cameras(num_cams=1, frames=1)
    bins, (w, h) = DepthBins(*BINS), CELLS
    depth = torch.zeros(1, 1, 16, h, w)
    depth[:, :, bins.index(torch.tensor(5.2))] = 1
    points = lift_points(views.ref2img, *frustum_pixels(SIZE, CELLS), bins.points())
    volume = pool_voxels(depth, torch.ones(1, 1, 1, h, w), ranks_of(points), GRID.shape)
    assert (
        volume.sum()
        == ((points[:, :, 8] < points.new_tensor(GRID.upper)) & (points[:, :, 8] > points.new_tensor(GRID.lower))).all(-1).sum()
    )
    z, y, x = volume[0, 0].nonzero(as_tuple=True)
    assert len(x) > 4 and (x == 5 + 8).all()
    shift = points - lift_points(views.ref2img, *frustum_pixels(SIZE, CELLS), bins.points(reference=True))
    torch.testing.assert_close(shift[..., 0], torch.full_like(shift[..., 0], 0.25), atol=1e-5, rtol=0)


def test_indices_are_rounded_down_or_truncated():
    points = torch.tensor([[[-8.5, 0.5, 0.1], [-9.5, 0.5, 0.1], [-7.5, 0.5, -1.2], [7.9, 5.9, 2.9], [8.1, 0, 0]]])
    assert ranks_of(points).tolist() == [[-1, -1, -1, (7 * 12 + 11) * 16 + 15, -1]]
    first = (2 * 12 + 6) * 16
    assert ranks_of(points, reference=True).tolist() == [[first, -1, 6 * 16, (7 * 12 + 11) * 16 + 15, -1]]
    huge = torch.tensor([[[1e30, 0, 0], [float('nan'), 0, 0]]])
    assert ranks_of(huge).tolist() == [[-1, -1]]


def test_numbers_of_voxels_beyond_float32():
    points = torch.full((40, 1, 3), 0.1)
    ranks = voxel_ranks(points, (-40, -40, -1), (0.4, 0.4, 0.4), (200, 200, 16), False)
    assert torch.equal(ranks.diff(dim=0), torch.full((39, 1), 640000)) and ranks.max() > 2**24


def test_pooling_sums_over_cameras_and_samples_stay_apart():
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(2, 3, 4, 2, 5, generator=generator, dtype=torch.float64)
    context = torch.randn(2, 3, 6, 2, 5, generator=generator, dtype=torch.float64)
    ranks = torch.randint(0, 2 * 3 * 2, (2, 3, 4, 2, 5), generator=generator)
    ranks[1] += 12
    ranks[torch.rand(ranks.shape, generator=generator) < 0.3] = -1
    volume = pool_voxels(depth, context, ranks, (2, 2, 3))
    expected = torch.zeros(2, 6, 24, dtype=torch.float64)
    for b, n, d, h, w in torch.cartesian_prod(*map(torch.arange, ranks.shape)).tolist():
        if ranks[b, n, d, h, w] >= 0:
            expected[b, :, ranks[b, n, d, h, w] - 12 * b] += depth[b, n, d, h, w] * context[b, n, :, h, w]
    torch.testing.assert_close(volume, expected[:, :, :12].view(2, 6, 3, 2, 2))
    leaves = depth.requires_grad_(), context.requires_grad_()
    assert torch.autograd.gradcheck(lambda p, c: pool_voxels(p, c, ranks, (2, 2, 3)), leaves)


def test_no_point_inside_gives_zeros_and_zero_gradients():
    depth = torch.rand(1, 1, 4, 2, 2, requires_grad=True)
    context = torch.randn(1, 1, 3, 2, 2, requires_grad=True)
    volume = pool_voxels(depth, context, torch.full((1, 1, 4, 2, 2), -1), GRID.shape)
    assert volume.shape == (1, 3, *GRID.shape[::-1]) and not volume.any()
    volume.sum().backward()
    assert not depth.grad.any() and not context.grad.any()


@pytest.mark.parametrize('mirror', [(-1, 1), (1, -1), (-1, -1)])
def test_a_mirrored_scene_gives_the_mirrored_volume(mirror):
    """Exactly, wherever no point lies on the border of a voxel."""
    views = cameras(batch_size=1, frames=1)
    scene = torch.diag(torch.tensor([*mirror, 1.0, 1.0]))
    generator = torch.Generator().manual_seed(1)
    u, v = frustum_pixels(SIZE, CELLS)
    u = u + 0.37  # away from symmetric positions, which lie on borders
    depth = torch.rand(1, 2, 16, CELLS[1], CELLS[0], generator=generator)
    context = torch.randn(1, 2, 3, CELLS[1], CELLS[0], generator=generator)
    volumes = []
    for ref2img in (views.ref2img, views.ref2img @ torch.linalg.inv(scene)):
        points = lift_points(ref2img, u, v, DepthBins(*BINS).points() + 0.013)
        volumes.append(pool_voxels(depth, context, ranks_of(points), GRID.shape))
    axes = [axis for axis, sign in ((-1, mirror[0]), (-2, mirror[1])) if sign < 0]
    assert volumes[0].abs().sum() > 0
    torch.testing.assert_close(volumes[1], volumes[0].flip(axes))


def test_the_vector_of_a_mirrored_scene_differs_in_the_entries_of_the_mirror():
    views = cameras(frames=1)
    plain = camera_vector(views)
    scene = torch.diag(torch.tensor([1.0, -1, 1]))
    mirrored = views.with_poses(views.ref2cam @ torch.diag(torch.tensor([1.0, -1, 1, 1])))
    vector = camera_vector(mirrored, scene[None])
    changed = (vector - plain).abs().amax((0, 1)) > 1e-6
    assert changed.nonzero().flatten().tolist() == [13]
    assert plain[0, 0, :15].tolist() == [90, 90, 96, 64, 0.5, 0, 0, 0, 0.5, 0, 1, 0, 0, 1, 1]
    torch.testing.assert_close(plain[0, 0, 15:].view(3, 4)[:, 3], torch.tensor([0.0, 0, 1]))


def test_a_warp_meets_the_projected_points():
    views = cameras(batch_size=2)
    now, before = views.at(0), views.at(-1)
    u, v = frustum_pixels(SIZE, (24, 16))
    depth = DepthBins(*BINS).points()
    points = lift_points(now.ref2img, u, v, depth)
    there = torch.einsum('bnij,bndhwj->bndhwi', before.ref2img, torch.nn.functional.pad(points, (0, 1), value=1.0))
    pixels, front = warp_cells(before.ref2img @ torch.linalg.inv(now.ref2img), u, v, depth)
    assert front.all()
    torch.testing.assert_close(pixels, there[..., :2] / there[..., 2:3], atol=1e-2, rtol=1e-4)
    behind = torch.diag(torch.tensor([1.0, 1, -1, 1]))
    pixels, front = warp_cells(behind, u, v, depth)
    assert not front.any() and (normalise_positions(pixels, front, SIZE) == -2).all()


def test_identity_warp_hits_the_cells_themselves():
    for reference in (False, True):
        u, v = frustum_pixels(SIZE, (24, 16), reference)
        pixels, front = warp_cells(torch.eye(4), u, v, DepthBins(*BINS).points())
        grid = normalise_positions(pixels, front, SIZE, reference)
        feats = torch.randn(1, 3, 16, 24)
        sampled = torch.nn.functional.grid_sample(feats, grid[:1].flatten(0, 0), align_corners=reference)
        torch.testing.assert_close(sampled, feats, atol=1e-5, rtol=0)
