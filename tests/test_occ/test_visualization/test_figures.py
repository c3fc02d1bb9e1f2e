"""Pages of one frame."""

import numpy as np
import pytest

from projects.occ.visualization.figures import (
    SURROUND_LAYOUT,
    CameraImages,
    RenderedMaps,
    camera_figure,
    depth_scale,
    paint_errors,
    rendered_figure,
    scene_figure,
)
from projects.occ.visualization.palettes import ERROR_PALETTE, FREE_COLOR
from projects.occ.visualization.view_cameras import look_at, project_matrix
from projects.occ.visualization.voxel_painter import VoxelPainter

GRID = dict(
    point_cloud_range=(-8, -8, -1, 8, 8, 2),
    voxel_size=1.0,
    shape=(16, 16, 3),
    frame='ego',
    free_index=3,
    class_names=('car', 'driveable_surface', 'vegetation', 'free'),
)
CAR, ROAD = (0, 150, 245), (255, 0, 255)


@pytest.fixture(scope='module')
def painter():
    return VoxelPainter(GRID)


@pytest.fixture(scope='module')
def labels():
    volume = np.full((16, 16, 3), 3, np.uint8)
    volume[:, :, 0] = 1
    volume[12:14, 7:9, 1] = 0
    return volume


def cameras(count=1, width=64, height=36, names=None):
    intrinsics = np.array([[40.0, 0, width / 2], [0, 40, height / 2], [0, 0, 1]])
    angles = np.arange(count) * 2 * np.pi / count
    matrices = [project_matrix(look_at((0, 0, 1), (np.cos(a), np.sin(a), 0.8)), intrinsics) for a in angles]
    images = [np.full((height, width, 3), 100 + i, np.uint8) for i in range(count)]
    return CameraImages(images, np.stack(matrices), names or [f'cam{i}' for i in range(count)])


def count_color(page, color):
    return int((page == np.asarray(color, np.uint8)).all(-1).sum())


def test_nuscenes_cameras_stand_as_around_the_car():
    names = ['CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT']
    order = cameras(6, names=names).order()
    assert [names[i] for i in order] == list(SURROUND_LAYOUT)
    assert cameras(3, names=['b', 'a', 'c']).order() == [0, 1, 2]


def test_camera_figure_lays_voxels_over_the_images(painter, labels):
    page = camera_figure(painter, cameras(1), {'ground truth': labels, 'prediction': np.full_like(labels, 3)}, panel_width=64)
    # image, overlay of the label, overlay of an empty prediction
    assert count_color(page, (100, 100, 100)) >= 2 * 64 * 36
    assert count_color(page, (100, 100, 100)) < 2.9 * 64 * 36
    overlay = 0.6 * np.array(ROAD) + 0.4 * 100
    assert count_color(page, np.rint(overlay)) > 100
    without = camera_figure(painter, cameras(1), {}, panel_width=64)
    assert without.shape[0] < page.shape[0] and without.shape[1] < page.shape[1]


def test_camera_figure_with_six_cameras_has_rows_of_three(painter, labels):
    few = camera_figure(painter, cameras(6), {}, panel_width=64)
    more = camera_figure(painter, cameras(6), {'prediction': labels}, panel_width=64)
    assert few.shape[1] == more.shape[1] == 3 * 64 + 4 * 10
    for i in range(6):
        # smoothed letters have a few pixels of any grey
        assert 0 <= count_color(few, (100 + i,) * 3) - 64 * 36 < 40


def test_scaling_of_panels_keeps_the_projection(painter, labels):
    rig = cameras(1)
    large, small = (camera_figure(painter, rig, {'prediction': labels}, panel_width=w) for w in (128, 64))

    def car_share(page, width):
        mixed = np.rint(0.6 * np.array(CAR) * 0.8 + 0.4 * 100)  # faces towards the camera
        return ((np.abs(page.astype(int) - mixed) < 12).all(-1)).sum() / width**2

    assert car_share(large, 128) == pytest.approx(car_share(small, 64), rel=0.2)
    assert car_share(large, 128) > 0.005


def test_scene_figure(painter, labels):
    pred = labels.copy()
    pred[0, :, 0] = 2
    pred[12:14, 7:9, 1] = 3
    both = scene_figure(painter, labels, pred, panel_width=160)
    assert count_color(both, ERROR_PALETTE[1]) > 50 and count_color(both, ERROR_PALETTE[2]) > 50
    mask = np.zeros(labels.shape, bool)
    unjudged = scene_figure(painter, labels, pred, mask, panel_width=160)
    # what is left is the legend
    assert count_color(unjudged, ERROR_PALETTE[1]) < 0.5 * count_color(both, ERROR_PALETTE[1])
    single = scene_figure(painter, labels, panel_width=160)
    assert single.shape[1] < both.shape[1] and count_color(single, ERROR_PALETTE[2]) == 0
    assert count_color(single, ROAD) > 1000


