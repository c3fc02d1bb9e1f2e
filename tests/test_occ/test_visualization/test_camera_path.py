"""The viewpoints of sequences."""

import numpy as np
import pytest

from projects.occ.structures import OccDataSample, VoxelGrid
from projects.occ.visualization import CameraPath
from projects.occ.visualization.view_cameras import look_at, overview_camera, project_matrix

GRID = VoxelGrid((-8, -4, -1, 8, 4, 1), 1.0, (16, 8, 2), 'ego', 1, class_names=('car', 'free'))


def project(matrix, points):
    pixels = np.concatenate([points, np.ones_like(points[:, :1])], axis=1) @ matrix.T
    return pixels[:, :2] / pixels[:, 2:3]


def test_without_turning_the_camera_stays_behind_the_car():
    path = CameraPath(width=160)
    for position in (0, 7):
        matrix, size = path.at(position, GRID, OccDataSample())
        assert size == (160, 100)
        np.testing.assert_array_equal(matrix, overview_camera(GRID, 160, 100))


def test_a_turning_camera_keeps_its_distance_and_shows_every_corner():
    path = CameraPath(turn=30.0, width=160)
    corners = np.asarray(GRID.lower) + np.asarray(GRID.extent) * np.indices((2, 2, 2)).reshape(3, 8).T
    eyes, scales = [], []
    for position in range(12):
        matrix, size = path.at(position, GRID, OccDataSample())
        pixels = project(matrix, corners)
        assert (pixels >= 0).all() and (pixels <= size).all()
        eyes.append(np.linalg.inv(matrix)[:3, 3])
        # metres to pixels in the middle of the grid, where every picture looks
        center = np.asarray(GRID.lower) + np.asarray(GRID.extent) / 2
        scales.append(np.linalg.norm(np.diff(project(matrix, center + [[0, 0, 0], [0, 0, 0.5]]), axis=0)))
    np.testing.assert_allclose(scales, scales[0])
    eyes = np.array(eyes) - (np.asarray(GRID.lower) + np.asarray(GRID.extent) / 2)
    np.testing.assert_allclose(np.linalg.norm(eyes, axis=1), np.linalg.norm(eyes[0]))
    np.testing.assert_allclose(eyes[:6, :2], -eyes[6:, :2], atol=1e-9)  # half way around
    # the full circle ends where it began
    np.testing.assert_allclose(path.at(12, GRID, OccDataSample())[0], path.at(0, GRID, OccDataSample())[0], atol=1e-9)


def test_a_camera_of_the_frame():
    ref2cam = np.stack([look_at((0, 0, 1), (4, 0, 0.5)), look_at((0, 0, 1), (-4, 0, 0.5))])
    cam2img = np.array([[[60.0, 0, 40], [0, 60, 30], [0, 0, 1]]] * 2)
    sample = OccDataSample(
        metainfo=dict(
            cam_names=['CAM_FRONT', 'CAM_BACK'], ref2cam=ref2cam, cam2img=cam2img, ori_img_wh=np.array([[80.0, 60.0]] * 2)
        )
    )
    matrix, size = CameraPath('CAM_BACK', width=160).at(3, GRID, sample)
    assert size == (160, 120)
    point = np.array([[-5.0, 1.0, 0.2]])
    np.testing.assert_allclose(project(matrix, point), 2 * project(project_matrix(ref2cam[1], cam2img[1]), point))
    with pytest.raises(ValueError, match=r"'overview' or a camera of the frame \['CAM_FRONT', 'CAM_BACK'\], got 'CAM_TOP'"):
        CameraPath('CAM_TOP').at(0, GRID, sample)
