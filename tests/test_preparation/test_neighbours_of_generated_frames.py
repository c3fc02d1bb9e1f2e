"""Neighbouring frames of generated streets, through the real loaders: pixels, points and labels show one world."""

import json
import random

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from projects.occ.datasets import (
    LoadDepthMaps,
    LoadMultiViewImages,
    Occ3DNuScenesDataset,
    SSCBenchKITTI360Dataset,
    SurroundOccNuScenesDataset,
)
from projects.occ.datasets.point_classes import read_lidarseg
from projects.occ.datasets.transforms.label_loading import LoadOccLabels
from projects.occ.structures import VoxelGrid


def grid_of(root, name):
    return VoxelGrid.build(json.loads((root / 'synthetic.json').read_text())['config']['grids'][name])


@pytest.mark.parametrize(
    ('benchmark', 'cls', 'folder'),
    [('occ3d', Occ3DNuScenesDataset, 'gts'), ('surroundocc', SurroundOccNuScenesDataset, 'samples')],
)
def test_points_of_the_frame_before_lie_in_occupied_voxels(raw_root, benchmark, cls, folder):
    dataset = cls(
        ann_file=f'{benchmark}_nuscenes/occ_infos_train.pkl',
        data_root=str(raw_root),
        data_prefix=dict(img='nuscenes', pts='nuscenes', occ=f'{benchmark}_nuscenes/{folder}'),
        grid=grid_of(raw_root, benchmark),
        frames=(0, -1),
        missing_frames='skip',
    )
    assert len(dataset) == 2
    for index in range(2):
        info = dataset.get_data_info(index)
        assert info['frame'].tolist() == [0] * 6 + [-1] * 6 and not info['view_missing'].any()
        labels = LoadOccLabels()(dict(info))['gt_occ']
        grid, hits = info['grid'], []
        for scan in info['lidar_frames']:
            points = np.fromfile(scan['lidar_path'], '<f4').reshape(-1, 5)[:, :3]
            # what does not move by itself
            points = points[read_lidarseg(scan['lidarseg_path'], len(points)) >= 11]
            place, inside = grid.point_to_index(points @ scan['lidar2ref'][:3, :3].T + scan['lidar2ref'][:3, 3])
            hits.append((labels[tuple(place[inside].T)] != grid.free_index).mean())
        assert hits[0] > 0.99 and hits[1] > 0.95
        # without the motion in between they would not
        still = info['lidar_frames'][0]['lidar2ref']
        place, inside = grid.point_to_index(points @ still[:3, :3].T + still[:3, 3])
        assert (labels[tuple(place[inside].T)] != grid.free_index).mean() < hits[1] - 0.02


@pytest.fixture(scope='module')
def drives(tmp_path_factory, create_data_main):
    """A generated drive of three frames in the format of SSCBench-KITTI-360."""
    root = tmp_path_factory.mktemp('neighbours') / 'd'
    size = ('--scenes-train', '1', '--scenes-val', '1', '--frames', '3', '--image-size', '176x48')
    assert create_data_main(['synthetic', '--format', 'sscbench-kitti360', '--out', str(root), *size]) == 0
    return root


def test_depth_of_one_frame_predicts_that_of_the_next(drives):
    dataset = SSCBenchKITTI360Dataset(
        grid=grid_of(drives, 'sscbench-kitti360'),
        data_root=str(drives),
        sequences=[4],
        calibration='calibration',
        poses='poses',
        frames=(0, 1, -1),
        pipeline=[LoadMultiViewImages(), LoadDepthMaps()],
    )
    item = dataset[1]
    assert item['frame'].tolist() == [0, 1, -1] and not item['view_missing'].any()
    rows, columns = np.nonzero((item['depth'][0] > 3) & (item['depth'][0] < 25))
    depth = item['depth'][0][rows, columns].astype(np.float64)
    rays = np.linalg.inv(item['cam2img'][0]) @ np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))])
    points = np.linalg.inv(item['ref2cam'][0]) @ np.vstack([rays * depth, np.ones(len(depth))])
    for view in (1, 2):
        u, v, d = (item['ref2img'][view] @ points)[:3]
        u, v = np.floor(u / d), np.floor(v / d)
        inside = (d > 1) & (u >= 0) & (u < 176) & (v >= 0) & (v < 48)
        found = item['depth'][view][v[inside].astype(int), u[inside].astype(int)]
        error = np.abs(found - d[inside]) / d[inside]
        assert inside.sum() > 500 and np.median(error) < 0.02
        # the vehicle has moved by more than that
        assert np.median(np.abs(d[inside] - depth[inside]) / depth[inside]) > 0.1


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_drive_has_a_pose_for_every_frame(drives, split):
    grid = grid_of(drives, 'sscbench-kitti360')
    sequences = {'train': [4], 'val': [6]}[split]
    dataset = SSCBenchKITTI360Dataset(
        grid=grid, data_root=str(drives), sequences=sequences, poses='poses', calibration='calibration'
    )
    assert all('ego2global' in dataset.get_data_info(index) for index in range(len(dataset)))


def test_a_network_of_the_key_frame_learns_the_same_with_neighbours_around(raw_root, repo_root):
    """Views of other frames change neither the key frame's images nor the losses of networks that see it alone."""
    config = Config.fromfile(repo_root / 'configs/debug/tpvformer_tiny_synthetic-occ3d_gaussrender.py')
    grid = grid_of(raw_root, 'occ3d')
    settings = {**config.train_dataloader.dataset, 'data_root': f'{raw_root}/', 'grid': grid}
    found = []
    for frames in ((0,), (0, -1, 1)):
        dataset = DATASETS.build({**settings, 'frames': frames, 'ann_file': 'occ3d_nuscenes/occ_infos_train.pkl'})
        items = []
        for index in (1, 2):
            random.seed(index)
            np.random.seed(index)  # noqa: NPY002 - colours are drawn from numpy's global state
            items.append(dataset[index])
        batch = pseudo_collate(items)
        # cameras to render into are drawn step by step, so each case starts anew
        torch.manual_seed(1)
        model = MODELS.build(config.model)
        data = model.data_preprocessor(batch, training=True)
        assert data['inputs'].images.shape[1] == 6 * len(frames)
        torch.manual_seed(2)
        losses = model(**data, mode='loss')
        found.append((data['inputs'].at(0), {name: float(value.detach()) for name, value in losses.items()}))
    (alone, losses), (among, same) = found
    assert torch.equal(alone.images, among.images)
    assert torch.equal(alone.cameras.ref2img, among.cameras.ref2img)
    assert losses == same and any('render' in name for name in losses)
