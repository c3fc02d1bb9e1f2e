import math

import numpy as np
import pytest
import torch

from projects.gaussrender import CameraBatch
from projects.rendering.camera_strategies import STRATEGIES, bird_eye_camera, build_camera_strategy

OCC3D = dict(
    point_cloud_range=(-40, -40, -1, 40, 40, 5.4), voxel_size=0.4, shape=(200, 200, 16), frame='ego', free_index=1,
    class_names=('a', 'free'),
)  # fmt: skip
SURROUNDOCC = dict(OCC3D, point_cloud_range=(-50, -50, -5, 50, 50, 3), voxel_size=0.5, frame='lidar')
KITTI = dict(OCC3D, point_cloud_range=(0, -25.6, -2, 51.2, 25.6, 4.4), voxel_size=0.2, shape=(256, 256, 32), frame='lidar')


def rx(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])


def ry(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 0], [0, 0, 0, 1]])


def modify(e, phi, theta, ty, tz):
    e = rx(phi) @ ry(theta) @ e
    e[1, 3] += ty
    e[2, 3] += tz
    return e


@pytest.fixture
def rig():
    """(2, 3, 4, 4) random rigid transforms and (2, 3, 3, 3) intrinsics."""
    rng = np.random.default_rng(0)
    ref2cam = np.tile(np.eye(4), (2, 3, 1, 1))
    for b in range(2):
        for n in range(3):
            ref2cam[b, n] = rx(rng.uniform(-180, 180)) @ ry(rng.uniform(-180, 180))
            ref2cam[b, n, :3, 3] = rng.normal(size=3)
    K = np.tile(np.array([[500.0, 0, 400], [0, 510, 300], [0, 0, 1]]), (2, 3, 1, 1))
    return torch.tensor(ref2cam).float(), torch.tensor(K).float()


def moved(strategy, rig, draws):
    ref2cam, K = strategy.apply(*rig, draws)
    assert ref2cam.dtype == torch.float32
    np.testing.assert_array_equal(rig[1].numpy(), K[:, -3:].numpy())
    return ref2cam.numpy()


def expected(rig, function):
    return np.array([[function(k, e) for k, e in enumerate(scene)] for scene in rig[0].double().numpy()])


