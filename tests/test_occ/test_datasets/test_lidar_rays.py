import numpy as np
import pytest

from projects.occ.datasets.lidar_rays import (
    draw_rays,
    dynamic_ids,
    last_label_of_pixel,
    log_class_balance,
    log_ray_weights,
    pixel_rays,
    project_points,
    published_counts,
    ray_file,
    read_ray_files,
    write_ray_rows,
)
from projects.occ.structures.benchmarks import BENCHMARKS

OCC3D = BENCHMARKS['occ3d'].grid


@pytest.fixture(scope='module')
def golden(golden_dir):
    return np.load(golden_dir / 'rendering_supervision_small.npz')


def pose(x, y, yaw):
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    matrix[:2, 3] = x, y
    return matrix


@pytest.mark.parametrize('frame', ['key', 'adj'])
def test_rays_of_pixels_agree_with_the_formulas(golden, frame):
    key, own = golden['rays/ego2global_key'], golden[f'rays/ego2global_{frame}']
    cam2ref = np.linalg.inv(key) @ own @ golden['rays/cam2ego']
    np.testing.assert_allclose(cam2ref, golden[f'rays/{frame}/cam2key'], rtol=1e-9, atol=1e-9)
    origin, direction, depth_per_range = pixel_rays(
        golden['rays/uv_int'] + 0.5, np.zeros(len(golden['rays/uv_int']), int), golden['rays/K'][None], cam2ref[None]
    )
    np.testing.assert_allclose(origin, golden[f'rays/{frame}/o'], rtol=1e-9)
    np.testing.assert_allclose(direction, golden[f'rays/{frame}/viewdir'], rtol=1e-9)
    distance = golden['rays/depth_z'] / depth_per_range
    np.testing.assert_allclose(distance, golden[f'rays/{frame}/range'], rtol=1e-9)
    np.testing.assert_allclose(origin + direction * distance[:, None], golden[f'rays/{frame}/hit_xyz'], rtol=1e-9, atol=1e-9)


def test_weights_agree_with_the_formulas(golden):
    counts = golden['wrs/class_counts']
    assert np.array_equal(published_counts(OCC3D)[:17], counts) and dynamic_ids(OCC3D) == tuple(golden['wrs/dynamic_fixed'])
    balance = log_class_balance(counts, float(golden['wrs/lambda_s']))
    np.testing.assert_allclose(np.exp(balance), golden['wrs/Wb'], rtol=1e-9)
    labels, neighbour = golden['wrs/labels'], golden['wrs/time_ids'] != 0
    for which in ('compat', 'fixed'):
        weights = np.exp(log_ray_weights(labels, neighbour, balance, golden[f'wrs/dynamic_{which}']))
        np.testing.assert_allclose(weights, golden[f'wrs/W_{which}'], rtol=1e-9)
        np.testing.assert_allclose(weights / weights.sum(), golden[f'wrs/p_first_draw_{which}'], rtol=1e-9)
    in_sample = log_class_balance(golden['wrs/batch_counts'], float(golden['wrs/lambda_s']))
    there = golden['wrs/batch_counts'] > 0
    np.testing.assert_allclose(np.exp(in_sample)[there], golden['wrs/Wb_batch'][there], rtol=1e-9)


def test_class_balance_of_nuscenes_is_that_of_the_table():
    # RenderOcc's equation 10 for the points of nuScenes, class by class
    expected = (
        '1.3973 1.1365 933.33 1.2505 1.0254 1.8349 14.2227 1.5039 5.2462 1.2162 1.0659 1.0001 1.1619 1.0127 1.0116 1 1.0024'
    )
    balance = np.exp(log_class_balance(published_counts(OCC3D)))[:17]
    np.testing.assert_allclose(balance, [float(number) for number in expected.split()], atol=5e-5, rtol=5e-6)
    # by name: the other benchmark has no "others"
    other = np.exp(log_class_balance(published_counts(BENCHMARKS['surroundocc'].grid)))
    np.testing.assert_allclose(other[1:], balance[1:])
    assert other[0] == 1
    with pytest.raises(ValueError, match='bicycle|LoadLidarRays.class_counts'):
        published_counts(BENCHMARKS['sscbench-kitti360'].grid)
    # one point of a class among a million: no overflow
    assert np.isfinite(log_class_balance(np.array([1.0, 1e9]))).all()


def test_uniocc_draws_static_classes_of_all_frames_alike():
    labels, neighbour = np.array([2, 2, 11, 11, 255, 255]), np.array([False, True] * 3)
    weights = np.exp(log_ray_weights(labels, neighbour, np.zeros(18), dynamic_ids(OCC3D), neighbour_weight=1.0))
    assert weights.tolist() == [1, 0, 1, 1, 1, 1]


