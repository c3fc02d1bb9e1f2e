"""The DGP reader on the real sample: projection numbers of the published convention, and what damage is called."""

import json
import shutil

import cv2
import numpy as np
import pytest

from projects.occ.datasets.dgp_scenes import SceneReader, read_dgp_json, scene_files, stamp_seconds
from projects.occ.datasets.lidar_points import NUSCENES_POINT_DIMS, read_points
from projects.occ.datasets.transforms.lidar_pixels import finite_points, project_to_pixels

CAMERAS = ('CAMERA_01', 'CAMERA_05', 'CAMERA_07', 'CAMERA_09', 'CAMERA_08', 'CAMERA_06')
WH = (1936, 1216)
# distinct pixels; z mean, min and max of all points that fall into the image; points with calibration alone; points on the own
# car; how far the vehicle had moved since the LiDAR, metres
EXPECTED = {
    'CAMERA_01': (5157, 34.580, 5.129, 176.006, 5140, 0, -0.0480),
    'CAMERA_05': (11850, 20.298, 2.516, 115.853, 11905, 40, -0.0440),
    'CAMERA_07': (10668, 22.423, 2.560, 106.191, 10727, 381, -0.0417),
    'CAMERA_09': (9363, 29.636, 2.595, 229.934, 9426, 188, -0.0389),
    'CAMERA_08': (10069, 30.054, 2.492, 126.752, 10163, 362, -0.0404),
    'CAMERA_06': (11503, 23.353, 2.432, 126.473, 11559, 128, -0.0427),
}
POINTS = dict(zip(EXPECTED, (5160, 11917, 10723, 9398, 10136, 11570)))


@pytest.fixture(scope='module')
def root(shared_data):
    folder = shared_data / 'ddad_dgp_test_scene'
    if not folder.is_dir():
        pytest.skip(f'{folder} is missing')
    return folder


@pytest.fixture(scope='module')
def scene(root):
    path = str(root / 'scene_dataset_v1.0.json')
    return scene_files(read_dgp_json(path, 'data set'), 'train', path)[1]


@pytest.fixture(scope='module')
def frames(root, scene):
    return SceneReader(str(root), CAMERAS).read(scene)


def in_image(points, lidar2cam, cam2img):
    camera = points @ lidar2cam[:3, :3].T + lidar2cam[:3, 3]
    camera = camera[camera[:, 2] > 0]
    pixels = camera @ cam2img.T
    pixels = pixels[:, :2] / pixels[:, 2:]
    inside = ((pixels > -1) & (pixels < WH)).all(1)
    return np.trunc(pixels[inside]).astype(int), camera[inside, 2]


@pytest.mark.parametrize('name', CAMERAS)
def test_projection_of_the_real_sample(root, frames, name):
    frame = frames[0]
    camera = frame.cameras[name]
    points = finite_points(read_points(str(root / frame.lidar_path), NUSCENES_POINT_DIMS, 'sweep', 'copy it again'))
    assert len(points) == 47230
    distinct, mean, low, high, calibration_only, own_car, moved = EXPECTED[name]
    rows = project_to_pixels(points, camera.lidar2cam, camera.cam2img, WH)
    assert len(rows) == distinct
    pixels, depth = in_image(points, camera.lidar2cam, camera.cam2img)
    assert len(depth) == POINTS[name]
    assert (round(depth.mean(), 3), round(depth.min(), 3), round(depth.max(), 3)) == (mean, low, high)
    # as DGP writes the map: later points overwrite
    map_of_dgp = np.zeros(WH[::-1])
    map_of_dgp[pixels[:, 1], pixels[:, 0]] = depth
    ours = np.zeros(WH[::-1])
    ours[rows[:, 1].astype(int), rows[:, 0].astype(int)] = rows[:, 2]
    assert np.array_equal(ours, map_of_dgp)
    assert len(in_image(points, np.linalg.inv(camera.cam2ego) @ frame.lidar2ego, camera.cam2img)[1]) == calibration_only
    mask = cv2.imread(str(root / 'vidar_masks' / f'{name[-2:]}.png'), cv2.IMREAD_GRAYSCALE)
    assert (mask[rows[:, 1].astype(int), rows[:, 0].astype(int)] == 0).sum() == own_car
    motion = np.linalg.inv(frame.ego2global) @ camera.ego2global
    assert abs(motion[0, 3] - moved) < 1e-3


