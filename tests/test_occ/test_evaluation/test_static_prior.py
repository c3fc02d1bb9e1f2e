"""The most frequent class per voxel and its score."""

import numpy as np
import pytest
import torch

from projects.occ.evaluation.functional import summarize_confusion
from projects.occ.evaluation.static_prior import most_frequent_labels, score_static_prior

GRID = dict(
    point_cloud_range=(0, 0, 0, 2, 2, 1),
    voxel_size=1.0,
    shape=(2, 2, 1),
    frame='lidar',
    free_index=0,
    class_names=('free', 'car', 'road'),
)


def volume(*ids):
    return np.array(ids, dtype=np.uint8).reshape(2, 2, 1)


def test_majority_ties_and_unlabelled_voxels():
    labels = [volume(1, 2, 255, 255), volume(1, 1, 2, 255), torch.from_numpy(volume(2, 255, 2, 255))]
    prior = most_frequent_labels(iter(labels), GRID)
    assert prior.dtype == np.uint8
    # 1 twice; 1 and 2 once each: the lower id; 2 twice; never labelled: free
    np.testing.assert_array_equal(prior, volume(1, 1, 2, 0))


def test_score_is_the_pooled_confusion():
    prior = volume(1, 1, 2, 0)
    mask = np.array([1, 1, 1, 0]).reshape(2, 2, 1)
    hist = score_static_prior(prior, [volume(1, 2, 2, 0), (volume(255, 1, 0, 1), mask)], GRID)
    np.testing.assert_array_equal(hist, [[1, 0, 1], [0, 2, 0], [0, 1, 1]])
    result = summarize_confusion(hist, 0)
    assert result['mIoU'] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_prior_beats_nothing_on_a_static_world():
    rng = np.random.default_rng(0)
    world = rng.integers(0, 3, (2, 2, 1)).astype(np.uint8)
    prior = most_frequent_labels([world] * 3, GRID)
    hist = score_static_prior(prior, [world], GRID)
    assert np.trace(hist) == 4


def test_errors():
    with pytest.raises(ValueError, match='got no training label'):
        most_frequent_labels([], GRID)
    with pytest.raises(ValueError, match=r'training label 0: expected a label volume of shape \(2, 2, 1\)'):
        most_frequent_labels([np.zeros((2, 2, 2), int)], GRID)
    with pytest.raises(ValueError, match='got no label'):
        score_static_prior(volume(0, 0, 0, 0), [], GRID)
