"""Query origins of RayIoU: against the original, on scenes by hand, and on the real poses of all validation frames."""

from dataclasses import replace

import numpy as np
import pytest

from projects.occ.datasets.safe_pickle import load_numpy_pickle
from projects.occ.evaluation.functional import lidar_origins, origins_by_token
from projects.occ.structures.benchmarks import BENCHMARKS
from projects.occ.structures.frame_record import rigid

OCC3D = BENCHMARKS['occ3d'].grid
KITTI = BENCHMARKS['sscbench-kitti360'].grid


def straight_scene(count=5, step=4.0, name='scene-1', height=1.84):
    """A car that drives along x; the LiDAR sits 1 m in front of its centre, turned by 90 degrees."""
    lidar2ego = rigid((np.sqrt(0.5), 0, 0, np.sqrt(0.5)), (1, 0, height))
    return [
        dict(
            token=f'{name}-{i}',
            scene_name=name,
            timestamp=float(i),
            lidar2ego=lidar2ego,
            ego2global=rigid((1, 0, 0, 0), (100 + step * i, 7, 0)),
        )
        for i in range(count)
    ]


def test_by_hand_in_both_frames():
    scene = straight_scene(3)
    lidar2ego, ego2global = (np.stack([item[key] for item in scene]) for key in ('lidar2ego', 'ego2global'))
    expected = [[-3, 0, 1.84], [1, 0, 1.84], [5, 0, 1.84]]
    np.testing.assert_allclose(lidar_origins(lidar2ego, ego2global, 1, OCC3D), expected, atol=1e-5)
    # forward of the car is -y of this LiDAR
    in_lidar = replace(OCC3D, frame='lidar')
    np.testing.assert_allclose(lidar_origins(lidar2ego, ego2global, 1, in_lidar), [[0, 4, 0], [0, 0, 0], [0, -4, 0]], atol=1e-5)


def test_at_most_eight_within_the_range():
    scene = straight_scene(40, step=2.0)
    origins = origins_by_token(scene, OCC3D)[scene[20]['token']]
    assert len(origins) == 8 and np.abs(origins[:, :2]).max() < 39
    # 38 frames (1 to 38) are within 39 m of frame 20; evenly: 1, 6, 12, 17, 22, 27, 33, 38
    assert origins[:, 0].tolist() == pytest.approx([-37, -27, -15, -5, 5, 15, 27, 37], abs=1e-4)


def test_origins_lie_inside_a_grid_that_begins_at_the_car():
    """The LiDAR looks along y, 2.5 m per frame; the grid of KITTI-360 turned by a quarter: y from 0 to 51.2 m."""
    grid = replace(KITTI, point_cloud_range=(-25.6, -51.2, -2, 25.6, 0, 4.4))
    origins = origins_by_token(straight_scene(40, step=2.5), grid)
    for index, points in enumerate(origins.values()):
        # the frames 1 to 20 ahead lie 2.5 to 50 m in front of the car; frame, and what is behind it, at or behind the border
        ahead = 2.5 * np.arange(1, 21)[: 39 - index]
        if len(ahead) > 8:
            ahead = ahead[np.round(np.linspace(0, len(ahead) - 1, 8)).astype(int)]
        np.testing.assert_allclose(points, np.column_stack([0 * ahead, -ahead, 0 * ahead]), atol=1e-4)
    assert origins['scene-1-39'].shape == (0, 3)


def test_the_margin_is_one_metre():
    scene = straight_scene(3, step=1.5)
    lidar2ego, ego2global = (np.stack([item[key] for item in scene]) for key in ('lidar2ego', 'ego2global'))
    # the LiDAR was at x = -0.5, 1 and 2.5 m
    for x_range, kept in (((-1.6, 6.4), [-0.5, 1, 2.5]), ((-1.4, 6.6), [1, 2.5]), ((-4.6, 3.4), [-0.5, 1]), ((0, 8), [2.5])):
        grid = replace(OCC3D, point_cloud_range=(x_range[0], -40, -1, x_range[1], 40, 5.4), shape=(20, 200, 16))
        np.testing.assert_allclose(lidar_origins(lidar2ego, ego2global, 1, grid)[:, 0], kept, atol=1e-4)


def test_scenes_do_not_mix_and_time_orders_frames():
    first, second = straight_scene(4), straight_scene(3, step=1.0, name='scene-2')
    shuffled = [first[2], second[1], first[0], first[3], second[0], first[1], second[2]]
    origins = origins_by_token(shuffled, OCC3D)
    assert list(origins) == [item['token'] for item in shuffled]
    expected = origins_by_token(first, OCC3D) | origins_by_token(second, OCC3D)
    for token, points in origins.items():
        np.testing.assert_array_equal(points, expected[token])
    assert len(origins['scene-2-0']) == 3
    untimed = [{key: value for key, value in item.items() if key != 'timestamp'} for item in reversed(first)]
    np.testing.assert_array_equal(origins_by_token(untimed, OCC3D)['scene-1-0'], expected['scene-1-0'][::-1])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(scene_name=''), 'frame scene-1-1 has no scene_name, so the scene that its RayIoU origins come from is unknown'),
        (dict(token='scene-1-0'), 'frame scene-1-0 occurs twice'),
        (dict(ego2global=np.full((4, 4), np.nan)), 'the poses of the scene are not finite.* Give a file of origins instead'),
    ],
)
def test_bad_frames(change, message):
    scene = straight_scene(3)
    scene[1].update(change)
    with pytest.raises(ValueError, match=message):
        origins_by_token(scene, OCC3D)


def test_all_real_validation_frames(shared_data):
    """6019 real poses. The file has no scene names, so drives without a jump of the car stand for scenes."""
    path = shared_data / 'rayiou_ego_infos' / 'ego_infos_val.pkl'
    if not path.is_file():
        pytest.skip(f'real poses not found at {path}; set OCC_SHARED_DATA')
    infos = load_numpy_pickle(str(path))['infos']
    place = np.array([info['ego2global_translation'] for info in infos])
    # 12 m in half a second are 86 km/h
    drive = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(place, axis=0), axis=1) > 12)])
    frames = [
        dict(
            token=info['token'],
            scene_name=f'drive-{number}',
            lidar2ego=rigid(info['lidar2ego_rotation'], info['lidar2ego_translation']),
            ego2global=rigid(info['ego2global_rotation'], info['ego2global_translation']),
        )
        for info, number in zip(infos, drive, strict=True)
    ]
    origins = origins_by_token(frames, OCC3D)
    assert len(origins) == 6019 and drive[-1] + 1 == 81
    counts = np.bincount([len(points) for points in origins.values()], minlength=9)
    assert counts[0] == 0 and counts[8] > 5000 and counts.sum() == 6019
    everything = np.concatenate(list(origins.values()))
    assert np.isfinite(everything).all() and np.abs(everything[:, :2]).max() < 39
    # the roof of the car, up and down the slopes of 80 m of road
    assert np.abs(everything[:, 2] - 1.84).max() < 6
    # slow drives of up to eight frames in reach hold the frame's own position; the others come from the same formula
    seen = 0
    for start in range(0, 6019, 7):
        own = frames[start]
        scene = [frame for frame in frames[max(0, start - 400) : start + 400] if frame['scene_name'] == own['scene_name']]
        to_own = np.linalg.inv(own['ego2global'])
        candidates = np.array([(to_own @ frame['ego2global'] @ frame['lidar2ego'])[:3, 3] for frame in scene])
        distance = np.linalg.norm(origins[own['token']][:, None] - candidates[None], axis=-1).min(1)
        assert distance.max() < 1e-3
        seen += len(distance)
    assert seen > 6000
