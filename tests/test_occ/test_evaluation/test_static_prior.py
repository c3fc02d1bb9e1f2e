"""The most frequent class per voxel and its score."""

import numpy as np
import pytest
import torch

from projects.occ.evaluation.functional import summarize_confusion
from projects.occ.evaluation.static_prior import most_frequent_class, score_static_prior


def volume(*ids):
    return np.array(ids, dtype=np.uint8).reshape(2, 2, 1)


def test_majority_ties_and_unlabelled_voxels():
    labels = [volume(2, 1, 255, 255), volume(2, 2, 1, 255), torch.from_numpy(volume(1, 255, 1, 255))]
    prior = most_frequent_class(iter(labels), 3)
    assert prior.dtype == np.uint8
    # 2 twice; 1 and 2 once each: the lower id; 1 twice; never labelled: 1 is the most frequent (4 of 7 labels)
    np.testing.assert_array_equal(prior, volume(2, 1, 1, 1))


def test_score_is_the_pooled_confusion():
    mask = np.array([1, 1, 1, 0]).reshape(2, 2, 1)
    hist = score_static_prior(volume(1, 1, 2, 0), [volume(1, 2, 2, 0), (torch.from_numpy(volume(255, 1, 0, 1)), mask)], 3)
    np.testing.assert_array_equal(hist, [[1, 0, 1], [0, 2, 0], [0, 1, 1]])
    assert summarize_confusion(hist, 0)['mIoU'] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_static_world_is_learned_by_heart():
    world = np.random.default_rng(0).integers(0, 18, (6, 5, 4)).astype(np.uint8)
    noisy = world.copy()
    noisy[0] = 17
    prior = most_frequent_class([world, noisy, world], 18)
    np.testing.assert_array_equal(prior, world)


def test_errors():
    with pytest.raises(ValueError, match='got no training label'):
        most_frequent_class([], 3)
    with pytest.raises(ValueError, match=r'one shape, got \(2, 2, 1\) and \(2, 2\)'):
        most_frequent_class([volume(0, 0, 0, 0), np.zeros((2, 2), int)], 3)
    with pytest.raises(ValueError, match=r'labels hold class ids 0\.\.3, expected 0\.\.2 or ignore_index=255'):
        most_frequent_class([volume(0, 0, 3, 255)], 3)
    with pytest.raises(ValueError, match='same shape'):
        score_static_prior(volume(0, 0, 0, 0), [np.zeros((2, 2), int)], 3)
