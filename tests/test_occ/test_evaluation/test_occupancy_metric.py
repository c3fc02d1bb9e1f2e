"""OccupancyMetric: hand-counted grids, masks, presets, batches and processes, log and errors."""

import json
import logging

import numpy as np
import pytest
import torch
from mmdet3d.registry import METRICS
from mmengine.logging import MMLogger

from projects.occ.evaluation import OccupancyMetric
from projects.occ.evaluation.functional import summarize_confusion, voxel_confusion
from projects.occ.structures import OccDataSample

GRID = dict(
    point_cloud_range=(-1.5, -1.5, -1.5, 1.5, 1.5, 1.5),
    voxel_size=1.0,
    shape=(3, 3, 3),
    frame='ego',
    free_index=2,
    ignore_index=255,
    class_names=('car', 'road', 'free'),
)


def sample(gt, pred, **fields):
    data = OccDataSample(metainfo=dict(token=fields.pop('token', 'abc')))
    data.gt_occ, data.pred_occ = torch.as_tensor(gt), torch.as_tensor(pred)
    for key, value in fields.items():
        setattr(data, key, torch.as_tensor(value))
    return data.to_dict()


def hand_sample(**fields):
    """True: nine cars, three roads, rest free; predicted: six of the cars, two of the roads, one road too many."""
    gt = np.full((3, 3, 3), 2, dtype=np.uint8)
    gt[0], gt[1, :, 0], gt[2, 2, 2] = 0, 1, 255
    pred = np.full_like(gt, 2)
    pred[0, :2], pred[1, :2, 0], pred[2, 0, 0] = 0, 1, 1
    return sample(gt, pred, **fields)


def random_samples(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        sample(*rng.integers(0, 3, (2, 3, 3, 3)).astype(np.uint8), mask_camera=rng.random((3, 3, 3)) < 0.7)
        for _ in range(count)
    ]


