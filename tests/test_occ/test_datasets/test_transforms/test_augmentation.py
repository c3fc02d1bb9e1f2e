import random

import cv2
import numpy as np
import pytest
from mmdet.datasets.transforms import PhotoMetricDistortion

from projects.occ.datasets import MultiViewPhotoMetricDistortion, ResizeCropFlipImages

WIDTH, HEIGHT = 320, 180


def _scene():
    """Three cameras that look at a coloured blob each: 3D points, their pixels and the images."""
    rng = np.random.default_rng(1)
    ref2img, images, points = [], [], []
    for view in range(3):
        angle = view * 2.0
        rotation = np.array([[np.sin(angle), -np.cos(angle), 0], [0, 0, -1], [np.cos(angle), np.sin(angle), 0]])
        ref2cam = np.eye(4)
        ref2cam[:3, :3], ref2cam[:3, 3] = rotation, rng.normal(0, 0.2, 3)
        intrinsics = np.array([[250.0, 0, 161.3], [0, 252.0, 92.1], [0, 0, 1]])
        target = rng.uniform([110, 80], [210, 110])
        depth = rng.uniform(5, 20)
        in_camera = np.linalg.inv(intrinsics) @ np.array([*target, 1.0]) * depth
        points.append(np.linalg.inv(ref2cam) @ np.array([*in_camera, 1.0]))
        matrix = ref2cam.copy()
        matrix[:3] = intrinsics @ ref2cam[:3]
        ref2img.append(matrix)
        u, v = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
        blob = np.exp(-((u - target[0]) ** 2 + (v - target[1]) ** 2) / (2 * 6.0**2))
        images.append((blob[..., None] * 250).astype(np.uint8).repeat(3, axis=2))
    sizes = np.tile([float(WIDTH), HEIGHT], (3, 1))
    cam2img = np.tile(intrinsics, (3, 1, 1))
    results = dict(img=images, ref2img=np.stack(ref2img), img_wh=sizes, ori_img_wh=sizes.copy(), cam2img=cam2img)
    results.update(warp=np.tile(np.eye(3), (3, 1, 1)), cam_names=['a', 'b', 'c'])
    return results, np.stack(points)


def _project(matrix, point):
    u, v, depth, _ = matrix @ point
    return np.array([u / depth, v / depth]), depth


def _blob_centre(image):
    weight = image[..., 0].astype(np.float64)
    u, v = np.meshgrid(np.arange(image.shape[1]) + 0.5, np.arange(image.shape[0]) + 0.5)
    return np.array([(u * weight).sum(), (v * weight).sum()]) / weight.sum()


def test_the_test_scene_is_consistent():
    results, points = _scene()
    for image, matrix, point in zip(results['img'], results['ref2img'], points):
        assert np.abs(_blob_centre(image) - _project(matrix, point)[0]).max() < 0.1


@pytest.mark.parametrize('seed', range(6))
@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
@pytest.mark.parametrize(
    'settings',
    [
        dict(final_wh=(320, 176), training=True),
        dict(final_wh=(160, 96), training=True, resize_lim=(0.45, 0.62)),
        dict(final_wh=(320, 160), training=True, resize_lim=(1.0, 1.4), bot_pct_lim=(0.0, 0.1)),
        dict(final_wh=(320, 176), training=True, rand_flip=True),
        dict(final_wh=(240, 136), training=True, resize_lim=(0.7, 0.8), rot_lim=(-12, 12), rand_flip=True),
        dict(final_wh=(200, 112), training=False, resize_lim=(0.5, 0.7), bot_pct_lim=(0.0, 0.05), rand_flip=True),
    ],
)
def test_pixels_and_matrices_move_together(settings, dtype, seed):
    """A 3D point is seen where the image shows it, after the transform as before."""
    random.seed(seed)
    before, points = _scene()
    results, _ = _scene()
    results['img'] = [image.astype(dtype) for image in results['img']]
    results = ResizeCropFlipImages(**settings)(results)
    for view, (image, matrix, point) in enumerate(zip(results['img'], results['ref2img'], points)):
        assert image.shape == (settings['final_wh'][1], settings['final_wh'][0], 3) and image.dtype == dtype
        pixel, depth = _project(matrix, point)
        assert depth == pytest.approx(_project(before['ref2img'][view], point)[1])
        assert np.array_equal(matrix[3], [0, 0, 0, 1])
        assert np.abs(_blob_centre(image) - pixel).max() < 0.25
        # what moved the matrix is the warp from original pixels to these
        expected = results['warp'][view] @ before['ref2img'][view][:3]
        np.testing.assert_allclose(matrix[:3], expected, rtol=1e-12, atol=1e-9)
    assert results['img_wh'].tolist() == [list(settings['final_wh'])] * 3
    # the renderer's cameras are those of the original image
    assert np.array_equal(results['cam2img'], before['cam2img'])
    assert np.array_equal(results['ori_img_wh'], before['ori_img_wh'])


