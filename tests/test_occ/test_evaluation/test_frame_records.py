"""Records of frames: what metrics keep, unchanged results, and errors."""

import numpy as np
import pytest
import torch

from projects.occ.evaluation import OccupancyMetric, RayProfileMetric
from projects.occ.evaluation.frame_records import FrameRecords, stack_records

GRID = dict(
    point_cloud_range=(-4, -4, -2, 4, 4, 2),
    voxel_size=1.0,
    shape=(8, 8, 4),
    frame='ego',
    free_index=2,
    class_names=('wall', 'floor', 'free'),
)


def test_the_file_holds_what_metrics_counted(tmp_path):
    rng = np.random.default_rng(0)
    gt, pred = rng.choice([0, 1, 2, 2], (2, 3, 8, 8, 4)).astype(np.uint8)
    pairs = enumerate(zip(torch.from_numpy(gt), torch.from_numpy(pred)))
    samples = [dict(token=f't{i}', gt_occ=g, pred_occ=p) for i, (g, p) in pairs]
    metrics = [OccupancyMetric(GRID), RayProfileMetric(GRID, {f't{i}': np.zeros((1, 3)) for i in range(3)})]
    records = FrameRecords(metrics)
    results = {}
    for metric in metrics:
        metric.process({}, samples)
        results.update(metric.evaluate(3))
    records.write(tmp_path / 'r.npz', ['t0', 't1', 't2'], ['a', 'a', 'b'])
    with np.load(tmp_path / 'r.npz') as file:
        found = dict(file)
    assert found['scenes'].tolist() == ['a', 'a', 'b']
    assert found['OccupancyMetric'].shape == (3, 3, 3) and found['OccupancyMetric'].sum() == gt.size
    assert found['RayProfileMetric.hard'].shape == (3, 7, 4, 4, 2)
    counts = found['RayProfileMetric.counts'].sum(0)
    assert results['occ/floaters'] == counts[0] / counts[1]
    with pytest.raises(ValueError, match='2'):
        records.write(tmp_path / 'r.npz', ['t0', 't1'], ['a', 'a'])


def test_records_of_all_forms():
    found = stack_records([(('a', 'b'), np.ones(2)), (('a', 'b'), np.zeros(2))], 'm')
    assert list(found) == ['m.1'] and found['m.1'].tolist() == [[1, 1], [0, 0]]
    assert stack_records([dict(x=1, y='text'), dict(x=2, y='text')], 'm')['m.x'].tolist() == [1, 2]