@pytest.fixture
def log(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_hand_counted_numbers():
    metric = METRICS.build(dict(type='OccupancyMetric', grid=GRID))
    metric.process({}, [hand_sample()])
    result = metric.evaluate(1)
    assert result['occ/mIoU'] == pytest.approx((6 / 9 + 2 / 4) / 2)
    assert result['occ/IoU'] == pytest.approx(8 / 13)
    assert result['occ/precision'] == pytest.approx(8 / 9)
    assert result['occ/recall'] == pytest.approx(8 / 12)
    assert result['occ/num_averaged'] == 2
    assert result['occ/per_class'] == pytest.approx(dict(car=6 / 9, road=2 / 4, free=13 / 18))
    assert result['occ/mIoU_with_free'] == pytest.approx((6 / 9 + 2 / 4 + 13 / 18) / 3)
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(('mask', 'voxels'), [('none', 26), ('camera', 9), ('lidar', 8), ('both', 3)])
def test_masks(mask, voxels, log):
    camera, lidar = np.zeros((2, 3, 3, 3), dtype=np.uint8)
    camera[0], lidar[:, 0] = 1, 1
    lidar[2, 0, 0] = 0
    metric = OccupancyMetric(GRID, mask=mask)
    metric.process({}, [hand_sample(mask_camera=camera, mask_lidar=lidar)])
    assert metric.results[0].sum() == voxels
    metric.evaluate(1)
    assert f'1 frames, {voxels} voxels counted' in log.text and f'mask {mask} ' in log.text


def test_absent_policy_reaches_the_result():
    gt = np.full((3, 3, 3), 2, dtype=np.uint8)
    gt[0] = 0
    for absent, expected, averaged in (('exclude', 1.0, 1), ('one', 1.0, 2), ('exclude_union', 1.0, 1)):
        metric = OccupancyMetric(GRID, absent=absent)
        metric.process({}, [sample(gt, gt)])
        result = metric.evaluate(1)
        assert result['occ/mIoU'] == expected and result['occ/num_averaged'] == averaged
    assert result['occ/per_class']['road'] is None
    metric = OccupancyMetric(GRID, absent='zero')
    metric.process({}, [sample(gt, gt)])
    assert metric.evaluate(1)['occ/mIoU'] == pytest.approx(0.5, abs=1e-6)


def test_batches_equal_single_samples_and_pool_over_frames():
    samples = random_samples(5)
    results = []
    for batch_size in (1, 2, 5):
        metric = OccupancyMetric(GRID, mask='camera')
        for start in range(0, 5, batch_size):
            metric.process({}, samples[start : start + batch_size])
        results.append(metric.evaluate(5))
    assert results[0] == results[1] == results[2]
    pooled = sum(voxel_confusion(s['pred_occ'], s['gt_occ'], 3, s['mask_camera']) for s in samples)
    assert results[0]['occ/mIoU'] == summarize_confusion(pooled, 2)['mIoU']


def occ3d_grid(**changes):
    from projects.occ.structures.benchmarks import get_benchmark

    grid = get_benchmark('occ3d').grid
    fields = {key: getattr(grid, key) for key in grid.__dataclass_fields__}
    return {**fields, **changes}


def test_preset_sets_the_mask_and_accepts_smaller_and_coarser_grids(log):
    assert OccupancyMetric(occ3d_grid(), preset='occ3d').mask == 'camera'
    small = occ3d_grid(point_cloud_range=(-8, -8, -1, 8, 8, 5.4), voxel_size=0.8, shape=(20, 20, 8))
    metric = OccupancyMetric(small, preset='occ3d', mask='camera')
    gt = np.full((20, 20, 8), 17, dtype=np.uint8)
    gt[:, :, 0] = 11
    metric.process({}, [sample(gt, gt, mask_camera=np.ones_like(gt))])
    assert metric.evaluate(1)['occ/mIoU'] == 1
    assert 'Not comparable with published numbers: the grid is smaller or coarser than the benchmark' in log.text


def test_preset_tells_a_partial_split(log):
    metric = OccupancyMetric(occ3d_grid(), preset='occ3d')
    gt = np.full((200, 200, 16), 17, dtype=np.uint8)
    gt[0, 0, 0] = 3
    metric.process({}, [sample(gt, gt, mask_camera=np.ones_like(gt))])
    metric.evaluate(1)
    assert 'Not comparable with published numbers: 1 of 6019 val frames' in log.text


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(free_index=0), 'free_index 0 instead of 17'),
        (dict(ignore_index=99), 'ignore_index 99 instead of 255'),
        (dict(frame='lidar'), "frame 'lidar' instead of 'ego'"),
        (dict(class_names=('free', 'car')), '2 classes instead of 18'),
        (dict(class_names=('others', 'bicycle', 'barrier', *[f'c{i}' for i in range(15)])), "class 1 is 'bicycle' instead of"),
        (dict(point_cloud_range=(-80, -80, -1, 80, 80, 5.4), voxel_size=0.8, shape=(200, 200, 8)), 'is not inside'),
        (dict(voxel_size=0.2, shape=(400, 400, 32)), 'is finer than'),
    ],
)
def test_preset_refuses_another_grid(changes, message):
    changes = dict(changes)
    if len(changes.get('class_names', ())) == 2:
        changes['free_index'] = 0
    with pytest.raises(ValueError, match='preset .occ3d. does not fit the grid: .*' + message):
        OccupancyMetric(occ3d_grid(**changes), preset='occ3d')


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(preset='occ4d'), r"'occ4d'.*'occ3d'"),
        (dict(mask='front'), "mask must be one of .*got 'front'"),
        (dict(absent='drop'), "absent must be one of .*got 'drop'"),
        (dict(preset='occ3d', mask='none'), "preset 'occ3d' counts with mask='camera', got mask='none'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        OccupancyMetric(occ3d_grid(), **kwargs)


def test_bad_samples():
    metric = OccupancyMetric(GRID, mask='both')
    with pytest.raises(ValueError, match="sample abc has no 'mask_lidar': mask='both' needs a benchmark that ships it"):
        metric.process({}, [hand_sample(mask_camera=np.ones((3, 3, 3)))])
    without = hand_sample()
    del without['pred_occ']
    with pytest.raises(ValueError, match="sample abc has no 'pred_occ': the model must write it in predict"):
        metric.process({}, [without])
    wrong = np.zeros((3, 3, 4), dtype=np.uint8)
    with pytest.raises(ValueError, match=r'gt_occ of sample abc: expected a label volume of shape \(3, 3, 3\)'):
        metric.process({}, [sample(wrong, wrong)])
    with pytest.raises(ValueError, match='no sample to score'):
        metric.compute_metrics([])


@pytest.mark.parametrize(('only', 'text'), [(2, 'predicted as free space'), (1, "predicted as class 'road'")])
def test_guard_warns_when_one_class_is_predicted(only, text, log):
    metric = OccupancyMetric(GRID)
    metric.process({}, [sample(hand_sample()['gt_occ'], np.full((3, 3, 3), only))])
    metric.evaluate(1)
    assert any(record.levelno == logging.WARNING and text in record.message for record in log.records)


def test_log_names_the_protocol_and_the_table(log):
    metric = OccupancyMetric(GRID)
    metric.process({}, [hand_sample()])
    metric.evaluate(1)
    for text in ('3 classes, free 2 (free), ignore 255 | mask none', 'absent classes: exclude', 'free (free, not in mIoU)',
                 '66.67', '50.00', 'mIoU 58.33 (mean over 2 of 2 classes) | IoU 61.54'):  # fmt: skip
        assert text in log.text
    assert not any('Every counted voxel' in record.message for record in log.records)


def test_means_without_some_classes(log):
    metric = OccupancyMetric(grid=GRID, excluding=dict(mIoU_star=['car']))
    metric.process(None, [hand_sample()])
    found = metric.compute_metrics(metric.results)
    assert found['mIoU_star'] == found['per_class']['road'] == 0.5 and found['mIoU'] != 0.5
    assert 'mIoU_star 50.00' in log.text
    with pytest.raises(ValueError, match='tree'):
        OccupancyMetric(grid=GRID, excluding=dict(mIoU_star=['tree']))