def test_shipped_settings_drop_four_top_rows_and_nothing_else():
    image = np.random.default_rng(0).integers(0, 256, (900, 1600, 3), dtype=np.uint8)
    for training in (True, False):
        results = dict(img=[image.copy()], ref2img=np.eye(4)[None], img_wh=np.array([[1600.0, 900.0]]))
        results = ResizeCropFlipImages(final_wh=(1600, 896), training=training)(results)
        assert np.array_equal(results['img'][0], image[4:])
        expected = np.eye(4)
        expected[1, 2] = -4  # multiplies the depth: homogeneous pixels
        np.testing.assert_allclose(results['ref2img'][0], expected)


def test_testing_is_deterministic_and_centred():
    results, _ = _scene()
    transform = ResizeCropFlipImages(final_wh=(150, 90), training=False, bot_pct_lim=(0.0, 0.2), rand_flip=True)
    first, second = transform(dict(results, img=list(results['img']))), transform(dict(results, img=list(results['img'])))
    assert np.array_equal(first['ref2img'], second['ref2img'])
    # r = max(90/180, 150/320) = 0.5; x = (160 - 150) / 2; y = int(0.9 * 90) - 90
    move = np.diag([0.5, 0.5, 1.0, 1.0])
    move[0, 2], move[1, 2] = -5, 9
    np.testing.assert_allclose(first['ref2img'][0], move @ results['ref2img'][0])


def test_training_draws_once_per_frame_and_covers_the_limits():
    random.seed(0)
    transform = ResizeCropFlipImages(final_wh=(160, 90), training=True, resize_lim=(0.5, 0.9), rand_flip=True)
    scales, flips = [], []
    for _ in range(40):
        results, _ = _scene()
        before = results['ref2img'].copy()
        results = transform(results)
        ratio = np.array([after @ np.linalg.inv(old) for after, old in zip(results['ref2img'], before)])
        np.testing.assert_allclose(ratio, np.tile(ratio[0], (3, 1, 1)), atol=1e-9)
        scales.append(ratio[0, 1, 1])
        flips.append(ratio[0, 0, 0] < 0)
    assert 0.49 < min(scales) < 0.55 and 0.85 < max(scales) <= 0.9 and 8 < sum(flips) < 32


def test_warps_of_several_steps_multiply():
    random.seed(3)
    results, points = _scene()
    before = results['ref2img'].copy()
    for settings in (
        dict(final_wh=(300, 170), training=True, resize_lim=(0.95, 1.1), rand_flip=True, rot_lim=(-5, 5)),
        dict(final_wh=(150, 80), training=False),
        dict(final_wh=(140, 70), training=True, rand_flip=True),
    ):
        results = ResizeCropFlipImages(**settings)(results)
    np.testing.assert_allclose(results['warp'] @ before[:, :3], results['ref2img'][:, :3], rtol=1e-11, atol=1e-8)
    for image, matrix, point in zip(results['img'], results['ref2img'], points):
        assert np.abs(_blob_centre(image) - _project(matrix, point)[0]).max() < 0.5


