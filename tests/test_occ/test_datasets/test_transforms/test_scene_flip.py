"""Tests of mirroring a scene."""

import random

import numpy as np
import pytest

from projects.occ.datasets import LoadVoxelProjections, RandomFlipScene, ResizeCropFlipImages
from projects.occ.structures import VoxelGrid, project_voxel_centres

# turned a little and beside the middle
ANGLE = 0.1
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]])
REF2CAM = np.eye(4)
REF2CAM[:3, :3] = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]) @ TURN
REF2CAM[:3, 3] = 0.3, -0.2, 0.1
CAM2IMG = np.array([[10.0, 0, 13], [0, 10, 8], [0, 0, 1]])
GRID = VoxelGrid((0, -4, -2, 8, 4, 2), 1, (8, 8, 4), 'lidar', 0, class_names=('free', 'car'), ahead='x')


@pytest.fixture
def results():
    rng = np.random.default_rng(0)
    ref2img = REF2CAM.copy()
    ref2img[:3] = CAM2IMG @ REF2CAM[:3]
    return dict(
        img=[rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)],
        depth=[rng.random((16, 24), dtype=np.float32)],
        gt_occ=rng.integers(0, 2, GRID.shape, dtype=np.uint8),
        mask_camera=rng.random(GRID.shape) < 0.5,
        ref2img=ref2img[None],
        ref2cam=REF2CAM[None],
        cam2img=CAM2IMG[None],
        img_wh=np.array([[24.0, 16.0]]),
        ori_img_wh=np.array([[24.0, 16.0]]),
        warp=np.eye(3)[None],
        cam_names=['image_00'],
        frame=np.zeros(1, dtype=np.int64),
        lidar_frames=[dict(frame=0, token='t0', lidar_path='x.bin', lidarseg_path='', lidar2ref=np.eye(4))],
        lidar2ego=np.eye(4),
        ego2global=np.eye(4),
        grid=GRID,
    )


def pixel(results, point, view=0):
    u, v, d = results['ref2img'][view][:3] @ [*point, 1]
    return np.array([u / d, v / d, d])


def test_compatible_flip_leaves_the_cameras(results):
    before = LoadVoxelProjections(frustums=4)(dict(results))
    after = RandomFlipScene(prob=1, flip_cameras=False)(dict(before))
    assert np.array_equal(after['img'][0], before['img'][0][:, ::-1])
    assert np.array_equal(after['depth'][0], before['depth'][0][:, ::-1])
    assert np.array_equal(after['gt_occ'], before['gt_occ'][:, ::-1])
    assert np.array_equal(after['mask_camera'], before['mask_camera'][:, ::-1])
    for key in ('ref2img', 'ref2cam', 'cam2img', 'voxel_pixels', 'voxel_visible', 'frustum_index'):
        assert np.array_equal(after[key], before[key])


def test_mirrored_cameras_see_mirrored_points(results):
    after = RandomFlipScene(prob=1)(dict(results))
    assert np.linalg.det(after['ref2cam'][0][:3, :3]) == pytest.approx(1)
    for x, y, z in ((4.0, 1.0, 0.5), (6.0, -2.0, -1.0)):
        u, v, d = pixel(results, (x, y, z))
        np.testing.assert_allclose(pixel(after, (x, -y, z)), (24 - u, v, d), rtol=1e-12)
    product = after['cam2img'] @ after['ref2cam'][:, :3]
    np.testing.assert_allclose(product, after['ref2img'][:, :3], atol=1e-12)
    assert after['cam2img'][0, 0].tolist() == [10, 0, 24 - 13]
    twice = RandomFlipScene(prob=1)(dict(after))
    for key in ('ref2img', 'ref2cam', 'cam2img'):
        np.testing.assert_allclose(twice[key], results[key], atol=1e-12)


