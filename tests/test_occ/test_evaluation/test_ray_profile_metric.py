"""RayProfileMetric: means over rays by class and range, opacities, LiDAR rays, masks and errors."""

import json

import numpy as np
import pytest
import torch
from mmdet3d.registry import METRICS

from projects.occ.evaluation import RayProfileMetric
from projects.occ.evaluation.functional import first_surfaces, query_rays, ray_profile
from projects.occ.structures import VoxelGrid

GRID = dict(
    point_cloud_range=(-16, -16, -2, 16, 16, 2),
    voxel_size=1.0,
    shape=(32, 32, 4),
    frame='ego',
    free_index=2,
    class_names=('wall', 'floor', 'free'),
)
grid = VoxelGrid.build(GRID)


def room():
    """A floor, and walls at two distances."""
    gt = np.full(grid.shape, 2, dtype=np.uint8)
    gt[..., 0] = 1
    gt[24, :, 1:] = gt[:, 4, 1:] = 0
    return gt


ORIGINS = {'a': np.array([[0.1, 0.2, 0.3]]), 'b': np.array([[0.1, 0.2, 0.3], [2.2, 1.1, 0.4]])}


def evaluate(*samples, **options):
    metric = METRICS.build(dict(type='RayProfileMetric', grid=GRID, **{'origins': ORIGINS, **options}))
    for sample in samples:
        metric.process({}, [sample])
    result = metric.evaluate(len(samples))
    json.dumps(result, allow_nan=False)
    return {key.removeprefix('occ/'): value for key, value in result.items()}


def test_a_perfect_prediction():
    gt = torch.from_numpy(room())
    found = evaluate(dict(token='a', gt_occ=gt, pred_occ=gt))
    assert (found['ray_hit'], found['ray_behind'], found['ray_front']) == (1, 0, 0)
    assert found['ray_thickness_ratio'] == 1 and found['ray_surfaces'] == found['ray_surfaces_label']
    assert found['floaters'] == found['holes'] == found['floaters_per_frame'] == 0
    assert 'ray_spread' not in found
    rows = found['ray_profile_per_class']
    assert list(rows) == ['wall', 'floor', 'unknown'] and rows['unknown']['ray_hit'] is None
    assert rows['wall']['rays'] + rows['floor']['rays'] == found['rays'] > 1000
    bands = found['ray_profile_per_range']
    assert sum(row['rays'] for row in bands.values()) == found['rays'] and bands['over 40 m']['rays'] == 0


def test_means_are_those_of_all_rays_of_all_frames():
    gt = room()
    pred = np.roll(gt, 2, axis=0)
    pred[3, 3, 3] = 0
    found = evaluate(dict(token='a', gt_occ=gt, pred_occ=pred), dict(token='b', gt_occ=gt, pred_occ=gt))
    behind, count = 0, 0
    for token, volume in (('a', pred), ('b', gt)):
        rays = query_rays(ORIGINS[token])
        reference, classes = first_surfaces(gt, grid, *rays)
        kept = np.isfinite(reference) & (classes == 0) & (reference >= 10) & (reference < 20)
        profile = ray_profile(volume, grid, rays[0][kept], rays[1][kept], reference[kept])
        behind, count = behind + profile['behind'].sum(), count + kept.sum()
    single = evaluate(dict(token='a', gt_occ=gt, pred_occ=pred))
    assert single['ray_profile_per_class']['wall']['ray_behind'] > 0.5
    assert 0 < count and found['ray_profile_per_range']['10-20 m']['ray_behind'] > 0
    metric = RayProfileMetric(grid, ORIGINS)
    metric.process({}, [dict(token='a', gt_occ=gt, pred_occ=pred), dict(token='b', gt_occ=gt, pred_occ=gt)])
    cell = sum(record['hard'][2, 0, 1] for record in metric.results)
    assert cell.tolist() == [behind, count]
    assert found['floaters_per_frame'] == pytest.approx(single['floaters'] / 2)
    assert found['floaters'] < single['floaters'] and found['holes'] > 0


def test_opacities_come_from_logits_or_from_the_model():
    gt = torch.from_numpy(room())
    logits = 60.0 * torch.nn.functional.one_hot(gt.long(), 3).movedim(-1, 0)
    sample = dict(token='a', gt_occ=gt, pred_occ=gt)
    found = evaluate(dict(sample, pred_logits=logits))
    # rays that cross a corner within half a voxel pass between two samples
    missed = found['ray_miss']
    assert missed < 0.02 and found['ray_hit_soft'] == pytest.approx(1 - missed, abs=1e-6)
    assert found['ray_spread'] < 1e-3 and found['ray_spread_left_out'] == pytest.approx(missed * found['rays'], abs=1)
    fog = evaluate(dict(sample, pred_logits=logits, pred_opacity=torch.full(grid.shape, 0.2)))
    assert fog['ray_spread'] > 1 and fog['ray_hit'] == 1 and fog['ray_miss'] > 0.01
    total = sum(fog[f'ray_{name}_soft'] for name in ('front', 'hit', 'behind')) + fog['ray_miss']
    assert total == pytest.approx(1)


def test_lidar_points_as_reference():
    gt = room()
    # looks along x from the origin
    ref2cam = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    cam2img = np.array([[20, 0, 20.5], [0, 20, 10.5], [0, 0, 1.0]])
    rays = dict(
        depth_pixels=[np.array([[20, 10, 8.5], [20, 10, 3.5]], np.float32)], ref2cam=ref2cam[None], cam2img=cam2img[None]
    )
    found = evaluate(dict(token='x', gt_occ=gt, pred_occ=gt, **rays), origins=None, reference='lidar')
    assert found['rays'] == 2 and found['ray_hit'] == 0.5 and found['ray_behind'] == 0.5
    rows = found['ray_profile_per_class']
    # a point in the air has no class
    assert rows['wall']['rays'] == 1 and rows['wall']['ray_hit'] == 1 and rows['unknown']['ray_behind'] == 1


def test_floaters_count_where_cameras_see():
    gt = room()
    pred = gt.copy()
    pred[0, 0, 3] = 0
    mask = np.ones(grid.shape, dtype=np.uint8)
    assert evaluate(dict(token='a', gt_occ=gt, pred_occ=pred, mask_camera=mask))['floaters'] > 0
    mask[0] = 0
    assert evaluate(dict(token='a', gt_occ=gt, pred_occ=pred, mask_camera=mask))['floaters'] == 0


def test_what_is_missing_is_named():
    gt = room()
    with pytest.raises(ValueError, match='pred_occ'):
        evaluate(dict(token='a', gt_occ=gt))
    with pytest.raises(ValueError, match='nowhere'):
        evaluate(dict(token='nowhere', gt_occ=gt, pred_occ=gt))
    with pytest.raises(ValueError, match='origins'):
        RayProfileMetric(GRID)
    with pytest.raises(ValueError, match='radar'):
        RayProfileMetric(GRID, ORIGINS, reference='radar')
    with pytest.raises(ValueError, match='depth_pixels'):
        evaluate(dict(token='a', gt_occ=gt, pred_occ=gt), origins=None, reference='lidar')
