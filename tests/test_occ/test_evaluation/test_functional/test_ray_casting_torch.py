"""The tensor version of the ray caster: equal to the compiled one, on every device."""

import importlib

import numpy as np
import pytest
import torch

from projects.occ.evaluation.functional import cast_rays, cast_rays_torch
from projects.occ.structures import VoxelGrid

# the package has a function of that name
ray_iou_module = importlib.import_module('projects.occ.evaluation.functional.ray_iou')
GRID = VoxelGrid((-4, -4, -2, 4, 4, 2), 1.0, (8, 8, 4), 'ego', 2, class_names=('wall', 'floor', 'free'))

DEVICES = ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU'))]


def random_rays(shape, count, seed=0):
    """Rays from inside and outside, among them axis-parallel ones and ones through edges."""
    rng = np.random.default_rng(seed)
    origins = rng.uniform(-2, np.array(shape) + 2, (count, 3)).astype(np.float32)
    directions = rng.normal(size=(count, 3))
    directions[: count // 8] = np.eye(3)[rng.integers(0, 3, count // 8)] * rng.choice([-1, 1], (count // 8, 1))
    directions[count // 8 : count // 4] = rng.choice([-1, 0, 1], (count // 4 - count // 8, 3)) + [0, 0, 1e-9]
    origins[count // 8 : count // 4] = np.floor(origins[count // 8 : count // 4]) + 0.5
    return origins, (origins + directions).astype(np.float32)


@pytest.mark.parametrize('device', DEVICES)
def test_equal_to_the_compiled_caster(device):
    rng = np.random.default_rng(1)
    shape = (17, 9, 12)
    volumes = np.where(rng.random((2, *shape)) < [[[[0.02]]], [[[0.2]]]], rng.integers(0, 5, (2, *shape)), 5).astype(np.uint8)
    origins, ends = random_rays(shape, 3000)
    moving = (origins != ends).any(1)
    origins, ends = origins[moving], ends[moving]
    depths, labels, cells = cast_rays_torch(
        torch.from_numpy(volumes).to(device), torch.from_numpy(origins), torch.from_numpy(ends), 5
    )
    for i in range(2):
        depth, label, cell = cast_rays(volumes[i], origins, ends, 5)
        assert (depth == -1).any() and (label == 5).any() and (label != 5).any()
        np.testing.assert_allclose(depths[i].cpu().numpy(), depth, rtol=1e-14)
        np.testing.assert_array_equal(labels[i].cpu().numpy(), label)
        np.testing.assert_array_equal(cells[i].cpu().numpy(), cell)


@pytest.mark.parametrize('device', DEVICES)
def test_matches_the_original(golden_dir, device):
    with np.load(golden_dir / 'metrics_small.npz') as golden:
        grid, origin, end = (torch.from_numpy(golden[f'cast0.{key}']).to(device) for key in ('grid', 'origin', 'end'))
        depths, labels, cells = cast_rays_torch(grid[None], origin, end, 17)
        np.testing.assert_allclose(depths[0].cpu().numpy(), golden['cast0.depth'], atol=1e-4)
        assert np.array_equal(labels[0].cpu().numpy(), golden['cast0.label'])
        assert np.array_equal(cells[0].cpu().numpy(), golden['cast0.index'])


def test_tensors_on_another_device_take_this_way(monkeypatch):
    """Which of the two is used must not show in the counts."""
    gt, pred = np.random.default_rng(0).choice([0, 1, 2, 2, 2, 2], (2, *GRID.shape)).astype(np.uint8)
    origins = np.array([[0.1, 0.2, 0.3], [1.1, -1.2, 0.4]])
    expected = ray_iou_module.count_rays(pred, gt, origins, GRID)

    def cast_both(gt, pred, starts, ends, free_index):
        both = torch.stack([torch.from_numpy(gt), torch.from_numpy(pred)])
        depths, labels, _ = cast_rays_torch(both, torch.from_numpy(starts), torch.from_numpy(ends), free_index)
        return list(zip(depths.numpy(), labels.numpy(), strict=True))

    monkeypatch.setattr(ray_iou_module, '_cast_both', cast_both)
    counts = ray_iou_module.count_rays(pred, gt, origins, GRID)
    for key in ('tp', 'gt', 'pred'):
        np.testing.assert_array_equal(getattr(counts, key), getattr(expected, key))
    assert expected.tp.sum() > 100


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_counts_on_a_gpu_equal_those_on_the_cpu():
    gt, pred = torch.from_numpy(np.random.default_rng(0).choice([0, 1, 2, 2, 2], (2, *GRID.shape)).astype(np.uint8))
    origins = np.array([[0.1, 0.2, 0.3]])
    one = ray_iou_module.count_rays(pred, gt, origins, GRID)
    other = ray_iou_module.count_rays(pred.cuda(), gt.cuda(), torch.from_numpy(origins).cuda(), GRID)
    assert all(np.array_equal(getattr(one, key), getattr(other, key)) for key in ('tp', 'gt', 'pred'))
    rayiou = ray_iou_module.ray_iou([pred.cuda()], [gt.cuda()], [origins], GRID)['RayIoU']
    assert rayiou == ray_iou_module.ray_iou([pred], [gt], [origins], GRID)['RayIoU']


def test_bad_shapes():
    with pytest.raises(ValueError, match=r'labels must be \(V, X, Y, Z\), origins and ends \(R, 3\), got \(2, 2, 2\)'):
        cast_rays_torch(torch.zeros(2, 2, 2), torch.zeros(1, 3), torch.zeros(1, 3), 0)