def test_projections_follow_mirrored_cameras(results):
    before = LoadVoxelProjections(voxel_scale=2, frustums=4)(dict(results))
    after = RandomFlipScene(prob=1)(dict(before))
    old, new = (r['voxel_pixels'].reshape(4, 4, 2, 2) for r in (before, after))
    seen_old, seen_new = (r['voxel_visible'].reshape(4, 4, 2) for r in (before, after))
    assert np.array_equal(seen_new, seen_old[:, ::-1]) and seen_new.any() and not np.array_equal(seen_new, seen_old)
    assert np.array_equal(new[..., 0], 23 - old[:, ::-1, :, 0]) and np.array_equal(new[..., 1], old[:, ::-1, :, 1])
    # each voxel shows the pixel that it showed before
    i = tuple(np.argwhere(seen_new)[0])
    j = (i[0], 3 - i[1], i[2])
    assert np.array_equal(after['img'][0][new[i][1], new[i][0]], before['img'][0][old[j][1], old[j][0]])
    # and where the new matrices put it, but for pixel centres at +0.5 instead of 0 and rounding
    fresh = project_voxel_centres(GRID, after['ref2cam'][0], after['cam2img'][0], (24, 16), 2)
    both = fresh.visible & after['voxel_visible'][0]
    assert both.sum() > 0.8 * seen_new.sum()
    assert np.abs(fresh.pixels[both] - after['voxel_pixels'][0][both]).max() <= 1
    index = after['frustum_index'][:, ::-1]
    inside = index >= 0
    assert np.array_equal(inside, before['frustum_index'] >= 0)
    assert np.array_equal(index[inside] % 4, 3 - before['frustum_index'][inside] % 4)
    assert np.array_equal(index[inside] // 4, before['frustum_index'][inside] // 4)


def test_frames_that_look_along_y_are_mirrored_in_x(results):
    # the same scene in a frame that is turned by a quarter: x right, y ahead
    turn = np.eye(4)
    turn[:2, :2] = [[0, 1], [-1, 0]]  # x, y of the turned frame -> x ahead, y left
    turned = dict(results, grid=VoxelGrid((-4, 0, -2, 4, 8, 2), 1, (8, 8, 4), 'lidar', 0, class_names=('free', 'car')))
    assert turned['grid'].ahead == 'y'
    for key in ('ref2cam', 'ref2img', 'lidar2ego'):
        turned[key] = results[key] @ turn
    turned['lidar_frames'] = [dict(results['lidar_frames'][0], lidar2ref=np.linalg.inv(turn))]
    for key in ('gt_occ', 'mask_camera'):
        turned[key] = np.rot90(results[key], 1, (0, 1))
    one, two = (LoadVoxelProjections(voxel_scale=1, frustums=4)(dict(r)) for r in (results, turned))
    one, two = RandomFlipScene(prob=1)(one), RandomFlipScene(prob=1)(two)
    for key in ('ref2cam', 'ref2img', 'lidar2ego'):
        np.testing.assert_allclose(two[key], one[key] @ turn, atol=1e-12)
    np.testing.assert_allclose(turn @ two['lidar_frames'][0]['lidar2ref'], one['lidar_frames'][0]['lidar2ref'], atol=1e-12)
    assert np.array_equal(two['cam2img'], one['cam2img']) and np.array_equal(two['ego2global'], one['ego2global'])
    for key in ('gt_occ', 'mask_camera', 'frustum_index'):
        assert np.array_equal(two[key], np.rot90(one[key], 1, (0, 1)))
    seen = [r['voxel_visible'].reshape(GRID.shape) for r in (one, two)]
    assert seen[0].any() and np.array_equal(seen[1], np.rot90(seen[0], 1, (0, 1)))


def test_warp_and_lidar_points_follow(results):
    results = ResizeCropFlipImages(final_wh=(10, 6), training=False)(results)
    results['originals'] = [np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)]
    after = RandomFlipScene(prob=1)(dict(results))
    assert np.array_equal(after['originals'][0], results['originals'][0][:, ::-1])
    product = after['warp'][0] @ after['cam2img'][0] @ after['ref2cam'][0, :3]
    np.testing.assert_allclose(product, after['ref2img'][0, :3], atol=1e-12)
    # a point of the file lies on its pixel, mirrored
    u, v, d = pixel(results, (4.0, 1.0, 0.5))
    place = after['lidar_frames'][0]['lidar2ref'] @ [4.0, 1.0, 0.5, 1]
    np.testing.assert_allclose(pixel(after, place[:3]), (10 - u, v, d), rtol=1e-12)
    assert np.array_equal(results['lidar_frames'][0]['lidar2ref'], np.eye(4))


def test_probability(results):
    random.seed(0)
    flip = RandomFlipScene(prob=0.5)
    flipped = sum(not np.array_equal(flip(dict(results))['img'][0], results['img'][0]) for _ in range(200))
    assert 75 < flipped < 125
    assert RandomFlipScene(prob=0)(dict(results))['img'] is results['img']


def test_several_cameras_are_mirrored_only_with_their_matrices(results):
    for key in ('ref2img', 'ref2cam', 'cam2img', 'img_wh', 'ori_img_wh', 'warp', 'frame'):
        results[key] = np.concatenate([results[key]] * 2)
    results['img'], results['cam_names'] = results['img'] * 2, ['left', 'right']
    after = RandomFlipScene(prob=1)(dict(results))
    u, v, d = pixel(results, (4.0, 1.0, 0.5), 1)
    np.testing.assert_allclose(pixel(after, (4.0, -1.0, 0.5), 1), (24 - u, v, d))
    with pytest.raises(ValueError, match='is for data sets with one camera.*got 2 cameras, so set flip_cameras=True'):
        RandomFlipScene(flip_cameras=False)(results)


def test_bad_arguments(results):
    with pytest.raises(ValueError, match=r'prob must lie in \[0, 1\], got 2'):
        RandomFlipScene(prob=2)
    results['grid'] = VoxelGrid((0, -4, -2, 8, 5, 2), 1, (8, 9, 4), 'lidar', 0, class_names=('free', 'car'), ahead='x')
    with pytest.raises(ValueError, match='got y from -4.0 to 5.0 m'):
        RandomFlipScene()(results)
    assert repr(RandomFlipScene(0.25)) == 'RandomFlipScene(prob=0.25, flip_cameras=True)'