class TestStrategies:
    def test_sensor(self, rig):
        strategy = build_camera_strategy(dict(type='SensorCameras'))
        assert strategy.draw(3) == {}
        np.testing.assert_array_equal(moved(strategy, rig, {}), rig[0].numpy())

    def test_elevated(self, rig):
        strategy = build_camera_strategy(dict(type='ElevatedCameras'))
        draws = dict(theta=torch.tensor([-5.0, 0.5, 4.0]))
        want = expected(rig, lambda k, e: modify(e, 20, float(draws['theta'][k]), 8, 0))
        np.testing.assert_allclose(moved(strategy, rig, draws), want, atol=2e-6)

    def test_random(self, rig):
        strategy = build_camera_strategy(dict(type='RandomCameras'))
        draws = dict(
            phi=torch.tensor([0.0, 7.0, 20.0]), theta=torch.tensor([-10.0, 3.0, 9.0]), tz=torch.tensor([-10.0, 2.0, 8.0])
        )
        want = expected(
            rig, lambda k, e: modify(e, *(float(draws[n][k]) for n in ('phi', 'theta')), 0.4 * float(draws['phi'][k]),
                                     float(draws['tz'][k]))
        )  # fmt: skip
        np.testing.assert_allclose(moved(strategy, rig, draws), want, atol=2e-6)

    def test_stereo_doubles_the_cameras(self, rig):
        strategy = build_camera_strategy(dict(type='StereoCameras'))
        draws = dict(ty=torch.tensor([-1.0, 0.2, 0.9]), tz=torch.tensor([0.3, -0.4, 1.0]))
        got = moved(strategy, rig, draws)
        assert got.shape == (2, 6, 4, 4)
        np.testing.assert_array_equal(got[:, :3], rig[0].numpy())
        want = expected(rig, lambda k, e: modify(e, 0, 0, float(draws['ty'][k]), float(draws['tz'][k])))
        np.testing.assert_allclose(got[:, 3:], want, atol=1e-6)

    @pytest.mark.parametrize('grid, shift', [(OCC3D, (0, 2, 0)), (SURROUNDOCC, (0, 2, 0)), (KITTI, (0, 2, -0.7 * 0.5 * 51.2))])
    def test_trajectory(self, rig, grid, shift):
        strategy = build_camera_strategy(dict(type='TrajectoryCameras', grid=grid))

        def shifted(k, e):
            e = e.copy()
            e[:3, 3] += shift
            return e

        got = moved(strategy, rig, dict(f=torch.tensor(0.5)))
        np.testing.assert_allclose(got, expected(rig, shifted), atol=2e-6)

    def test_trajectory_moves_sideways_on_a_lopsided_grid(self, rig):
        grid = dict(OCC3D, point_cloud_range=(-10, -4, -1, 30, 12, 5.4), shape=(100, 40, 16))
        got = moved(build_camera_strategy(dict(type='TrajectoryCameras'), grid=grid), rig, dict(f=torch.tensor(0.25)))
        np.testing.assert_allclose(
            got[..., :3, 3] - rig[0].numpy()[..., :3, 3], np.full((2, 3, 3), (1.0, 2.0, -3.5)), atol=1e-5
        )

    def test_elevated_around(self, rig):
        strategy = build_camera_strategy(dict(type='ElevatedAroundCameras', lift=3.0))
        draws = dict(tx=torch.tensor([-5.0, 0.0, 2.0]), tz=torch.tensor([4.0, 1.0, -3.0]))
        want = rig[0].numpy().copy()
        want[..., :3, 3] += np.stack([draws['tx'].numpy(), [3.0] * 3, draws['tz'].numpy()], -1)
        np.testing.assert_allclose(moved(strategy, rig, draws), want, atol=1e-6)

    def test_list_ignores_the_real_cameras(self, rig):
        matrices = [np.eye(4).tolist(), modify(np.eye(4), 10, 5, 1, 2).tolist()]
        strategy = build_camera_strategy(
            dict(type='ListCameras', ref2cam=matrices, K=[[9.0, 0, 4], [0, 8, 3], [0, 0, 1]], width=8, height=6)
        )
        ref2cam, K = strategy.apply(*rig, strategy.draw(3))
        assert ref2cam.shape == (2, 2, 4, 4) and K.shape == (2, 2, 3, 3) and strategy.image_size == (8, 6)
        np.testing.assert_allclose(ref2cam[1].numpy(), matrices, atol=1e-6)
        assert float(K[0, 1, 1, 1]) == 8

    @pytest.mark.parametrize('name', sorted(set(STRATEGIES) - {'ListCameras'}))
    def test_draws_are_reproducible_and_all_of_the_randomness(self, rig, name):
        strategy = build_camera_strategy(dict(type=name), grid=KITTI)
        first = strategy.draw(3, torch.Generator().manual_seed(7))
        state = torch.get_rng_state()
        again = strategy.draw(3, torch.Generator().manual_seed(7))
        other = strategy.draw(3, torch.Generator().manual_seed(8))
        before = rig[0].clone()
        a, b = strategy.apply(*rig, first)[0], strategy.apply(*rig, again)[0]
        np.testing.assert_array_equal(a.numpy(), b.numpy())
        np.testing.assert_array_equal(rig[0].numpy(), before.numpy())
        assert torch.equal(torch.get_rng_state(), state), 'the global generator was touched'
        assert (name == 'SensorCameras') == (first == {})
        assert all(not torch.equal(first[key], other[key]) for key in first)
        # rotations stay rotations
        rotation = a[..., :3, :3].double()
        torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand_as(rotation), atol=1e-5, rtol=0)

    @pytest.mark.parametrize(
        'name, ranges',
        [
            ('ElevatedCameras', dict(theta=(-5, 5))),
            ('RandomCameras', dict(phi=(0, 20), theta=(-10, 10), tz=(-10, 10))),
            ('StereoCameras', dict(ty=(-1, 1), tz=(-1, 1))),
            ('ElevatedAroundCameras', dict(tx=(-5, 5), tz=(-5, 5))),
        ],
    )
    def test_ranges(self, name, ranges):
        draws = build_camera_strategy(dict(type=name)).draw(2000, torch.Generator().manual_seed(0))
        assert sorted(draws) == sorted(ranges)
        for key, (low, high) in ranges.items():
            assert draws[key].shape == (2000,)
            assert low <= float(draws[key].min()) < low + 0.02 * (high - low)
            assert high >= float(draws[key].max()) > high - 0.02 * (high - low)
            assert abs(float(draws[key].mean()) - (low + high) / 2) < 0.03 * (high - low)

    def test_draws_come_camera_by_camera(self):
        strategy = build_camera_strategy(dict(type='RandomCameras'))
        generator = torch.Generator().manual_seed(1)
        singles = [strategy.draw(1, generator) for _ in range(3)]
        together = strategy.draw(3, torch.Generator().manual_seed(1))
        for key in together:
            torch.testing.assert_close(together[key], torch.cat([single[key] for single in singles]))


