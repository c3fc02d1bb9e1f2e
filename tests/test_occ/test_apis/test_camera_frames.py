"""Frames given by hand: what is read, and one sentence for everything that can be wrong."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from projects.occ.apis.camera_frames import CameraFrame, read_frames
from projects.occ.image_files import decode_image

K = np.array([[100.0, 0, 50], [0, 100, 30], [0, 0, 1]])


def pose(x=0.0, angle=0.3):
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    matrix[0, 3] = x
    return matrix


def frame(**changes):
    fields = dict(
        images=[np.zeros((60, 100, 3), np.uint8)] * 2, cam2img=np.stack([K, K]), cam2ref=np.stack([pose(), pose(2.0)])
    )
    fields.update(changes)
    return {key: value for key, value in fields.items() if value is not None}


def test_arrays():
    parsed = CameraFrame.parse(frame(token='a', cam_names=['left', 'right'], depth=np.ones((2, 60, 100))))
    assert parsed.token == 'a' and parsed.cam_names == ['left', 'right'] and not parsed.from_files
    np.testing.assert_allclose(parsed.ref2cam @ frame()['cam2ref'], np.tile(np.eye(4), (2, 1, 1)), atol=1e-12)
    assert parsed.depth[0].shape == (60, 100) and parsed.depth[0].dtype == np.float32
    other = CameraFrame.parse(frame(cam2ref=None, ref2cam=parsed.ref2cam), index=3)
    np.testing.assert_array_equal(other.ref2cam, parsed.ref2cam)
    assert other.token == 'frame_000003' and other.cam_names == ['camera_0', 'camera_1'] and other.depth is None


def write(folder, content):
    for name in ('a.jpg', 'b.jpg'):
        (folder / name).write_bytes(b'')
    path = folder / 'frames.json'
    path.write_text(json.dumps(content))
    return path


def as_json(**changes):
    fields = frame(images=['a.jpg', 'b.jpg'], **changes)
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in fields.items()}


def test_json(tmp_path):
    np.save(tmp_path / 'd.npy', np.ones((6, 10), np.float32))
    content = {'frames': [as_json(token='x', depth=['d.npy', 'd.npy']), as_json()]}
    first, second = read_frames(write(tmp_path, content))
    assert first.images == [str(tmp_path / 'a.jpg'), str(tmp_path / 'b.jpg')] and first.from_files
    assert first.depth[1].sum() == 60 and second.token == 'frame_000001'
    assert [one.token for one in read_frames(write(tmp_path, as_json(token='y')))] == ['y']
    assert len(read_frames(write(tmp_path, [as_json(), as_json()]))) == 2


SINGULAR = np.stack([pose(), np.diag([1.0, 1, 0, 1])])
NOT_FINITE = np.stack([K, K * np.nan])


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(cam2imgs=1), "frame 'x': unknown key 'cam2imgs'; did you mean 'cam2img'"),
        (dict(zzz=1), "unknown key 'zzz', known are"),
        (dict(cam2img=None), "the key 'cam2img' is missing"),
        (dict(cam2ref=None), 'give either cam2ref .* or ref2cam, one of the two'),
        (dict(ref2cam=np.stack([pose()] * 2)), 'give either cam2ref .* or ref2cam, one of the two'),
        (dict(cam2img=K[None]), 'cam2img: 2 images, but 1 matrices; give one per camera in the same order'),
        (dict(cam2ref=np.stack([pose()] * 3)), 'cam2ref: 2 images, but 3 matrices'),
        (dict(cam2img=np.zeros((2, 4, 4))), r'cam2img must have the shape \(2, 3, 3\), one matrix per image, got \(2, 4, 4\)'),
        (dict(cam2ref=[[1, 2], [3]]), 'cam2ref must be 2 matrices of 4 x 4 numbers'),
        (dict(cam2img=NOT_FINITE), 'cam2img holds NaN or infinite numbers'),
        (dict(cam2img=-np.stack([K, K])), 'positive fx, fy'),
        (dict(cam2ref=SINGULAR), 'cam2ref: matrix 1 is no rigid transform'),
        (dict(cam2ref=np.stack([pose(), pose().T @ pose(3.0).T])), 'matrix 1 is no rigid transform'),
        (dict(images=[]), 'images must be a list with one entry per camera'),
        (dict(images=['a.jpg', np.zeros((2, 2, 3))]), 'images must be all paths or all arrays'),
        (dict(images=['none.jpg', 'a.jpg']), "image 'none.jpg' does not exist"),
        (
            dict(images=[np.zeros((60, 100))] * 2),
            r'image 0 must be an array \(H, W, 3\) in 0..255, BGR, got float64 \(60, 100\)',
        ),
        (dict(cam_names=['a', 'a']), 'cam_names must be 2 different names'),
        (dict(depth=[np.ones((60, 100))]), '2 images, but 1 depth maps'),
        (dict(depth=['none.npy', 'none.npy']), "depth of camera_0: 'none.npy' does not exist"),
        (dict(depth=[-np.ones((60, 100))] * 2), r'depth of camera_0 must be an array \(H, W\) of finite metres'),
        *((dict(token=token), f'must be a relative path .*got {token!r}') for token in ('', '.', '../x', 'a/../x', '/tmp/x')),
    ],
)
def test_bad_frames(changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        CameraFrame.parse(frame(**{'token': 'x', **changes}))


def test_a_token_of_null_is_left_out():
    assert CameraFrame.parse(dict(frame(), token=None), index=2).token == 'frame_000002'
    assert CameraFrame.parse(frame(token=7)).token == '7'


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match='input file .* does not exist'):
        read_frames(tmp_path / 'absent.json')
    (tmp_path / 'text.json').write_text('{hello')
    with pytest.raises(ValueError, match='text.json: not a JSON file'):
        read_frames(tmp_path / 'text.json')
    for content, message in (
        ({'frames': []}, 'no frame'),
        ({'frames': [as_json()], 'other': 1}, r'beside "frames" there must be no other key, got \[\'other\'\]'),
        ([as_json(token='a'), as_json(token='a')], "several frames have the token 'a'"),
        ([as_json(token='a'), as_json(token='./a')], "must be a relative path .*got './a'"),
        ([as_json(), as_json(token='../x')], "must be a relative path .*got '../x'"),
        ([3], 'frame 0: expected a dict with the keys'),
    ):
        with pytest.raises(ValueError, match=message):
            read_frames(write(tmp_path, content))


def test_the_example_of_the_documents(tmp_path, repo_root):
    text = (repo_root / 'docs' / 'inference.md').read_text()
    content = json.loads(text.split('```json')[1].split('```')[0])
    for name in content['images']:
        (tmp_path / name).write_bytes(b'')
    (tmp_path / 'frames.json').write_text(json.dumps(content))
    (example,) = read_frames(tmp_path / 'frames.json')
    assert example.token == 'drive-07/000123'
    # ten metres ahead of the front camera lie on its optical axis
    np.testing.assert_allclose(example.ref2cam[0] @ [11.7, 0.02, 1.51, 1], [0, 0, 10, 1], atol=1e-9)


@pytest.mark.parametrize(
    ('image', 'told'),
    [
        (np.full((60, 100, 3), 0.5, np.float32), '0..1'),
        (np.full((60, 100, 3), 4000, np.uint16), '4000'),
        (np.full((60, 100, 3), np.nan), 'nan'),
        (np.full((60, 100, 3), -2.1, np.float32), '-2.1'),
    ],
)
def test_pixels_of_another_range_are_refused(image, told):
    with pytest.raises(ValueError, match=told):
        CameraFrame.parse(frame(images=[image] * 2))


def test_pixels_in_range_pass_and_pil_images_are_refused():
    for dtype in (np.uint8, np.uint16, np.float32):
        assert len(CameraFrame.parse(frame(images=[np.full((60, 100, 3), 200, dtype)] * 2)).images) == 2
    with pytest.raises(ValueError, match='PIL.*RGB'):
        CameraFrame.parse(frame(images=[Image.new('RGB', (100, 60))] * 2))


@pytest.mark.parametrize(
    'text',
    [
        '[' * 100_000,
        '{"a":' * 100_000,
        '9' * 10_000,
        '{"images": ["a"], "cam2img": ' + '[' * 400 + ']' * 400 + '}',
        json.dumps([[1], [2]]),
        '\ufeff{}',
        '{"token": {"a": 1}}',
        '{"token": "a\\u0000b"}',
        '{"token": "\\ud800"}',
    ],
)
def test_hostile_files_are_one_sentence(tmp_path, text):
    (tmp_path / 'frames.json').write_text(text)
    with pytest.raises(ValueError):
        read_frames(tmp_path / 'frames.json')


@pytest.mark.parametrize(
    'changes',
    [
        dict(cam2img=[[[10**400, 0, 1], [0, 1, 1], [0, 0, 1]]]),
        dict(cam2img=[[[10**400]]]),
        dict(cam_names=5),
        dict(cam_names=[['a']]),
        dict(cam_names=[5]),
        dict(cam_names='a'),
        dict(depth=[[[1.0], [1.0, 2.0]]]),
        dict(depth=[[[10**400]]]),
        dict(depth=['cut.npy']),
        dict(images=['x' * 300]),
        dict(images=['a\0b']),
        dict(images=['loop']),
        dict(images=[[[1], [1, 2]]]),
        dict(token='x' * 300),
        dict(token='x/..'),
        dict(token=['a']),
    ],
)
def test_hostile_values_are_one_sentence(tmp_path, changes):
    (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
    (tmp_path / 'image.png').write_bytes(b'x')
    np.save(tmp_path / 'cut.npy', np.ones((4, 4)))
    (tmp_path / 'cut.npy').write_bytes((tmp_path / 'cut.npy').read_bytes()[:-9])
    good = dict(images=['image.png'], cam2img=[np.eye(3).tolist()], ref2cam=[np.eye(4).tolist()])
    CameraFrame.parse(good, tmp_path)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        CameraFrame.parse(dict(good, **changes), tmp_path)
    assert len(str(caught.value)) < 1000 and 'projects' in str(caught.traceback[-1].path)


def test_extrinsics_the_wrong_way_round_are_named():
    ahead = np.array([[0.0, -1, 0, 0], [0, 0, -1, 1.5], [1, 0, 0, -0.5], [0, 0, 0, 1]])
    left = np.array([[1.0, 0, 0, 0], [0, 0, -1, 1.5], [0, 1, 0, -0.5], [0, 0, 0, 1]])
    ref2cam = np.stack([ahead, left])
    parsed = CameraFrame.parse(frame(cam2ref=np.linalg.inv(ref2cam)))
    np.testing.assert_allclose(parsed.ref2cam, ref2cam, atol=1e-12)
    with pytest.raises(ValueError, match='cam2ref is inverted.*belong under ref2cam'):
        CameraFrame.parse(frame(cam2ref=ref2cam))
    with pytest.raises(ValueError, match='ref2cam is inverted.*belong under cam2ref'):
        CameraFrame.parse(frame(cam2ref=None, ref2cam=np.linalg.inv(ref2cam)))


@pytest.mark.parametrize('value', [4000, 60000])
def test_images_of_more_than_eight_bits_are_refused_as_files_and_as_arrays(tmp_path, value):
    # 12 bits are stored in 16
    cv2.imwrite(str(tmp_path / 'deep.png'), np.full((60, 100, 3), value, np.uint16))
    with pytest.raises(ValueError, match='more than 8 bits'):
        decode_image((tmp_path / 'deep.png').read_bytes())
    with pytest.raises(ValueError, match=r'0\.\.255'):
        CameraFrame.parse(frame(images=[np.full((60, 100, 3), value, np.uint16)] * 2))