def test_frames_of_the_real_sample(frames):
    assert [frame.token for frame in frames] == [f'scene_02_{i:06d}' for i in range(3)]
    assert [frame.prev for frame in frames] == ['', *(frame.token for frame in frames[:2])]
    assert frames[0].next == frames[1].token and frames[2].next == ''
    steps = np.diff([frame.timestamp for frame in frames])
    assert ((steps > 0.09) & (steps < 0.11)).all()
    # the vehicle drives 1.27 m in 0.1 s, seen alike by all cameras
    for name in CAMERAS:
        back = np.linalg.inv(frames[0].cameras[name].ego2global) @ frames[1].cameras[name].ego2global
        assert abs(abs(back[0, 3]) - 1.27) < 0.03 and np.abs(back[1:3, 3]).max() < 0.1
    assert np.allclose(frames[0].lidar2ego, np.eye(4))
    for camera in frames[0].cameras.values():
        assert abs(camera.timestamp - frames[0].timestamp) < 0.05


def test_time_stamps_of_two_lengths():
    assert stamp_seconds('15616458250027900') == pytest.approx(1561645825.00279)
    assert stamp_seconds('1561645825002790') == pytest.approx(1561645825.00279)


@pytest.fixture
def copy(root, scene, tmp_path):
    """JSON files of the scene, to be damaged."""
    folder = tmp_path / 'scene_02'
    shutil.copytree(root / 'scene_02' / 'calibration', folder / 'calibration')
    shutil.copy(root / scene, tmp_path / scene)
    for path in tmp_path.rglob('*'):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path


def change(copy, scene, function):
    path = copy / scene
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


def lose_datum(content):
    content['data'] = content['data'][1:]


def lose_camera(content):
    gone = next(entry['key'] for entry in content['data'] if entry['id']['name'] == 'CAMERA_05')
    content['samples'][0]['datum_keys'] = [key for key in content['samples'][0]['datum_keys'] if key != gone]


def lose_pose(content):
    entry = next(entry for entry in content['data'] if entry['id']['name'] == 'CAMERA_07')
    del entry['datum']['image']['pose']


def zero_quaternion(content):
    entry = next(entry for entry in content['data'] if entry['id']['name'] == 'CAMERA_08')
    entry['datum']['image']['pose']['rotation'] = dict(qw=0, qx=0, qy=0, qz=0)


def lose_samples(content):
    del content['samples']


@pytest.mark.parametrize(
    'damage, name',
    [
        (lose_datum, 'datum'),
        (lose_camera, 'CAMERA_05'),
        (lose_pose, 'CAMERA_07'),
        (zero_quaternion, 'CAMERA_08'),
        (lose_samples, 'samples'),
    ],
)
def test_damaged_scenes_name_file_and_sensor(copy, scene, damage, name):
    change(copy, scene, damage)
    with pytest.raises(ValueError) as error:
        SceneReader(str(copy), CAMERAS).read(scene)
    assert scene in str(error.value) and name in str(error.value)


def test_missing_and_damaged_files(copy, scene):
    reader = SceneReader(str(copy), CAMERAS)
    calibration = next((copy / 'scene_02' / 'calibration').iterdir())
    calibration.write_text(calibration.read_text()[:100])
    with pytest.raises(ValueError, match=calibration.name):
        reader.read(scene)
    calibration.write_text(json.dumps(dict(names=['LIDAR'], intrinsics=[], extrinsics=[])))
    with pytest.raises(ValueError, match=calibration.name):
        reader.read(scene)
    calibration.unlink()
    with pytest.raises(FileNotFoundError, match=calibration.name):
        reader.read(scene)
    (copy / scene).write_text('{')
    with pytest.raises(ValueError, match='damaged'):
        reader.read(scene)
    with pytest.raises(FileNotFoundError, match='scene_77'):
        reader.read('scene_77/scene.json')
    with pytest.raises(ValueError, match='split'):
        scene_files({'scene_splits': {}}, 'val', 'ddad.json')
