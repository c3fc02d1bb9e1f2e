import cv2
import mmcv
import numpy as np
import pytest

from projects.occ.datasets import LoadMultiViewImages

SHAPE = (8, 8, 2)


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for name in ('A', 'B'):
        paths.append(str(tmp_path / f'{name}.jpg'))
        smooth = cv2.resize(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8), (48, 32), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(paths[-1], smooth)
    return dict(token='t0', cam_names=['CAM_A', 'CAM_B'], img_paths=paths)


@pytest.mark.parametrize('to_float32', [False, True])
def test_images_are_bgr_of_their_size(images, to_float32):
    results = LoadMultiViewImages(to_float32=to_float32)(dict(images))
    for image, path in zip(results['img'], images['img_paths']):
        assert image.dtype == (np.float32 if to_float32 else np.uint8)
        assert np.array_equal(image, cv2.imread(path))  # OpenCV's order is BGR
    assert results['img_wh'].tolist() == results['ori_img_wh'].tolist() == [[48, 32]] * 2


def test_decoders(images):
    pillow = LoadMultiViewImages(imdecode_backend='pillow')(dict(images))['img']
    for image, path in zip(pillow, images['img_paths']):
        # the two decoders round differently
        assert np.abs(image.astype(int) - cv2.imread(path)).mean() < 2
    for other in ('foo', 'turbojpeg', None):
        with pytest.raises(ValueError, match=rf"imdecode_backend must be one of \('cv2', 'pillow'\), got {other!r}"):
            LoadMultiViewImages(imdecode_backend=other)


def test_grey_images_get_three_channels(images):
    cv2.imwrite(images['img_paths'][0], np.full((32, 48), 7, np.uint8))
    assert LoadMultiViewImages()(images)['img'][0].shape == (32, 48, 3)


def test_missing_image_is_named_with_its_config_key(images):
    images['img_paths'][1] = images['img_paths'][1].replace('B.jpg', 'gone.jpg')
    with pytest.raises(
        FileNotFoundError, match=r"CAM_B, frame t0: '.*gone\.jpg' does not exist.*data_prefix\['img'\].*docs/datasets\.md"
    ):
        LoadMultiViewImages()(images)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_truncated_image_is_an_error_and_not_half_grey(images, tmp_path, suffix):
    data = cv2.imencode(suffix, cv2.imread(images['img_paths'][0]))[1].tobytes()
    (tmp_path / 'A.jpg').write_bytes(data)
    assert LoadMultiViewImages()(dict(images))['img'][0].shape == (32, 48, 3)
    (tmp_path / 'A.jpg').write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(ValueError, match=r"CAM_A, frame t0: '.*A\.jpg' \(\d+ bytes\) is not a complete image; copy it again"):
        LoadMultiViewImages()(images)


@pytest.mark.parametrize('data', [b'', b'no image at all'])
def test_damaged_image_is_an_error(images, tmp_path, data):
    (tmp_path / 'B.jpg').write_bytes(data)
    with pytest.raises(ValueError, match='is not a complete image'):
        LoadMultiViewImages()(images)


def test_the_warp_starts_as_identity_and_originals_are_kept(images):
    results = LoadMultiViewImages(keep_originals=True)(dict(images))
    assert np.array_equal(results['warp'], np.tile(np.eye(3), (2, 1, 1))) and results['warp'].dtype == np.float64
    for image, original in zip(results['img'], results['originals']):
        assert np.array_equal(image, original) and not np.shares_memory(image, original)
    assert 'originals' not in LoadMultiViewImages()(dict(images))


def test_images_in_memory_are_taken_as_they_are():
    arrays = [np.full((4, 6, 3), 7.4, np.float32), np.zeros((3, 5, 3), np.uint8)]
    results = LoadMultiViewImages(keep_originals=True)(dict(token='t0', cam_names=['a', 'b'], img=list(arrays)))
    assert all(one is other for one, other in zip(results['img'], arrays))
    assert results['ori_img_wh'].tolist() == [[6, 4], [5, 3]]
    assert results['originals'][0].dtype == np.uint8 and (results['originals'][0] == 7).all()
    with pytest.raises(ValueError, match=r'depth map of b has the shape \(4, 6\), its image \(3, 5\)'):
        depth = [np.zeros((4, 6), np.float32)] * 2
        LoadMultiViewImages()(dict(token='t0', cam_names=['a', 'b'], img=list(arrays), depth=depth))


def test_an_image_that_stands_in_is_decoded_once(images, monkeypatch):
    decoded = []
    real = mmcv.imfrombytes
    monkeypatch.setattr(mmcv, 'imfrombytes', lambda *args, **kwargs: decoded.append(1) or real(*args, **kwargs))
    twice = dict(images, img_paths=images['img_paths'] * 2, cam_names=images['cam_names'] * 2)
    found = LoadMultiViewImages()(twice)['img']
    assert len(found) == 4 and len(decoded) == 2
    assert np.array_equal(found[0], found[2]) and not np.shares_memory(found[0], found[2])


def test_images_resized_on_disk_are_refused(images):
    cam2img = np.array([[[40.0, 0, 24], [0, 40, 16], [0, 0, 1]]] * 2)
    images.update(cam2img=cam2img, cam2img_wh=np.array([[48, 32], [72, 48]]))
    with pytest.raises(ValueError, match=r"CAM_B, frame t0: '.*B\.jpg' has 48 x 32 pixels, .*for 72 x 48"):
        LoadMultiViewImages()(dict(images))
    # those given in memory too
    frames = LoadMultiViewImages()._load(images)
    with pytest.raises(ValueError, match='CAM_B, frame t0: .*48 x 32 pixels, .*for 72 x 48'):
        LoadMultiViewImages()({**images, 'img': frames})
    LoadMultiViewImages()(dict(images, cam2img_wh=np.array([[48, 32], [0, 0]])))


def test_intrinsics_of_larger_images_are_warned_of_once_where_no_size_is_known(images, monkeypatch):
    said = []
    monkeypatch.setattr('projects.occ.datasets.transforms.loading.print_log', lambda text, **_: said.append(text))
    cam2img = np.array([[[40.0, 0, 24 * 1.49], [0, 40, 16 * 1.49], [0, 0, 1]], [[40.0, 0, 24], [0, 40, 10], [0, 0, 1]]])
    loader = LoadMultiViewImages()
    for _ in range(2):
        loader(dict(images, cam2img=cam2img))
    assert len(said) == 1 and 'CAM_A' in said[0] and '(35.76, 23.84)' in said[0]
