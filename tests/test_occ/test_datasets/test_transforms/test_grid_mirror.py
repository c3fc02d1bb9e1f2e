"""Tests of mirroring the reference frame."""

import random

import numpy as np
import pytest

from projects.occ.datasets import LoadVoxelProjections
from projects.occ.datasets.transforms.grid_mirror import RandomMirrorGrid
from projects.occ.structures import VoxelGrid

REF2CAM = np.eye(4)
REF2CAM[:3, :3] = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
REF2CAM[:3, 3] = 0.31, -0.23, 5.17
CAM2IMG = np.array([[10.0, 0, 13], [0, 10, 8], [0, 0, 1]])


def grid_of(frame='ego', lower_x=-4):
    return VoxelGrid((lower_x, -4, -2, lower_x + 8, 4, 2), 1, (8, 8, 4), frame, 0, class_names=('free', 'car'))


def make_results(grid):
    rng = np.random.default_rng(0)
    ref2img = REF2CAM.copy()
    ref2img[:3] = CAM2IMG @ REF2CAM[:3]
    lidar2ego, ego2global = np.eye(4), np.eye(4)
    lidar2ego[:3, 3], ego2global[:3, 3] = (0.9, 0.1, 1.8), (100, -50, 3)
    return dict(
        img=[rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)],
        gt_occ=rng.integers(0, 2, grid.shape, dtype=np.uint8),
        mask_camera=rng.random(grid.shape) < 0.5,
        ref2img=ref2img[None],
        ref2cam=REF2CAM[None],
        cam2img=CAM2IMG[None],
        frame=np.zeros(1, dtype=np.int64),
        img_wh=np.array([[24.0, 16.0]]),
        ori_img_wh=np.array([[24.0, 16.0]]),
        lidar2ego=lidar2ego,
        ego2global=ego2global,
        lidar_frames=[dict(frame=0, lidar2ref=lidar2ego if grid.frame == 'ego' else np.eye(4))],
        grid=grid,
    )


@pytest.mark.parametrize('probs, signs', [((1, 0), (-1, 1)), ((0, 1), (1, -1)), ((1, 1), (-1, -1)), ((0, 0), (1, 1))])
@pytest.mark.parametrize('frame', ['ego', 'lidar'])
def test_every_voxel_keeps_its_pixels_and_its_place_in_the_world(probs, signs, frame):
    grid = grid_of(frame)
    before = LoadVoxelProjections(frustums=4)(make_results(grid))
    after = RandomMirrorGrid(*probs)(dict(before))
    mirror = np.diag([*signs, 1.0, 1.0])
    assert np.array_equal(after['scene'], mirror[:3, :3]) and after['img'][0] is before['img'][0]
    flips = np.s_[:: signs[0], :: signs[1]]
    for key in ('gt_occ', 'mask_camera', 'frustum_index'):
        assert np.array_equal(after[key], before[key][flips])
    points = np.random.default_rng(1).normal(size=(5, 4)).T
    points[3] = 1
    for key in ('ref2cam', 'ref2img'):
        np.testing.assert_allclose(after[key][0] @ mirror @ points, before[key][0] @ points, atol=1e-12)
    again = LoadVoxelProjections(frustums=4)(dict(after))
    visible = again['voxel_visible']
    assert np.array_equal(visible, after['voxel_visible']) and 0 < visible.mean() < 1
    assert np.array_equal(again['voxel_pixels'][visible], after['voxel_pixels'][visible])
    # a voxel and a LiDAR point stay where they are in the world
    to_world = [r['ego2global'] @ (np.eye(4) if frame == 'ego' else r['lidar2ego']) for r in (before, after)]
    np.testing.assert_allclose(to_world[1] @ mirror @ points, to_world[0] @ points, atol=1e-10)
    scans = [r['lidar_frames'][0]['lidar2ref'] for r in (before, after)]
    np.testing.assert_allclose(scans[1] @ points, mirror @ scans[0] @ points, atol=1e-12)


def test_twice_is_not_at_all():
    grid = grid_of()
    before = make_results(grid)
    after = RandomMirrorGrid(1, 1)(RandomMirrorGrid(1, 1)(dict(before)))
    for key in ('gt_occ', 'ref2cam', 'ref2img', 'lidar2ego', 'ego2global'):
        np.testing.assert_array_equal(after[key], before[key])
    assert np.array_equal(after['scene'], np.eye(3))


def test_draws():
    random.seed(0)
    transform = RandomMirrorGrid(0.25, 0.5)
    drawn = [transform(make_results(grid_of()))['scene'].diagonal() for _ in range(400)]
    assert (np.array(drawn)[:, :2] < 0).mean(0).tolist() == pytest.approx([0.25, 0.5], abs=0.06)


def test_grids_that_are_not_symmetric():
    results = make_results(grid_of(lower_x=-3))
    with pytest.raises(ValueError, match='prob_x=0'):
        RandomMirrorGrid()(results)
    assert RandomMirrorGrid(prob_x=0, prob_y=1)(results)['scene'][1, 1] == -1
    with pytest.raises(ValueError, match='prob_y'):
        RandomMirrorGrid(prob_y=1.5)
