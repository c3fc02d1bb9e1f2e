"""Paired statistics on made-up data whose answer is known."""

import numpy as np
import pytest

from projects.occ.evaluation.functional import (
    RayCounts,
    class_counts,
    holm,
    mean_iou,
    occupied_counts,
    paired_bootstrap,
    ratio_of_sums,
    ray_iou_of_counts,
    summarize_confusion,
    summarize_rays,
)
from projects.occ.structures import VoxelGrid

GRID = VoxelGrid((0, 0, 0, 2, 2, 2), 1.0, (2, 2, 2), 'ego', 2, class_names=('wall', 'floor', 'free'))


def shares(values, cases=100):
    """(S, N, 2) sums and cases of shares (S, N)."""
    values = np.asarray(values, dtype=float)
    return np.stack([values * cases, np.full(values.shape, cases)], -1)


def test_the_same_everywhere_has_no_spread():
    a = shares(np.full((3, 10), 0.6))
    found = paired_bootstrap(a, shares(np.full((3, 10), 0.5)), ratio_of_sums, draws=500)
    assert (found.a, found.b) == pytest.approx((0.6, 0.5))
    assert (found.difference, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.verdict == 'higher' and found.p == pytest.approx(2 / 501) and (found.seeds, found.scenes) == (3, 10)


def test_scenes_that_vary_alike_in_both_rows_cancel_out():
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 0.8, (3, 8))
    paired = paired_bootstrap(shares(hard + 0.02), shares(hard), ratio_of_sums, draws=2000)
    assert paired.verdict == 'higher' and paired.high - paired.low < 1e-9
    lower = paired_bootstrap(shares(hard), shares(hard + 0.02), ratio_of_sums, draws=200)
    assert lower.verdict == 'lower'


def test_interval_of_scenes_is_that_of_their_mean():
    # one seed, scenes of equal size: the pooled share is a mean of scenes, its standard error is known
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.1, (1, 40))
    found = paired_bootstrap(shares(0.5 + noise), shares(np.full((1, 40), 0.5)), ratio_of_sums, draws=10000)
    error = noise.std() / np.sqrt(40)
    assert found.difference == pytest.approx(noise.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.04)


def test_seeds_that_disagree_leave_it_open():
    # scenes agree within a seed, so without the level of seeds the interval would have no width
    a = shares(np.array([[0.7], [0.5], [0.45]]).repeat(20, 1))
    found = paired_bootstrap(a, shares(np.full((3, 20), 0.5)), ratio_of_sums, draws=4000)
    assert found.verdict == 'open' and found.low == pytest.approx(-0.05) and found.high == pytest.approx(0.2)


def test_counts_are_pooled_and_not_averaged():
    a = np.array([[[90.0, 100], [0, 1]]])
    b = np.array([[[50.0, 100], [1, 1]]])
    found = paired_bootstrap(a, b, ratio_of_sums, draws=100)
    assert found.a == pytest.approx(90 / 101) and found.b == pytest.approx(51 / 101)


def test_nothing_but_noise_is_rarely_a_finding():
    rng = np.random.default_rng(2)
    found = []
    for _ in range(100):
        a, b = (shares(0.5 + rng.normal(0, 0.05, (3, 12)) + rng.normal(0, 0.02, (3, 1))) for _ in range(2))
        found.append(paired_bootstrap(a, b, ratio_of_sums, draws=400).verdict)
    # the nominal share is 5; with three seeds a percentile interval is a little too narrow
    assert 100 - found.count('open') <= 15


def test_several_arrays_and_draws_without_a_case():
    a = dict(x=np.array([[1.0, 0.0]]), y=np.array([[1.0, 0.0]]))
    found = paired_bootstrap(a, a, lambda pooled: ratio_of_sums(np.stack([pooled['x'], pooled['y']], -1)), draws=100)
    assert found.difference == 0 and found.p == 1
    with pytest.raises(ValueError, match='NaN'):
        paired_bootstrap(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), ratio_of_sums, draws=10)
    with pytest.raises(ValueError, match='seeds'):
        paired_bootstrap(np.zeros((1, 2, 2)), np.zeros((2, 2, 2)), ratio_of_sums)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    found = holm([0.5, np.nan, 0.02])
    assert found[[0, 2]] == pytest.approx([0.5, 0.04]) and np.isnan(found[1])
    assert holm([0.9, 0.8]).tolist() == [1, 1] and holm([]).size == 0


def test_metrics_of_counts_are_those_of_the_reports():
    rng = np.random.default_rng(3)
    hist = rng.integers(0, 50, (4, 3, 3))
    hist[1, 0] = 0
    summaries = [summarize_confusion(matrix, 2) for matrix in hist]
    assert mean_iou(class_counts(hist), 2) == pytest.approx([summary['mIoU'] for summary in summaries], rel=1e-12)
    assert ratio_of_sums(occupied_counts(hist, 2)) == pytest.approx([summary['IoU'] for summary in summaries], rel=1e-12)
    assert np.isnan(mean_iou(np.zeros((3, 3)), 2))
    right = rng.integers(0, 20, (4, 3, 3))
    counts = np.concatenate([right, rng.integers(20, 60, (4, 2, 3))], 1)
    expected = [summarize_rays(RayCounts(c[:-2], c[-2], c[-1]), GRID) for c in counts]
    assert ray_iou_of_counts(counts, 2) == pytest.approx([item['RayIoU'] for item in expected], rel=1e-12)
    assert ray_iou_of_counts(counts, 2, 1) == pytest.approx([item['RayIoU@2'] for item in expected], rel=1e-12)
