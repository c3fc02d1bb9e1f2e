"""Depth as a metric of a test run."""

import numpy as np
import pytest
import torch

from projects.occ.evaluation import DepthMetric
from projects.occ.evaluation.functional import DEPTH_METRICS


def sample(factor=1.0, token='a', views=2, seed=0):
    """Flat walls 10, 20, ... m away, measured at random pixels of images of 8x6 and predicted at half that size."""
    generator = np.random.default_rng(seed)
    depth = 10.0 * np.arange(1, views + 1)
    pixels = [np.c_[generator.integers(0, 8, 30), generator.integers(0, 6, 30), np.full(30, d)] for d in depth]
    prediction = torch.tensor(depth * factor).float().view(views, 1, 1).expand(views, 3, 4)
    return dict(
        token=token,
        cam_names=[f'CAM_{i}' for i in range(views)],
        ori_img_wh=np.array([[8, 6]] * views),
        pred_depth=prediction,
        depth_pixels=pixels,
    )


def test_known_errors_with_and_without_scaling():
    metric = DepthMetric()
    metric.process(None, [sample(1.1), sample(1.3, 'b', seed=1)])
    found = metric.compute_metrics(metric.results)
    assert found['abs_rel'] == pytest.approx(0.2, abs=1e-6)
    assert (found['a1'], found['a2']) == (0.5, 1.0)
    assert found['abs_rel_median_scaled'] == pytest.approx(0, abs=1e-6) and found['a1_median_scaled'] == 1
    assert set(found['depth_per_camera']) == {'CAM_0', 'CAM_1'}
    assert set(found['depth_per_camera']['CAM_0']) == set(DEPTH_METRICS)
    assert found['depth_per_camera']['CAM_0']['rmse'] == pytest.approx(2.0, abs=1e-5)
    assert found['depth_per_camera']['CAM_1']['rmse'] == pytest.approx(4.0, abs=1e-5)


def test_a_camera_without_points_is_left_out():
    metric = DepthMetric()
    one = sample(1.2)
    one['depth_pixels'][1] = np.zeros((0, 3))
    metric.process(None, [one])
    found = metric.compute_metrics(metric.results)
    assert found['abs_rel'] == pytest.approx(0.2, abs=1e-6)
    assert found['depth_per_camera']['CAM_1']['abs_rel'] is None


@pytest.mark.parametrize('key', ['pred_depth', 'depth_pixels'])
def test_missing_depth_names_frame_and_key(key):
    broken = sample(token='frame7')
    del broken[key]
    with pytest.raises(ValueError, match=f'frame7.*{key}'):
        DepthMetric().process(None, [broken])


def test_other_cameras_empty_sets_and_limits_are_refused():
    metric = DepthMetric()
    metric.process(None, [sample(), sample(views=3)])
    with pytest.raises(ValueError, match='cameras'):
        metric.compute_metrics(metric.results)
    with pytest.raises(ValueError, match='no sample'):
        metric.compute_metrics([])
    with pytest.raises(ValueError, match='max_depth'):
        DepthMetric(max_depth=0.05)
    near = DepthMetric(max_depth=5)
    near.process(None, [sample()])
    with pytest.raises(ValueError, match='LiDAR'):
        near.compute_metrics(near.results)