def test_each_camera_draws_for_its_images_of_all_frames():
    random.seed(0)
    transform = ResizeCropFlipImages(final_wh=(160, 90), training=True, resize_lim=(0.5, 0.9), per_camera=True)
    results, points = _scene()
    results.update(img=results['img'] * 2, ref2img=np.tile(results['ref2img'], (2, 1, 1)), cam_names=['a', 'b', 'c'] * 2)
    results['warp'] = np.tile(np.eye(3), (6, 1, 1))
    results = transform(results)
    assert np.array_equal(results['warp'][:3], results['warp'][3:])
    assert len({warp.tobytes() for warp in results['warp']}) == 3
    for image, matrix, point in zip(results['img'], results['ref2img'], np.concatenate([points, points])):
        pixel, _ = _project(matrix, point)
        if (pixel > 20).all() and (pixel < (140, 70)).all():
            assert np.abs(_blob_centre(image) - pixel).max() < 0.25


@pytest.mark.parametrize('training', [False, True])
def test_cameras_of_different_sizes_get_one_size(training):
    random.seed(4)
    results, points = _scene()
    before = results['ref2img'].copy()
    # the second camera has half as many pixels, the third is cut to a square
    results['img'][1] = cv2.resize(results['img'][1], (WIDTH // 2, HEIGHT // 2), interpolation=cv2.INTER_AREA)
    before[1, :2] /= 2
    results['img'][2] = np.ascontiguousarray(results['img'][2][:, 70:250])
    before[2, 0] -= 70 * before[2, 2]
    results['ref2img'] = before.copy()
    transform = ResizeCropFlipImages(
        final_wh=(160, 88), training=training, resize_lim=(1.0, 1.2), rand_flip=True, relative=True, bot_pct_lim=(0.1, 0.1)
    )
    results = transform(results)
    assert {image.shape for image in results['img']} == {(88, 160, 3)}
    np.testing.assert_allclose(results['warp'] @ before[:, :3], results['ref2img'][:, :3], rtol=1e-12, atol=1e-9)
    for view, (image, matrix, point) in enumerate(zip(results['img'], results['ref2img'], points)):
        pixel, _ = _project(matrix, point)
        if (pixel > 20).all() and (pixel < (140, 68)).all():
            assert np.abs(_blob_centre(image) - pixel).max() < 0.5
        # at least the covering factor, at most 1.2 times that
        size = ((WIDTH, HEIGHT), (WIDTH // 2, HEIGHT // 2), (180, HEIGHT))[view]
        covering = max(160 / size[0], 88 / size[1])
        assert covering * 0.99 <= results['warp'][view][1, 1] <= covering * 1.21


@pytest.mark.parametrize('size', [(800, 450), (1600, 900), (3200, 1800), (1280, 960)])
def test_training_sees_images_of_any_size_at_the_scale_of_testing(size):
    image = cv2.resize(np.random.default_rng(0).integers(60, 256, (9, 16, 3), dtype=np.uint8), size)
    seen = []
    for training in (True, False):
        random.seed(0)
        results = dict(img=[image.copy()], ref2img=np.eye(4)[None], cam_names=['a'], token='t')
        seen.append(ResizeCropFlipImages(final_wh=(1600, 896), training=training)(results))
    trained, tested = seen
    assert trained['ref2img'][0, 0, 0] == tested['ref2img'][0, 0, 0] == pytest.approx(1600 / size[0])
    assert np.array_equal(trained['img'][0], tested['img'][0]) and trained['img'][0].min() > 0


@pytest.mark.parametrize('odd', [(800, 450), (3200, 1800)])
def test_limits_for_another_size_of_image_are_refused_in_training(odd):
    images = [np.zeros((900, 1600, 3), np.uint8), np.zeros((odd[1], odd[0], 3), np.uint8)]
    settings = dict(final_wh=(704, 256), resize_lim=(0.38, 0.55))

    def results():
        return dict(img=list(images), ref2img=np.tile(np.eye(4), (2, 1, 1)), cam_names=['CAM_FRONT', 'CAM_ODD'], token='t1')

    with pytest.raises(ValueError, match=f'frame t1: .*CAM_ODD, {odd[0]} x {odd[1]}.*relative=True'):
        ResizeCropFlipImages(training=True, **settings)(results())
    ResizeCropFlipImages(training=False, **settings)(results())
    ResizeCropFlipImages(training=True, final_wh=(704, 256), resize_lim=(0.9, 1.2), relative=True)(results())


def test_resize_by_a_round_factor_keeps_the_round_size():
    image = np.zeros((900, 1600, 3), np.uint8)
    results = dict(img=[image], ref2img=np.eye(4)[None])
    results = ResizeCropFlipImages(final_wh=(704, 384), training=False, resize_lim=(0.44, 0.44))(results)
    assert results['img'][0].shape == (384, 704, 3)
    assert results['ref2img'][0][0, 0] == pytest.approx(704 / 1600)


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        (dict(final_wh=(0, 10)), r'final_wh must be \(width, height\) in pixels, got \(0, 10\)'),
        (dict(final_wh=(10, 10), resize_lim=(1.2, 1.0)), r'resize_lim must be \(smallest, largest\), got \(1\.2, 1\.0\)'),
        (dict(final_wh=(10, 10), resize_lim=(0.0, 1.0)), r'resize_lim must be positive'),
        (dict(final_wh=(10, 10), rot_lim=5.0), r'rot_lim must be \(smallest, largest\), got 5\.0'),
        (dict(final_wh=(10, 10), bot_pct_lim=(0, 2)), r'bot_pct_lim are shares of the height, .* got \(0, 2\)'),
        (dict(final_wh=(10, 10), bot_pct_lim=(-0.1, 0)), r'bot_pct_lim are shares of the height, .* got \(-0\.1, 0\)'),
    ],
)
def test_bad_settings_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        ResizeCropFlipImages(training=True, **settings)


@pytest.mark.parametrize(
    ('settings', 'text'),
    [
        (dict(brightness_delta=-3), r'brightness_delta must lie in 0\.\.255, got -3'),
        (dict(hue_delta=400), r'hue_delta must lie in 0\.\.360, got 400'),
        (dict(contrast_range=(1.5, 0.5)), r'contrast_range must be \(smallest, largest\) factor, got \(1\.5, 0\.5\)'),
        (dict(saturation_range=(-1, 1)), r'saturation_range must be \(smallest, largest\) factor, got \(-1, 1\)'),
        (dict(saturation_range=1.5), r'saturation_range must be \(smallest, largest\) factor, got 1\.5'),
    ],
)
def test_bad_settings_of_the_distortion_are_refused(settings, text):
    with pytest.raises(ValueError, match=f'MultiViewPhotoMetricDistortion.{text}'):
        MultiViewPhotoMetricDistortion(**settings)


def test_photometric_distortion_is_mmdets_with_draws_of_its_own_per_view():
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8), (32, 24))
    results = dict(img=[image.copy() for _ in range(4)])
    np.random.seed(3)  # noqa: NPY002 - the transform under test draws from numpy's global state
    out = MultiViewPhotoMetricDistortion()(results)['img']
    np.random.seed(3)  # noqa: NPY002
    single = PhotoMetricDistortion()
    for view in out:
        assert view.dtype == np.float32 and view.shape == image.shape
        np.testing.assert_array_equal(view, single({'img': image})['img'])
    assert max(np.abs(view - out[0]).max() for view in out[1:]) > 1


def test_photometric_distortion_moves_no_pixel_and_draws_anew_each_time():
    results, points = _scene()
    before = results['ref2img'].copy()
    transform = MultiViewPhotoMetricDistortion(hue_delta=0)
    different = set()
    for _ in range(8):
        out = transform(dict(results, img=list(results['img'])))
        different.add(float(np.abs(out['img'][0]).sum()))
        for image, matrix, point in zip(out['img'], out['ref2img'], points):
            peak = np.unravel_index(np.argmax(image.max(2)), image.shape[:2])[::-1]
            assert np.abs(np.array(peak) + 0.5 - _project(matrix, point)[0]).max() < 2
    assert np.array_equal(results['ref2img'], before)
    assert len(different) > 3
