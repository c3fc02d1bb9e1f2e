"""LiDAR points at pixels: rounding, order, and damaged files."""

import numpy as np
import pytest

from projects.occ.datasets.transforms import LoadDepthPixels
from projects.occ.datasets.transforms.lidar_pixels import project_to_pixels
from projects.occ.structures import VoxelGrid

K = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])


def test_rounding_and_order():
    points = np.array([[1.6, 1.2, 1.0], [3.2, 2.4, 2.0], [-0.9, 0.2, 1.0], [9.0, 0, 1], [1, 1, -1]])
    rows = project_to_pixels(points, np.eye(4), K, (5, 4), 'truncate')
    # the second point falls on the same pixel and comes later; -0.9 becomes 0
    assert rows.tolist() == [[1, 1, 2.0], [0, 0, 1.0]]
    rows = project_to_pixels(points, np.eye(4), K, (5, 4), 'nearest')
    assert rows.tolist() == [[2, 1, 2.0]]


def item(path, **changes):
    grid = VoxelGrid((-1, -1, -1, 1, 1, 1), 1, (2, 2, 2), 'ego', 0, class_names=('free', 'car'))
    lidar2ego = np.eye(4)
    lidar2ego[0, 3] = 1
    values = dict(token='f3', lidar_path=str(path), ref2cam=np.eye(4)[None], cam2img=K[None], lidar2ego=lidar2ego, grid=grid)
    return {**values, 'ori_img_wh': np.array([[5, 4]]), **changes}


@pytest.mark.parametrize('dims', [4, 5])
def test_files_of_rows_and_archives(tmp_path, dims):
    points = np.zeros((2, dims))
    points[:, :3] = [[0.5, 1.0, 1.0], [np.nan, 0, 1]]
    points.astype('<f4').tofile(tmp_path / 'x.bin')
    np.savez(tmp_path / 'x.npz', data=points)
    for name in ('x.bin', 'x.npz'):
        rows = LoadDepthPixels(point_dims=dims)(item(tmp_path / name))['depth_pixels']
        assert [row.tolist() for row in rows] == [[[1, 1, 1.0]]] and rows[0].dtype == np.float32


def test_views_of_other_frames_are_left_out(tmp_path):
    np.savez(tmp_path / 'x.npz', data=np.array([[0.5, 1.0, 1.0, 7]]))
    two = dict(ref2cam=np.stack([np.eye(4)] * 2), cam2img=np.stack([K] * 2), ori_img_wh=np.array([[5, 4]] * 2))
    rows = LoadDepthPixels()(item(tmp_path / 'x.npz', frame=np.array([0, -1]), **two))['depth_pixels']
    assert len(rows) == 1


def test_damage_names_frame_and_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='f3.*x.npz'):
        LoadDepthPixels()(item(tmp_path / 'x.npz'))
    (tmp_path / 'x.npz').write_bytes(b'PK no archive')
    with pytest.raises(ValueError, match='x.npz'):
        LoadDepthPixels()(item(tmp_path / 'x.npz'))
    np.savez(tmp_path / 'x.npz', data=np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r'\(3, 2\)'):
        LoadDepthPixels()(item(tmp_path / 'x.npz'))
    (tmp_path / 'x.bin').write_bytes(b'12345')
    with pytest.raises(ValueError, match='5 bytes'):
        LoadDepthPixels()(item(tmp_path / 'x.bin'))
    with pytest.raises(ValueError, match='rounding'):
        LoadDepthPixels(rounding='up')


def test_pixels_on_the_own_car_are_left_out(tmp_path):
    np.savez(tmp_path / 'x.npz', data=np.array([[0.5, 1.0, 1.0, 7], [1.5, 2.0, 1.0, 7]]))
    mask = np.ones((4, 5), dtype=bool)
    mask[2] = False
    rows = LoadDepthPixels()(item(tmp_path / 'x.npz', image_masks=[mask]))['depth_pixels']
    assert rows[0].tolist() == [[1, 1, 1.0]]
