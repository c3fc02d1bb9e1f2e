"""RayIoUMetric: equal to the functions, batches and processes, where origins come from, log and errors."""

import json
import logging

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, METRICS
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger

from projects.occ.evaluation import RayIoUMetric
from projects.occ.evaluation.functional import origins_by_token, ray_iou
from projects.occ.evaluation.ray_origin_files import write_ray_origins
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmarks import get_benchmark

GRID = dict(
    point_cloud_range=(-4, -4, -2, 4, 4, 2),
    voxel_size=1.0,
    shape=(8, 8, 4),
    frame='ego',
    free_index=2,
    class_names=('wall', 'floor', 'free'),
)


def frames(count=5, seed=0):
    rng = np.random.default_rng(seed)
    gt, pred = rng.choice([0, 1, 2, 2, 2], (2, count, 8, 8, 4)).astype(np.uint8)
    pred[:, :4] = gt[:, :4]
    origins = {f'frame-{i}': rng.uniform(-1, 1, (1 + i % 3, 3)) for i in range(count)}
    return gt, pred, origins


def samples(gt, pred):
    return [
        dict(token=f'frame-{i}', gt_occ=torch.from_numpy(g), pred_occ=torch.from_numpy(p))
        for i, (g, p) in enumerate(zip(gt, pred, strict=True))
    ]


@pytest.fixture
def log(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_equal_to_the_functions_in_any_batch_size(log):
    gt, pred, origins = frames()
    expected = ray_iou(pred, gt, origins.values(), GRID)
    items = samples(gt, pred)
    for batch_size in (1, 2, 5):
        metric = METRICS.build(dict(type='RayIoUMetric', grid=GRID, origins=origins))
        for start in range(0, 5, batch_size):
            metric.process({}, items[start : start + batch_size])
        assert all(record.nbytes <= 5 * 3 * 8 for record in metric.results)
        result = metric.evaluate(5)
        for key in ('RayIoU', 'RayIoU@1', 'RayIoU@2', 'RayIoU@4'):
            assert result[f'occ/{key}'] == expected[key]
        table = result['occ/RayIoU_per_class']
        assert list(table) == ['wall', 'floor']
        assert list(table['wall'].values())[1:] == pytest.approx(expected['per_class'][:, 0])
        assert table['wall']['RayIoU'] == pytest.approx(expected['per_class'][:, 0].mean())
        json.dumps(result, allow_nan=False)
    assert 'RayIoU of 5 frames' in log.text and f'RayIoU {100 * expected["RayIoU"]:.2f} | RayIoU@1' in log.text
    assert 'RayIoU is published for the grid of Occ3D-nuScenes alone' in log.text


def test_ignored_voxels_hide_what_is_behind():
    gt, pred, origins = frames(1)
    gt[:, 6:] = 255
    metric = RayIoUMetric(GRID, origins)
    metric.process({}, samples(gt, pred))
    kept = metric.results[0][-2].sum()
    free = gt.copy()
    free[:, 6:] = 2
    metric.process({}, samples(free, pred))
    # rays that meet the unknown region first are dropped, as they are if it is free and nothing is behind
    assert 0 < kept == metric.results[1][-2].sum()


@DATASETS.register_module()
class FewPoses(BaseDataset):
    """Six frames of two scenes with poses."""

    def __init__(self, subset='all', **kwargs):
        self.subset = subset
        super().__init__(serialize_data=False, **kwargs)

    def load_data_list(self):
        poses = [np.eye(4) for _ in range(6)]
        for i, pose in enumerate(poses):
            pose[0, 3] = i
        items = [
            dict(token=f'frame-{i}', scene_name=f'scene-{i // 3}', timestamp=i, lidar2ego=np.eye(4), ego2global=pose)
            for i, pose in enumerate(poses)
        ]
        return items if self.subset == 'all' else items[::2]


def test_origins_from_a_data_set_come_from_whole_scenes():
    expected = origins_by_token(FewPoses().load_data_list(), GRID)
    for extra in (dict(), dict(indices=2), dict(subset='mini', pipeline=[dict(type='NoSuchTransform')])):
        metric = RayIoUMetric(GRID, dict(type='FewPoses', **extra))
        assert list(metric.origins) == list(expected)
        for token, points in expected.items():
            assert len(points) == 3
            np.testing.assert_array_equal(metric.origins[token], points)


def test_origins_from_a_file(tmp_path):
    gt, pred, origins = frames(2)
    write_ray_origins(tmp_path / 'origins.npz', origins)
    metric = RayIoUMetric(GRID, str(tmp_path / 'origins.npz'))
    metric.process({}, samples(gt, pred))
    assert metric.evaluate(2)['occ/RayIoU'] == ray_iou(pred, gt, origins.values(), GRID)['RayIoU']
    with pytest.raises(FileNotFoundError, match='absent.npz'):
        RayIoUMetric(GRID, str(tmp_path / 'absent.npz'))
    with pytest.raises(ValueError, match='in the ego frame, but the voxel grid is in the lidar frame'):
        RayIoUMetric({**GRID, 'frame': 'lidar'}, str(tmp_path / 'origins.npz'))


def test_bad_samples():
    gt, pred, origins = frames(2)
    metric = RayIoUMetric(GRID, {'frame-0': origins['frame-0']})
    items = samples(gt, pred)
    with pytest.raises(ValueError, match=r'no RayIoU origins for frame frame-1 \(1 frames have some\)'):
        metric.process({}, items[1:])
    for key, text in (('gt_occ', 'load it with LoadOccLabels'), ('pred_occ', 'the model must write it in predict')):
        with pytest.raises(ValueError, match=f"sample frame-0 has no '{key}': {text}"):
            metric.process({}, [{k: v for k, v in items[0].items() if k != key}])
    with pytest.raises(ValueError, match='no sample to score'):
        metric.compute_metrics([])


def test_preset_checks_the_grid(log):
    with pytest.raises(ValueError, match="preset 'occ3d' does not fit the grid"):
        RayIoUMetric(GRID, {}, preset='occ3d')
    grid = get_benchmark('occ3d').grid
    metric = RayIoUMetric(grid, {'frame-0': np.array([[0.94, 0, 1.84]])}, preset='occ3d')
    gt = np.full(grid.shape, 17, np.uint8)
    gt[:, :, 0] = 11
    metric.process({}, samples(gt[None], gt[None]))
    result = metric.evaluate(1)
    assert result['occ/RayIoU'] == 1 and result['occ/RayIoU_per_class']['car'] == dict.fromkeys(
        ('RayIoU', 'RayIoU@1', 'RayIoU@2', 'RayIoU@4')
    )
    assert 'Not comparable with published numbers: 1 of 6019 val frames' in log.text
    assert VoxelGrid.build(GRID).frame == 'ego'
