"""Tests of the reference frame at the moment of a camera's image."""

import json

import numpy as np
import pytest
import torch

from projects.occ.datasets.transforms.camera_time import ReferenceAtCameraTime
from projects.occ.structures import VoxelGrid

GRID = VoxelGrid((-4, -4, -2, 4, 4, 2), 1, (8, 8, 4), 'ego', 0, class_names=('free', 'car'))


def pose(x, y, yaw=0.0):
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    matrix[:2, 3] = x, y
    return matrix


@pytest.fixture
def results():
    """A vehicle that drives and turns; the two cameras take their images later than the LiDAR."""
    cam2ego = np.stack([pose(1.5, 0.2, 0.1), pose(1.0, -0.3, -1.2)])
    at_lidar, at_camera = pose(10, 5, 0.3), [pose(10.4, 5.1, 0.32), pose(10.2, 5.0, 0.31)]
    ref2cam = np.stack([np.linalg.inv(ego @ mount) @ at_lidar for ego, mount in zip(at_camera, cam2ego)])
    return dict(
        token='t',
        cam_names=['CAM_FRONT_LEFT', 'CAM_FRONT'],
        grid=GRID,
        cam2ego=cam2ego,
        ref2cam=ref2cam,
        ref2img=2 * ref2cam,
        lidar2ego=pose(0.9, 0),
        ego2global=at_lidar,
        lidar_frames=[dict(frame=0, lidar2ref=pose(0.9, 0))],
        at_camera=at_camera,
    )


@pytest.mark.parametrize('camera, view', [(None, 0), ('CAM_FRONT', 1)])
def test_the_camera_stands_where_it_is_mounted(results, camera, view):
    after = ReferenceAtCameraTime(camera)(dict(results))
    np.testing.assert_allclose(after['ref2cam'][view] @ results['cam2ego'][view], np.eye(4), atol=1e-12)
    np.testing.assert_allclose(after['ref2img'], 2 * after['ref2cam'], atol=1e-12)
    # a point of the LiDAR stays where it is in the world
    to_world = [results['ego2global'] @ results['lidar_frames'][0]['lidar2ref']]
    to_world.append(results['at_camera'][view] @ after['lidar_frames'][0]['lidar2ref'])
    np.testing.assert_allclose(*to_world, atol=1e-12)
    for key in ('lidar2ego', 'ego2global'):
        assert after[key] is results[key]


def test_the_original_uses_the_first_camera(golden_dir):
    case = torch.load(golden_dir / 'bevstereo_occ_small.pt', weights_only=True)['cases']['r50_stereo']
    cameras = json.loads(case['config_json'])['spec']['cams']
    sensor2ego, ego2global = (case['inputs'][key][0].double().numpy() for key in ('sensor2ego', 'ego2global'))
    at_lidar = ego2global[0] @ pose(0.3, -0.1, 0.02)
    results = dict(
        cam_names=[f'camera_{i}' for i in range(cameras)],
        grid=GRID,
        cam2ego=sensor2ego[:cameras],
        ref2cam=np.linalg.inv(ego2global @ sensor2ego) @ at_lidar,
        ref2img=np.linalg.inv(ego2global @ sensor2ego) @ at_lidar,
    )
    after = ReferenceAtCameraTime()(results)['ref2cam']
    theirs = case['taps']['sensor2keyego'][0].flatten(0, 1).double().numpy()
    np.testing.assert_allclose(np.linalg.inv(after), theirs, atol=1e-5)


def test_what_is_refused(results):
    with pytest.raises(ValueError, match='CAM_REAR'):
        ReferenceAtCameraTime('CAM_REAR')(results)
    with pytest.raises(ValueError, match='cam2ego'):
        ReferenceAtCameraTime()({key: value for key, value in results.items() if key != 'cam2ego'})
    lidar = VoxelGrid((-4, -4, -2, 4, 4, 2), 1, (8, 8, 4), 'lidar', 0, class_names=('free', 'car'))
    with pytest.raises(ValueError, match='lidar'):
        ReferenceAtCameraTime()(dict(results, grid=lidar))