class TestBuild:
    def test_unknown_type_lists_the_names(self):
        with pytest.raises(ValueError, match=r"unknown camera strategy 'elevated'.*ElevatedAroundCameras.*TrajectoryCameras"):
            build_camera_strategy(dict(type='elevated'))

    def test_unknown_argument(self):
        with pytest.raises(ValueError, match=r"ElevatedCameras: unknown arguments \['pich'\].*\['lift', 'max_yaw', 'pitch'\]"):
            build_camera_strategy(dict(type='ElevatedCameras', pich=3))
        with pytest.raises(ValueError, match=r"missing arguments \['K', 'ref2cam'\]"):
            build_camera_strategy(dict(type='ListCameras'))

    def test_trajectory_needs_the_grid(self):
        with pytest.raises(ValueError, match='TrajectoryCameras needs the voxel grid'):
            build_camera_strategy(dict(type='TrajectoryCameras'))

    def test_class_or_object(self):
        sensor = build_camera_strategy(dict(type=STRATEGIES['SensorCameras']))
        assert build_camera_strategy(sensor) is sensor

    def test_list_of_wrong_matrices(self):
        with pytest.raises(ValueError, match=r'ref2cam must be \(B, N, 4, 4\)'):
            build_camera_strategy(dict(type='ListCameras', ref2cam=np.eye(3)[None], K=np.eye(3)[None]))
        with pytest.raises(ValueError, match='both width and height'):
            build_camera_strategy(dict(type='ListCameras', ref2cam=np.eye(4)[None], K=np.eye(3)[None], width=3))


class TestBirdEye:
    @pytest.mark.parametrize('grid, height, cx', [(OCC3D, 80.0, 200.0), (SURROUNDOCC, 100.0, 200.0), (KITTI, 51.2, 0.0)])
    def test_published_geometry(self, grid, height, cx):
        camera = bird_eye_camera(grid)
        assert (camera.width, camera.height) == (400, 400)
        want = np.array([[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, height], [0, 0, 0, 1]], dtype=np.float32)
        np.testing.assert_array_equal(camera.ref2cam[0, 0].numpy(), want)
        np.testing.assert_array_equal(camera.K[0, 0].numpy(), [[400, 0, cx], [0, 400, 200], [0, 0, 1]])

    @pytest.mark.parametrize('height', [None, 25.0])
    def test_ground_plane_fills_the_image_of_any_grid(self, height):
        grid = dict(OCC3D, point_cloud_range=(-10, -4, -1, 30, 12, 5.4), shape=(100, 40, 16))
        camera = bird_eye_camera(grid, size=200, height=height)
        assert (camera.width, camera.height) == (200, 80)
        for (x, y), pixel in {(-10, 12): (0, 0), (30, -4): (200, 80), (0, 0): (50, 60)}.items():
            point = camera.ref2cam[0, 0].numpy() @ [x, y, 0, 1]
            u, v, w = camera.K[0, 0].numpy() @ point[:3]
            np.testing.assert_allclose((u / w, v / w), pixel, atol=1e-4)

    def test_errors(self):
        with pytest.raises(ValueError, match=r'camera at 3.0 m is not above the grid, which ends at 5.4 m; set bev.height'):
            bird_eye_camera(OCC3D, height=3)
        with pytest.raises(ValueError, match='bev.size must be a positive number of pixels'):
            bird_eye_camera(OCC3D, size=0)


class TestCameraBatch:
    def test_select_and_reduce(self, rig):
        batch = CameraBatch(*rig, 801, 601)
        assert (batch.batch_size, batch.num_cameras) == (2, 3)
        chosen = batch.select([2, 0, 2])
        np.testing.assert_array_equal(chosen.ref2cam.numpy(), rig[0].numpy()[:, [2, 0, 2]])
        small = chosen.reduced(4)
        assert (small.width, small.height) == (200, 150)
        np.testing.assert_allclose(small.K[1, 1].numpy(), [[125, 0, 100], [0, 127.5, 75], [0, 0, 1]])
        assert float(batch.K[0, 0, 0, 0]) == 500, 'reducing must not change the batch itself'
        assert batch.to(torch.float64).K.dtype == torch.float64
        with pytest.raises(ValueError, match=r'camera indices must lie in 0..2 .*got \[3\]'):
            batch.select([3])

    @pytest.mark.parametrize(
        'change, message',
        [
            (lambda e, k: (e[0], k, 8, 6), r'ref2cam must be \(B, N, 4, 4\) with N >= 1, got \(3, 4, 4\)'),
            (lambda e, k: (e, k[:, :2], 8, 6), r'K must be \(B, N, 3, 3\).*\(2, 3, 3, 3\), got \(2, 2, 3, 3\)'),
            (lambda e, k: (e, k.long(), 8, 6), 'must be floating point, got torch.float32 and torch.int64'),
            (lambda e, k: (e, k, 0, 6), r'width and height must be positive numbers of pixels, got \(0, 6\)'),
            (lambda e, k: (e * float('nan'), k, 8, 6), 'ref2cam and K must be finite'),
            (lambda e, k: (e, -k, 8, 6), 'K must have positive focal lengths'),
            (lambda e, k: (e, k / 2, 8, 6), 'K must be .* its last row is scaled'),
            (lambda e, k: (e, k + torch.eye(3).roll(1, 1).triu(), 8, 6), 'skew cannot be rendered'),
        ],
    )
    def test_validation(self, rig, change, message):
        with pytest.raises(ValueError, match=message):
            CameraBatch(*change(*rig))