def maps_of(labels, rig, painter, **changes):
    views = [painter.camera(labels, matrix, 64, 36) for matrix in rig.ref2img]
    classes, depth = np.stack([v.labels for v in views]), np.stack([v.depth for v in views])
    return {**dict(gt_classes=classes, pred_classes=classes, gt_depth=depth, pred_depth=depth), **changes}


def test_rendered_figure_of_equal_maps_shows_no_error(painter, labels):
    rig = cameras(2)
    page = rendered_figure(painter, RenderedMaps(**maps_of(labels, rig, painter)), rig, panel_width=64)
    legend_only = 400
    assert count_color(page, ERROR_PALETTE[0]) > legend_only
    assert all(count_color(page, color) < legend_only for color in ERROR_PALETTE[1:])
    fewer = rendered_figure(painter, RenderedMaps(gt_classes=maps_of(labels, rig, painter)['gt_classes']), names=['a', 'b'])
    assert fewer.shape[1] < 7 * 410


def test_rendered_birds_eye_maps_are_turned_ahead_up(painter):
    bev = np.full((40, 40), 3, np.uint8)
    bev[:, 30:] = 0  # image x is +x of the grid: this lies ahead
    page = rendered_figure(painter, RenderedMaps(gt_bev=bev), panel_width=20)
    rows, columns = np.where((page == CAR).all(-1))
    band = rows < rows.min() + 10
    assert (np.ptp(rows[band]), np.ptp(columns[band])) == (9, 39)


def test_paint_errors_and_depth_scale(painter):
    image = paint_errors(np.array([[0, 1, 3, 0, 3]]), np.array([[0, 0, 0, 3, 3]]), painter)
    np.testing.assert_array_equal(image[0], [*ERROR_PALETTE, FREE_COLOR])
    assert (depth_scale(painter).low, depth_scale(painter).high) == (0, 8)


def test_nothing_rendered(painter):
    with pytest.raises(ValueError, match='got no map'):
        rendered_figure(painter, RenderedMaps())


def test_prediction_lies_on_the_objects_of_a_real_frame(shared_data):
    """Voxels of a published TPVFormer prediction, projected into the bus's and a truck's real images."""
    import pickle

    folder = shared_data / 'nuscenes_mini_frame_4509_tpvformer_prediction'
    with open(shared_data / 'nuscenes_mini_val_infos' / 'nuscenes_infos_val.pkl', 'rb') as file:
        info = pickle.load(file)['infos'][64]
    table = np.loadtxt(folder / 'fov_voxels.txt')
    index = np.rint((table[:, :3] - (-50.688, -50.688, -4.5)) / (1.024, 1.024, 1.0)).astype(int)
    volume = np.zeros((100, 100, 8), np.uint8)
    volume[tuple(index.T)] = table[:, 3]
    names = ['free', 'barrier', 'bicycle', 'bus', 'car', 'construction_vehicle', 'motorcycle', 'pedestrian', 'traffic_cone',
             'trailer', 'truck', 'driveable_surface', 'other_flat', 'sidewalk', 'terrain', 'manmade', 'vegetation']  # fmt: skip
    frame = VoxelPainter(
        dict(
            point_cloud_range=(-51.2, -51.2, -5, 51.2, 51.2, 3),
            voxel_size=(1.024, 1.024, 1.0),
            shape=(100, 100, 8),
            frame='lidar',
            free_index=0,
            class_names=names,
        )
    )

    def label_map(camera):
        sensor = info['cams'][camera]
        cam2lidar = np.eye(4)
        cam2lidar[:3, :3], cam2lidar[:3, 3] = sensor['sensor2lidar_rotation'], sensor['sensor2lidar_translation']
        return frame.camera(volume, project_matrix(np.linalg.inv(cam2lidar), sensor['cam_intrinsic']), 1600, 900).labels

    # inside the boxes that the annotated bus and truck have in the images
    assert (label_map('CAM_BACK')[440:515, 170:600] == 3).mean() > 0.9
    assert (label_map('CAM_FRONT')[500:560, 220:550] == 10).mean() > 0.9
