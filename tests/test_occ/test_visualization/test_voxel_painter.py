"""Bird's-eye views, 3D views and colours of a grid."""

import numpy as np
import pytest

from projects.occ.visualization.palettes import ERROR_PALETTE, FREE_COLOR, IGNORED_COLOR
from projects.occ.visualization.view_cameras import look_at, project_matrix
from projects.occ.visualization.voxel_painter import VoxelPainter

EGO = dict(
    point_cloud_range=(-4, -3, -1, 4, 3, 2),
    voxel_size=1.0,
    shape=(8, 6, 3),
    frame='ego',
    free_index=0,
    class_names=('free', 'car', 'driveable_surface', 'vegetation'),
)
LIDAR = dict(EGO, frame='lidar')
CAR, ROAD, TREE = (0, 150, 245), (255, 0, 255), (0, 175, 0)


def empty():
    return np.zeros((8, 6, 3), dtype=np.uint8)


def test_bird_eye_directions():
    labels = empty()
    labels[7, 5, 0] = 1  # largest x, largest y
    ahead_left = VoxelPainter(EGO).bird_eye(labels, scale=1)  # ego: x ahead, y left
    assert ahead_left.shape == (8, 6, 3) and tuple(ahead_left[0, 0]) == CAR
    ahead_right = VoxelPainter(LIDAR).bird_eye(labels, scale=1)  # LIDAR_TOP: y ahead, x right
    assert ahead_right.shape == (6, 8, 3) and tuple(ahead_right[0, 7]) == CAR
    for image in (ahead_left, ahead_right):
        assert (image.reshape(-1, 3) == FREE_COLOR).all(1).sum() == 47


@pytest.mark.parametrize('grid', [EGO, LIDAR])
def test_bird_eye_pixel_agrees_with_the_picture(grid):
    labels = empty()
    labels[5, 1, 1] = 3
    painter = VoxelPainter(grid)
    image = painter.bird_eye(labels, scale=4)
    column, row = painter.bird_eye_pixel(painter.grid.index_to_point((5, 1, 1))[:2], scale=4)
    rows, columns = np.where((image != 255).any(-1))
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == pytest.approx((row, column))
    assert len(rows) == 16


def test_bird_eye_shows_the_topmost_voxel_and_darkens_the_foot():
    labels = empty()
    labels[:, :, 0] = 2
    labels[3, 3, 1:] = 3
    image = VoxelPainter(EGO).bird_eye(labels, scale=1)
    row, column = 7 - 3, 5 - 3
    assert tuple(image[row, column]) == TREE
    assert tuple(image[0, 0]) == ROAD
    beside = image[row, column + 1]
    assert 0 < beside[0] < 255 and beside[0] == beside[2] and beside[1] == 0


def test_bird_eye_outlines_bright_classes():
    labels = empty()
    labels[2:5, 2:4, 0] = 1
    image = VoxelPainter(EGO).bird_eye(labels, scale=5)
    inside = image[(7 - 3) * 5 + 2, (5 - 2) * 5 + 2]
    edge = image[(7 - 4) * 5, (5 - 2) * 5 + 2]
    assert tuple(inside) == CAR and 0 < edge[2] < 245


def test_ignored_voxels():
    labels = empty()
    labels[3, 3, 1] = 255
    assert (VoxelPainter(EGO).bird_eye(labels, scale=1) == 255).all()
    shown = VoxelPainter(EGO, hide_ignored=False).bird_eye(labels, scale=1)
    assert tuple(shown[4, 2]) == IGNORED_COLOR


def test_error_views():
    gt, pred = empty(), empty()
    gt[0, 0, 0] = pred[0, 0, 0] = 1  # right
    gt[0, 1, 0], pred[0, 1, 0] = 1, 2  # wrong class
    gt[0, 2, 0] = 1  # missed
    pred[0, 3, 0] = 1  # not there
    gt[0, 4, :2], pred[0, 4, 0] = 1, 1  # right below, missed above: the error shows
    image = VoxelPainter(EGO).error_bird_eye(pred, gt, None, scale=1)
    for column, kind in ((5, 0), (4, 1), (3, 2), (2, 3), (1, 2)):
        assert tuple(image[7, column]) == ERROR_PALETTE[kind]
    mask = np.ones(gt.shape, bool)
    mask[0, 2] = False
    assert tuple(VoxelPainter(EGO).error_bird_eye(pred, gt, mask, scale=1)[7, 3]) == FREE_COLOR
    view = VoxelPainter(EGO).error_overview(pred, gt, None, 160, 100)
    assert view.shape == (100, 160, 3) and (view != 255).any()


def test_overview_and_camera_agree_on_colours():
    labels = empty()
    labels[2:6, 2:4, 0] = 1
    painter = VoxelPainter(EGO)
    view = painter.overview(labels, 160, 100, line=0.0, shadow=0.0)
    # the brightest face, the top, has the pure colour of the class
    assert (view.reshape(-1, 3) == CAR).all(1).any()
    picture = painter.camera(
        labels, project_matrix(look_at((0.1, 0, 9), (0, 0, 0)), [[50, 0, 40], [0, 50, 30], [0, 0, 1]]), 80, 60
    )
    assert picture.labels[30, 40] == 1 and picture.depth[30, 40] == pytest.approx(9, abs=0.02)


def test_colorize_and_legend():
    painter = VoxelPainter(EGO)
    np.testing.assert_array_equal(painter.colorize(np.array([[0, 1], [2, 3]])), [[FREE_COLOR, CAR], [ROAD, TREE]])
    assert painter.legend() == [('car', CAR), ('driveable_surface', ROAD), ('vegetation', TREE)]
    own = VoxelPainter(EGO, palette=[(0, 0, 0), (1, 2, 3), (4, 5, 6), (7, 8, 9)])
    assert own.legend()[0] == ('car', (1, 2, 3))


def test_errors():
    with pytest.raises(ValueError, match='one RGB colour for each of 4 classes'):
        VoxelPainter(EGO, palette=[(0, 0, 0)])
    with pytest.raises(ValueError, match=r'expected a label volume of shape \(8, 6, 3\)'):
        VoxelPainter(EGO).bird_eye(np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(ValueError, match='prediction: expected a label volume'):
        VoxelPainter(EGO).error_bird_eye(np.zeros((6, 8, 3), np.uint8), empty(), None)


@pytest.mark.parametrize('frame', ['ego', 'lidar'])
@pytest.mark.parametrize('size, shape', [((1.0, 0.4, 1.0), (8, 15, 3)), ((0.5, 0.75, 1.0), (16, 8, 3))])
def test_bird_eye_is_metric_where_voxels_are_not_square(frame, size, shape):
    painter = VoxelPainter(dict(EGO, voxel_size=size, shape=shape, frame=frame))
    labels = np.zeros(shape, dtype=np.uint8)
    labels[2:4, 3:7, 0] = 3
    for scale in (1, 4):
        image = painter.bird_eye(labels, scale)
        ahead, across = (8, 6) if frame == 'ego' else (6, 8)
        per_metre = scale / min(size[:2])
        assert image.shape == (round(ahead * per_metre), round(across * per_metre), 3)
        drawn = (image != 255).any(-1)
        assert drawn.sum() / per_metre**2 == pytest.approx(2 * size[0] * 4 * size[1], rel=0.2 / scale)
    assert painter.bird_eye(labels, painter.fitting_scale(200)).shape[1] <= 200
    column, row = painter.bird_eye_pixel(painter.grid.index_to_point((2.5, 4.5, 0))[:2], 4)
    rows, columns = np.where((image != 255).any(-1))
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == pytest.approx((row, column), abs=0.6)
