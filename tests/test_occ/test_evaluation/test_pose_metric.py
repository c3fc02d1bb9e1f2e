"""Motions as a metric of a test run."""

import math

import numpy as np
import pytest
import torch

from projects.occ.evaluation import PoseMetric
from projects.occ.evaluation.functional.pose_metrics import pose_metrics


def motion(ahead=0.0, yaw=0.0):
    matrix = torch.eye(4, dtype=torch.float64)
    cos, sin = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    matrix[:2, :2] = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    matrix[0, 3] = ahead
    return matrix


def sample(predicted, given, cameras=2, token='a'):
    def stack(matrices):
        return torch.stack([m.expand(cameras, 4, 4) for m in matrices])

    return dict(token=token, pred_motions=stack(predicted), gt_motions=stack(given))


def test_errors_of_known_motions():
    found = pose_metrics(torch.stack([motion(1.5, 3), motion(0, 1e-6)]), torch.stack([motion(1.0, 1), motion()]))
    np.testing.assert_allclose(found[0], [0.5, 2.0, 1.5], rtol=1e-9)
    assert found[1, 1] == pytest.approx(1e-6, rel=1e-6) and np.isnan(found[1, 2])
    assert pose_metrics(motion(yaw=180), motion())[1] == pytest.approx(180)
    with pytest.raises(ValueError, match='4, 4'):
        pose_metrics(torch.eye(3), torch.eye(3))


def test_the_network_stands_beside_constant_velocity():
    metric = PoseMetric()
    # the vehicle speeds up: 1.0 m in the interval before, 1.2 m in the one after
    given = [motion(1.0), motion(-1.2)]
    metric.process(None, [sample([motion(1.1), motion(-1.1)], given)])
    found = metric.compute_metrics(metric.results)
    assert found['translation_error'] == pytest.approx(0.1)
    assert found['translation_error_constant_velocity'] == pytest.approx(0.2)
    assert found['translation_error_standing'] == pytest.approx(1.1)
    assert found['rotation_error'] == pytest.approx(0, abs=1e-9)
    assert found['translation_ratio'] == pytest.approx((1.1 + 1.1 / 1.2) / 2)


def test_frames_that_are_not_there_do_not_count():
    metric = PoseMetric()
    gone = torch.full((4, 4), torch.nan, dtype=torch.float64)
    metric.process(None, [sample([motion(1), motion(-1)], [motion(1), motion(-1)])])
    metric.process(None, [sample([gone, motion(-3)], [gone, motion(-1)])])
    found = metric.compute_metrics(metric.results)
    assert found['translation_error'] == 0  # the second sample has nothing that constant velocity could start from
    one_sided = PoseMetric(frames=[1])
    one_sided.process(None, [sample([motion(-3)], [motion(-1)])])
    found = one_sided.compute_metrics(one_sided.results)
    assert found['translation_error'] == 2 and 'translation_error_constant_velocity' not in found


def test_wrong_input_is_refused():
    metric = PoseMetric()
    with pytest.raises(ValueError, match='frame7.*pred_motions'):
        metric.process(None, [dict(token='frame7', gt_motions=torch.zeros(2, 1, 4, 4))])
    with pytest.raises(ValueError, match='frames'):
        metric.process(None, [sample([motion()], [motion()])])
    with pytest.raises(ValueError, match='no sample'):
        metric.compute_metrics([])
    with pytest.raises(ValueError, match='frames'):
        PoseMetric(frames=[0, 1])
