"""Real nuScenes frames through the tool, the data sets and the projection. Nothing of the data is kept in the repository."""

import importlib.util

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config

from projects.occ.datasets import Occ3DNuScenesDataset, SurroundOccNuScenesDataset
from projects.occ.datasets.info_formats import read_info_file
from projects.occ.structures import VoxelGrid
from projects.preparation.label_making import in_box

CAR, TRUCK, PEDESTRIAN, ROAD = 4, 10, 7, 11


def load_tool(repo_root, name):
    spec = importlib.util.spec_from_file_location(f'{name}_tool', repo_root / 'tools' / 'dev' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def tool(repo_root):
    return load_tool(repo_root, 'real_frame')


@pytest.fixture(scope='module')
def data_root(tool, shared_data, tmp_path_factory):
    root = tmp_path_factory.mktemp('real_frame')
    pictures = tool.prepare(shared_data, root)
    assert len(pictures) == 6 and all(picture.stat().st_size > 100_000 for picture in pictures)
    return root


def _dataset(repo_root, data_root, config_name, cls):
    config = Config.fromfile(str(repo_root / config_name), import_custom_modules=False)
    args = dict(config.val_dataloader.dataset, data_root=str(data_root), ann_file='nuscenes/occ_infos.pkl')
    args.pop('type')
    return cls(**args)


@pytest.fixture(scope='module')
def occ3d(repo_root, data_root):
    return _dataset(repo_root, data_root, 'configs/_base_/datasets/occ3d-nus.py', Occ3DNuScenesDataset)


@pytest.fixture(scope='module')
def surroundocc(repo_root, data_root):
    return _dataset(repo_root, data_root, 'configs/_base_/datasets/surroundocc-nus.py', SurroundOccNuScenesDataset)


def _project(matrix, points):
    homogeneous = np.column_stack([points, np.ones(len(points))]) @ np.asarray(matrix, np.float64).T
    depth = homogeneous[:, 2]
    with np.errstate(divide='ignore', invalid='ignore'):
        return homogeneous[:, :2] / depth[:, None], depth


def test_shipped_configs_read_the_real_frames(occ3d, surroundocc):
    for dataset in (occ3d, surroundocc):
        assert len(dataset) == 2
        for index, scene in enumerate(('scene-0061', 'scene-0003')):
            item = dataset[index]
            sample = item['data_samples']
            assert item['inputs']['img'].shape == (6, 3, 896, 1600) and item['inputs']['img'].dtype == torch.uint8
            assert sample.scene_name == scene and sample.frame_idx == 0
            assert sample.gt_occ.shape == (200, 200, 16)
            assert sample.ori_img_wh.tolist() == [[1600, 900]] * 6 and sample.img_wh.tolist() == [[1600, 896]] * 6


def test_debug_config_reads_the_real_frames(repo_root, data_root):
    dataset = _dataset(repo_root, data_root, 'configs/debug/tpvformer_tiny_real-frame_gaussrender.py', Occ3DNuScenesDataset)
    item = dataset[1]
    assert item['inputs']['img'].shape == (6, 3, 176, 320)
    assert item['data_samples'].gt_occ.shape == dataset.grid.shape == (60, 60, 8)


def test_both_grids_project_lidar_points_to_the_same_pixels(tool, shared_data, occ3d, surroundocc):
    """The exact matrices of the two reference frames differ by the LiDAR's mounting only."""
    for index, frame in enumerate(tool.read_frames(shared_data)):
        lidar, ego = surroundocc.get_data_info(index), occ3d.get_data_info(index)
        points = frame.points()
        points_ego = points @ lidar['lidar2ego'][:3, :3].T + lidar['lidar2ego'][:3, 3]
        for view in range(6):
            pixels, depth = _project(lidar['ref2img'][view], points)
            seen = depth > 1
            exact = np.eye(4)
            exact[:3] = ego['cam2img'][view] @ ego['ref2cam'][view][:3]
            again, again_depth = _project(exact, points_ego)
            assert np.abs(pixels - again)[seen].max() < 1e-6 and np.abs(depth - again_depth).max() < 1e-6
            # without ego motion compensation a point ahead moves by pixels, not by fractions of one nor by hundreds
            moved, _ = _project(ego['ref2img'][view], points_ego)
            near = seen & (depth < 15) & ((pixels > 0) & (pixels < [1600, 900])).all(1)
            shift = np.linalg.norm(moved - pixels, axis=1)[near]
            assert 0 < np.median(shift) < 60


def test_box_centres_are_gravity_centres(tool, shared_data):
    """The number of LiDAR points that the annotation counts in each box is found with the centre, not with the bottom."""
    for frame in tool.read_frames(shared_data):
        boxes, points = frame.record.boxes, frame.points()
        raised = boxes.boxes + np.array([0, 0, 0.5, 0, 0, 0, 0]) * boxes.boxes[:, 5:6]
        found = [sum(int(in_box(points, box).sum()) for box in candidate) for candidate in (boxes.boxes, raised)]
        annotated = int(boxes.num_lidar_pts.sum())
        assert abs(found[0] - annotated) < 0.03 * annotated
        assert found[1] < 0.7 * annotated


def test_points_of_cars_lie_in_car_voxels(tool, shared_data, occ3d, surroundocc):
    for dataset in (occ3d, surroundocc):
        grid = dataset.grid
        for index, frame in enumerate(tool.read_frames(shared_data)):
            labels = dataset[index]['data_samples'].gt_occ.numpy()
            record, points = frame.record, frame.points()
            if grid.frame == 'ego':
                in_grid = points @ record.lidar2ego[:3, :3].T + record.lidar2ego[:3, 3]
            else:
                in_grid = points
            voxel, inside = grid.point_to_index(in_grid)
            checked = right = 0
            for box, name in zip(record.boxes.boxes, record.boxes.names):
                if name not in ('car', 'truck'):
                    continue
                # the upper part of the vehicle, which touches no street voxel
                upper = box + np.array([0, 0, box[5] * 0.2, 0, 0, -box[5] * 0.4, 0])
                hit = in_box(points, upper) & inside
                found = labels[tuple(voxel[hit].T)]
                checked += len(found)
                right += int((found == grid.class_names.index(name)).sum())
            assert checked > 250 and right > 0.98 * checked


def test_road_lies_on_the_ground(occ3d, surroundocc):
    for dataset, height in ((occ3d, 0.0), (surroundocc, -1.84)):
        for index in range(2):
            road = dataset[index]['data_samples'].gt_occ.numpy() == ROAD
            z = dataset.grid.centers()[..., 2].numpy()[road]
            near = np.abs(dataset.grid.centers().numpy()[road][:, :2]).max(1) < 10
            assert abs(float(np.median(z[near])) - height) < dataset.grid.voxel_size[2]


def test_car_voxels_cover_the_cars_that_another_rasteriser_drew(tool, shared_data, occ3d):
    """Class maps of this frame, rendered by other people from an occupancy on the Occ3D grid without ego motion."""
    theirs = np.load(shared_data / 'nuscenes_val0_scene0003/occ_render/semantic.npz')['arr_0']
    names = ['CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_BACK_RIGHT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_FRONT_LEFT']
    info, grid = occ3d.get_data_info(1), occ3d.grid
    labels = occ3d[1]['data_samples'].gt_occ.numpy()
    drawn = np.zeros(256, bool)
    drawn[list(grid.semantic_classes)] = True
    ours = []
    for name in names:
        half = np.diag([0.5, 0.5, 1.0, 1.0]) @ info['ref2img'][info['cam_names'].index(name)]
        size = (np.array(grid.lower), np.array(grid.voxel_size))
        view = tool.draw_voxels(labels, np.zeros((256, 3), np.uint8), drawn, *size, half, 800, 450, grid.free_index, samples=1)
        ours.append(view.labels)
    ours = np.stack(ours)
    car, their_car = ours == CAR, theirs == CAR
    assert (car & their_car).sum() / car.sum() > 0.9
    assert (car & their_car).sum() / (car | their_car).sum() > 0.6
    ground, their_ground = ours == ROAD, np.isin(theirs, [11, 12, 13, 14, 17, 18, 19])
    assert (ground & their_ground).sum() / (ground | their_ground).sum() > 0.65


def test_our_rendered_label_lies_where_the_foreign_class_maps_do(repo_root, shared_data, tmp_path, capsys):
    compare = load_tool(repo_root, 'compare_class_maps')
    assert compare.main(['--shared', str(shared_data), '--out', str(tmp_path / 'maps.png')]) == 0
    assert mmcv.imread(tmp_path / 'maps.png').shape == (6 * 450, 3 * 800, 3)
    _, scores = compare.compare(shared_data)
    # theirs is denser: trees and far buildings that one sweep does not reach are missing in ours
    assert scores['car'] > 0.65 and scores['ground'] > 0.65 and scores['manmade and vegetation'] > 0.5
    assert compare.main(['--shared', str(tmp_path)]) == 1 and 'does not exist' in capsys.readouterr().err


def test_camera_mask_is_about_what_the_published_one_covers(shared_data, occ3d):
    """A single sweep sees more or less of the scene than the release, but not another order of magnitude."""
    path = next((shared_data / 'occ3d_label').glob('*/labels.npz'))
    with np.load(path) as published:
        expected = int(published['mask_camera'].sum())
    for index in range(2):
        sample = occ3d[index]['data_samples']
        assert not (sample.mask_camera & ~sample.mask_lidar).any()
        assert expected / 4 < int(sample.mask_camera.sum()) < expected * 4
        # most of the road around the car is in some image and not behind a step of one voxel
        centers = occ3d.grid.centers()
        distance = centers[..., :2].norm(dim=-1)
        road = (sample.gt_occ == ROAD) & (distance > 5) & (distance < 12)
        assert float(sample.mask_camera[road].float().mean()) > 0.5


def test_prepared_annotation_file_keeps_the_boxes(data_root):
    info_file = read_info_file(str(data_root / 'nuscenes/occ_infos.pkl'), with_boxes=True)
    assert info_file.format == 'occ-1.0'
    assert [len(record.boxes.names) for record in info_file.records] == [68, 37]
    # 'car' boxes of both sources are longer than wide, whatever convention they came from
    for record in info_file.records:
        cars = record.boxes.boxes[np.array(record.boxes.names) == 'car']
        assert (cars[:, 3] > 1.5 * cars[:, 4]).all()


def test_missing_sample_data_is_one_message(tool, tmp_path, capsys):
    assert tool.main(['--shared', str(tmp_path), '--out', str(tmp_path / 'out')]) == 1
    text = capsys.readouterr().err
    assert "nuscenes_frame' does not exist; give the folder that holds it with --shared" in text and 'Traceback' not in text


def test_grid_of_the_published_label_is_the_configs(repo_root, shared_data):
    config = Config.fromfile(repo_root / 'configs/_base_/datasets/occ3d-nus.py')
    grid = VoxelGrid.build(config.grid)
    with np.load(next((shared_data / 'occ3d_label').glob('*/labels.npz'))) as published:
        grid.check_labels(published['semantics'])
        assert (published['semantics'] == grid.free_index).mean() > 0.9