def test_draws_have_no_duplicates_and_follow_the_weights():
    np.random.seed(0)  # noqa: NPY002
    weights = np.log([1.0, 2.0, 4.0, 0.0 + 1e-300, 8.0])
    weights[3] = -np.inf
    first = np.zeros(5)
    for _ in range(20000):
        drawn = draw_rays(weights, 1)
        first[drawn] += 1
    assert first[3] == 0
    np.testing.assert_allclose(first / 20000, np.array([1, 2, 4, 0, 8]) / 15, atol=0.012)
    pairs = np.zeros((5, 5))
    for _ in range(20000):
        drawn = draw_rays(weights, 2)
        assert len(set(drawn.tolist())) == 2
        pairs[tuple(drawn)] += 1
    # without replacement: p(0, 1) = 1/15 * 2/14 + 2/15 * 1/13
    assert abs(pairs[0, 1] / 20000 - (1 / 15 * 2 / 14 + 2 / 15 * 1 / 13)) < 0.004
    # fewer than asked: all that can be drawn
    assert draw_rays(weights, 10).tolist() == [0, 1, 2, 4] == draw_rays(weights, 4).tolist()
    assert len(draw_rays(np.zeros(0), 3)) == 0


def test_a_rare_class_dominates_the_draw():
    np.random.seed(1)  # noqa: NPY002
    labels = np.repeat([11, 2], [5000, 100])
    weights = log_ray_weights(labels, np.zeros(5100, bool), log_class_balance(published_counts(OCC3D)), ())
    drawn = draw_rays(weights, 200)
    assert (labels[drawn] == 2).sum() >= 95


def test_projection_keeps_what_is_in_front_and_inside():
    cam2img = np.array([[10.0, 0, 12], [0, 10, 8], [0, 0, 1]])
    points = np.array(
        [[0, 0, 5, 9], [0, 0, -5, 9], [5.5, 0, 5, 9], [5.6, 0, 5, 9], [0, 0, 0.5, 9], [np.nan, 0, 5, 9]], dtype=np.float32
    )
    other = np.diag([-1.0, 1, -1, 1])
    found = project_points(points, np.stack([np.eye(4), other]), np.stack([cam2img] * 2), np.array([[24, 16]] * 2), 1.0)
    # u = 12 + 10 * 5.5 / 5 = 23, on the margin of one pixel, is out
    assert found.camera.tolist() == [0, 1] and found.point.tolist() == [0, 1]
    assert found.uv.tolist() == [[12, 8], [12, 8]] and found.depth.tolist() == [5, 5]
    assert len(project_points(points, np.eye(4)[None], cam2img[None], np.array([[24, 16]])).depth) == 2
    assert project_points(points[:0], np.eye(4)[None], cam2img[None], np.array([[24, 16]])).uv.shape == (0, 2)


def test_a_world_point_is_the_end_of_rays_of_two_frames():
    world = np.array([12.0, 3.0, 1.0, 1.0])
    forward = np.array([[0.0, -1, 0, 0], [0, 0, -1, 1.5], [1, 0, 0, -1.7], [0, 0, 0, 1]])
    cam2img = np.array([[800.0, 0, 800], [0, 800, 450], [0, 0, 1]])
    key = pose(100, 50, 0.7)
    ends = []
    for offset in range(2):
        lidar2global = key @ pose(1.5 * offset, 0.1, 0.05 * offset)
        # the vehicle has moved on until the image is taken
        lidar2cam = forward @ np.linalg.inv(pose(0.3, 0.01, 0.02))
        in_lidar = np.linalg.inv(lidar2global) @ key @ world
        found = project_points(in_lidar[None, :3], lidar2cam[None], cam2img[None], np.array([[1600, 900]]))
        cam2ref = np.linalg.inv(key) @ lidar2global @ np.linalg.inv(lidar2cam)
        origin, direction, depth_per_range = pixel_rays(found.uv, found.camera, cam2img[None], cam2ref[None])
        ends.append(origin + direction * (found.depth / depth_per_range)[:, None])
        assert np.linalg.norm(direction) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(ends[0][0], world[:3], atol=1e-9)
    np.testing.assert_allclose(ends[1][0], world[:3], atol=1e-9)


def test_last_point_of_a_pixel_gives_its_class():
    uv = np.array([[3.2, 4.9], [3.9, 4.1], [4.0, 4.0], [3.5, 4.5]])
    assert last_label_of_pixel(uv, np.array([1, 2, 3, 4])).tolist() == [4, 4, 3, 4]


def test_files_of_rays(tmp_path):
    uv, depth, classes = np.array([[1.25, 7.5], [900.125, 3.0]]), np.array([4.5, 33.25]), np.array([0, 16])
    paths = [ray_file(str(tmp_path / name), 'samples/CAM_FRONT/x.jpg') for name in ('depth', 'classes')]
    assert paths[0].endswith('depth/x.jpg.bin')
    write_ray_rows(paths[0], uv, depth)
    write_ray_rows(paths[1], uv, classes)
    read = read_ray_files(*paths, 'x')
    assert np.array_equal(read[0], uv) and np.array_equal(read[1], depth) and np.array_equal(read[2], classes)
    assert read_ray_files(paths[0], None, 'x')[2] is None
    write_ray_rows(paths[1], uv[:1], classes[:1])
    with pytest.raises(ValueError, match='1 rows'):
        read_ray_files(*paths, 'x')
    write_ray_rows(paths[1], uv, np.array([0, 17]))
    with pytest.raises(ValueError, match=r'class 17\.0'):
        read_ray_files(*paths, 'x')
    (tmp_path / 'depth' / 'x.jpg.bin').write_bytes(b'12345')
    with pytest.raises(ValueError, match='has 5 bytes'):
        read_ray_files(*paths, 'x')
    with pytest.raises(FileNotFoundError, match='lidar-rays'):
        read_ray_files(str(tmp_path / 'no.bin'), None, 'x')
