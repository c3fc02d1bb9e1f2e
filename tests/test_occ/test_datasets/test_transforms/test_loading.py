import cv2
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
