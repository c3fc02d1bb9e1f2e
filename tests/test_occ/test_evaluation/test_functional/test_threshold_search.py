"""Thresholds counted at once against one confusion matrix per threshold."""

import numpy as np
import pytest

from projects.occ.evaluation.functional import ThresholdSearch, summarize_confusion, voxel_confusion
from projects.occ.structures import VoxelGrid

GRID = VoxelGrid((0, 0, 0, 12, 10, 4), 1.0, (12, 10, 4), 'ego', 1, class_names=('wall', 'free', 'floor'))


def frames(count=3, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        gt = rng.choice([0, 1, 1, 2, 255], GRID.shape)
        density = np.where((gt == 1) | (gt == 255), rng.normal(2, 3, GRID.shape), rng.normal(9, 3, GRID.shape))
        classes = np.where(rng.random(GRID.shape) < 0.8, np.where(gt == 2, 2, 0), 2)
        yield density, classes, gt, rng.random(GRID.shape) < 0.7


@pytest.mark.parametrize('masked', [False, True])
def test_scores_are_those_of_confusion_matrices(masked):
    search, data = ThresholdSearch(GRID), list(frames())
    for density, classes, gt, mask in data:
        search.add(density, classes, gt, mask if masked else None)
    iou, miou = search.scores()
    for place in range(0, len(search.thresholds), 97):
        hist = sum(
            voxel_confusion(np.where(d > search.thresholds[place], c, 1), gt, 3, mask if masked else None)
            for d, c, gt, mask in data
        )
        summary = summarize_confusion(hist, 1)
        assert (iou[place], miou[place]) == pytest.approx((summary['IoU'], summary['mIoU']), abs=1e-12)


def test_the_best_one():
    search = ThresholdSearch(GRID)
    gt = np.full(GRID.shape, 1)
    gt[:3] = 0
    search.add(np.where(gt == 0, 9.0, 8.0), np.zeros(GRID.shape, dtype=int), gt)
    threshold, scores = search.best('IoU')
    assert 8.3 < threshold < 8.7 and scores == dict(IoU=1, mIoU=1)


def test_what_does_not_fit_is_named():
    search = ThresholdSearch(GRID)
    empty = np.zeros(GRID.shape, dtype=int)
    with pytest.raises(ValueError, match='counts'):
        search.best()
    with pytest.raises(ValueError, match='shape'):
        search.add(np.zeros((2, 2, 2)), empty, empty)
    with pytest.raises(ValueError, match='finite'):
        search.add(np.full(GRID.shape, np.nan), empty, empty)
    with pytest.raises(ValueError, match='F1'):
        search.best('F1')
