"""Stereo matching: identical frames, a known depth, what lies outside, and the original's rules."""

import pytest
import torch
import torch.nn.functional as F
from tiny_bevdet import BINS, SIZE, cameras

from projects.bevdet.cost_volume import cost_volume
from projects.bevdet.geometry import DepthBins, frustum_pixels, normalise_positions, warp_cells

BINS = DepthBins(*BINS)
CELLS = (SIZE[0] // 4, SIZE[1] // 4)


def positions(warp, reference=False):
    u, v = frustum_pixels(SIZE, CELLS, reference)
    pixels, front = warp_cells(warp, u, v, BINS.points(reference))
    return normalise_positions(pixels, front, SIZE, reference)


@pytest.mark.parametrize('reference', [False, True])
def test_identical_frames_without_motion_say_nothing(reference):
    feats = torch.rand(2, 8, CELLS[1], CELLS[0]) + 0.1
    cost = cost_volume(feats, feats, positions(torch.eye(4).expand(2, 4, 4), reference), bias=5.0, reference=reference)
    torch.testing.assert_close(cost, torch.full_like(cost, 1 / len(BINS)), atol=1e-3, rtol=0)


def pattern(points):
    """A texture on the wall, 6 channels."""
    waves = torch.tensor([[1.1, 0.3], [0.4, 1.7], [2.3, 0.9], [0.8, -1.2], [1.9, 1.4], [-0.6, 2.1]])
    return 20 * torch.sin(points @ waves.T).movedim(-1, 0)


def test_a_sideways_step_finds_the_depth_of_a_wall():
    """Both frames look at a wall 4.25 m ahead, 1 m apart sideways: the cost is least in the bin from 4 to 4.5 m."""
    views = cameras(num_cams=1, frames=1)
    moved = views.ref2cam.clone()
    moved[..., 0, 3] += 1.0
    before = views.with_poses(moved)
    u, v = frustum_pixels(SIZE, CELLS)
    images = []
    for view in (views, before):
        rays = torch.stack(torch.meshgrid(u, v, indexing='xy'), dim=-1)
        x = (rays[..., 0] - 48) / 45 * 4.25 - view.ref2cam[0, 0, 0, 3]
        y = (rays[..., 1] - 32) / 45 * 4.25
        images.append(pattern(torch.stack((x, y), dim=-1))[None])
    warp = before.ref2img @ torch.linalg.inv(views.ref2img)
    cost = cost_volume(images[0], images[1], positions(warp[0]), bias=5.0)
    best = cost[0].argmax(0)
    seen = positions(warp[0])[0, 6].abs().amax(-1) < 0.9
    assert seen.float().mean() > 0.5
    assert (best[seen] == 6).float().mean() > 0.95


def naive(current, previous, grid, bias, reference):
    """One bin, one channel at a time."""
    costs = []
    channels = current.shape[1] // 4 * 4 if reference else current.shape[1]
    for k in range(grid.shape[1]):
        sampled = F.grid_sample(previous, grid[:, k], align_corners=reference)
        cost = (sampled - current)[:, :channels].abs().sum(1)
        outside = sampled[:, channels - 4] == 0 if reference else (grid[:, k].abs() > 1).any(-1)
        costs.append(cost + bias * outside)
    return (-torch.stack(costs, dim=1)).softmax(1)


@pytest.mark.parametrize('reference', [False, True])
@pytest.mark.parametrize('chunk', [3, 4, 32])
def test_against_one_bin_at_a_time(reference, chunk):
    generator = torch.Generator().manual_seed(0)
    current, previous = (0.2 * torch.rand(2, 10, 16, 24, generator=generator).sub(0.3).relu() for _ in range(2))
    grid = 2.4 * torch.rand(2, 5, 16, 24, 2, generator=generator) - 1.2
    ours = cost_volume(current, previous, grid, 0.5, reference, chunk)
    torch.testing.assert_close(ours, naive(current, previous, grid, 0.5, reference))
    assert not torch.allclose(ours, naive(current, previous, grid, 0.0, reference), atol=1e-3)


def test_no_gradient():
    feats = torch.rand(1, 4, 4, 4, requires_grad=True)
    assert not cost_volume(feats, feats, torch.zeros(1, 3, 4, 4, 2), 5.0).requires_grad
