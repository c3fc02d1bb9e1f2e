"""Cameras to look at a grid from."""

import numpy as np
import pytest

from projects.occ.structures import VoxelGrid
from projects.occ.visualization.view_cameras import (
    look_at,
    overview_camera,
    project_matrix,
    scale_image,
)

NAMES = ('free', 'car')
NUSCENES_LIDAR = VoxelGrid((-50, -50, -5, 50, 50, 3), 0.5, (200, 200, 16), 'lidar', 0, class_names=NAMES)
NUSCENES_EGO = VoxelGrid((-40, -40, -1, 40, 40, 5.4), 0.4, (200, 200, 16), 'ego', 0, class_names=NAMES)
KITTI = VoxelGrid((0, -25.6, -2, 51.2, 25.6, 4.4), 0.2, (256, 256, 32), 'lidar', 0, class_names=NAMES, ahead='x')


def test_look_at_axes():
    ref2cam = look_at((1, 2, 3), (5, 2, 3))
    np.testing.assert_allclose(ref2cam @ [1, 2, 3, 1], [0, 0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(ref2cam @ [5, 2, 3, 1], [0, 0, 4, 1], atol=1e-12)  # ahead is z
    np.testing.assert_allclose(ref2cam @ [1, 1, 3, 1], [1, 0, 0, 1], atol=1e-12)  # right of +x is -y
    np.testing.assert_allclose(ref2cam @ [1, 2, 2, 1], [0, 1, 0, 1], atol=1e-12)  # down is y
    assert np.linalg.det(ref2cam[:3, :3]) == pytest.approx(1)
    with pytest.raises(ValueError, match='cannot look at'):
        look_at((0, 0, 5), (0, 0, 0))


def test_projection_and_scaling():
    cam2img = np.array([[100.0, 0, 30], [0, 110, 20], [0, 0, 1]])
    ref2img = project_matrix(np.stack([look_at((0, 0, 0), (1, 0, 0))] * 2), cam2img)
    assert ref2img.shape == (2, 4, 4)
    u, v, d, one = ref2img[1] @ [4, -1, 0.5, 1]
    assert (u / d, v / d, d, one) == pytest.approx((100 / 4 + 30, -110 * 0.5 / 4 + 20, 4, 1))
    smaller = scale_image(ref2img, 0.5, 0.25)[1] @ [4, -1, 0.5, 1]
    assert (smaller[0] / d, smaller[1] / d, smaller[2]) == pytest.approx((u / d / 2, v / d / 4, d))


@pytest.mark.parametrize('grid', [NUSCENES_LIDAR, NUSCENES_EGO, KITTI])
@pytest.mark.parametrize('size', [(800, 500), (300, 900)])
def test_overview_shows_the_whole_grid_from_behind(grid, size):
    ref2img = overview_camera(grid, *size)
    lower, extent = np.asarray(grid.lower), np.asarray(grid.extent)
    corners = np.c_[lower + extent * np.indices((2, 2, 2)).reshape(3, 8).T, np.ones(8)] @ ref2img.T
    assert (corners[:, 2] > 0).all()
    pixels = corners[:, :2] / corners[:, 2:3]
    share = pixels / size
    assert share.min() >= 0.04 - 1e-9 and share.max() <= 0.96 + 1e-9
    # it fills the picture in one direction and is centred in both
    assert (share.max(0) - share.min(0)).max() == pytest.approx(0.92)
    np.testing.assert_allclose((share.max(0) + share.min(0)) / 2, 0.5, atol=1e-9)
    # seen from behind and above: what is ahead is farther away and higher in the picture, left is left
    center = lower + extent / 2
    ahead, left = np.zeros((2, 3))
    ahead[grid.ahead_axis] = 1
    left[1 - grid.ahead_axis] = 1 if grid.ahead_axis == 0 else -1
    middle, front, beside = (ref2img @ [*(center + step), 1] for step in (0 * ahead, ahead, left))
    assert front[2] > middle[2] and front[1] / front[2] < middle[1] / middle[2]
    assert beside[0] / beside[2] < middle[0] / middle[2]
