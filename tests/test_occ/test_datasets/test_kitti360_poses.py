import gzip

import numpy as np
import pytest

from projects.occ.datasets.kitti360_poses import read_kitti360_poses, read_poses, write_poses
from projects.occ.datasets.kitti_calibration import read_kitti360_calibration

SEQUENCE = '2013_05_28_drive_0000_sync'


def test_real_poses_chain_to_those_of_the_rectified_camera(shared_data):
    root = shared_data / 'kitti360_sample'
    if not root.is_dir():
        pytest.skip(f'{root} not found')
    poses = read_kitti360_poses(root, SEQUENCE)
    assert len(poses) == 10514
    velo2cam = read_kitti360_calibration(str(root / 'calibration')).ref2cam
    rows = gzip.open(root / 'data_poses' / SEQUENCE / 'cam0_to_world.txt.gz', 'rt').read().splitlines()
    published = {int(float(row.split()[0])): np.array(row.split()[1:], dtype=np.float64).reshape(4, 4) for row in rows}
    assert set(published) == set(poses)
    for frame in (947, 2449, *list(poses)[::700]):
        np.testing.assert_allclose(poses[frame] @ np.linalg.inv(velo2cam), published[frame], atol=5e-4)


def test_round_trip(tmp_path):
    poses = {10: np.eye(4), 5: np.diag([2.0, 1.0, 1.0, 1.0])}
    write_poses(tmp_path / 'p.npz', poses)
    found = read_poses(tmp_path / 'p.npz')
    assert list(found) == [5, 10] and all(np.array_equal(found[frame], poses[frame]) for frame in poses)
    write_poses(tmp_path / 'none.npz', {})
    assert read_poses(tmp_path / 'none.npz') == {}


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"p\.npz' does not exist; make it with tools/create_data.py sscbench-kitti360"):
        read_poses(tmp_path / 'p.npz')
    (tmp_path / 'p.npz').write_bytes(b'PK')
    with pytest.raises(ValueError, match=r"p\.npz'.*make it"):
        read_poses(tmp_path / 'p.npz')
    calibration = tmp_path / 'calibration'
    with pytest.raises(FileNotFoundError, match=r"calib_cam_to_pose\.txt' does not exist; copy it from KITTI-360"):
        read_kitti360_poses(tmp_path, SEQUENCE)
    calibration.mkdir()
    (calibration / 'calib_cam_to_pose.txt').write_text('image_01: 1 0 0 0 0 1 0 0 0 0 1 0')
    with pytest.raises(ValueError, match='lacks the row image_00'):
        read_kitti360_poses(tmp_path, SEQUENCE)
    (calibration / 'calib_cam_to_pose.txt').write_text('image_00: 1 0 0 0 0 1 0 0 0 0 1 0')
    (calibration / 'calib_cam_to_velo.txt').write_text('1 0 0 0 0 1 0 0 0 0 1')
    with pytest.raises(ValueError, match=r"calib_cam_to_velo\.txt': expected 12 numbers, found 11"):
        read_kitti360_poses(tmp_path, SEQUENCE)
    (calibration / 'calib_cam_to_velo.txt').write_text('1 0 0 0 0 1 0 0 0 0 1 0')
    folder = tmp_path / 'data_poses' / SEQUENCE
    folder.mkdir(parents=True)
    (folder / 'poses.txt').write_text('1 1 0 0 5 0 1 0 0 0 0 1 0\n2 one')
    with pytest.raises(ValueError, match=r"poses\.txt', line 2: expected 12 numbers \(could not convert"):
        read_kitti360_poses(tmp_path, SEQUENCE)
    (folder / 'poses.txt').write_text('1 1 0 0 5 0 1 0 0 0 0 1 0\n')
    assert read_kitti360_poses(tmp_path, SEQUENCE)[1][0, 3] == 5
