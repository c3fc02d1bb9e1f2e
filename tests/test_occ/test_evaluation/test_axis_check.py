"""Predictions on other axes than their labels are told."""

import numpy as np
import pytest

from projects.occ.evaluation.axis_check import AxisCheck
from projects.occ.structures import VoxelGrid

GRID = VoxelGrid((-4, -4, -1, 4, 4, 3), 0.5, (16, 16, 8), 'ego', 0, class_names=('free', 'a', 'b', 'c', 'd'))


def scene(seed):
    rng = np.random.default_rng(seed)
    labels = np.zeros(GRID.shape, dtype=np.uint8)
    labels[:, :, :2] = rng.integers(1, 5, (4, 4, 2)).repeat(4, 0).repeat(4, 1)
    labels[:3] = GRID.ignore_index
    return labels


@pytest.mark.parametrize(
    'move, words',
    [
        (lambda volume: volume, ''),
        (lambda volume: volume[::-1], 'x flipped'),
        (lambda volume: volume[:, ::-1], 'y flipped'),
        (lambda volume: volume[:, :, ::-1], 'z flipped'),
        (lambda volume: volume.swapaxes(0, 1), 'x and y swapped'),
        (lambda volume: np.rot90(volume), 'x and y swapped, then'),
    ],
)
def test_moved_axes_are_named(move, words):
    check = AxisCheck(GRID)
    rng = np.random.default_rng(0)
    for seed in range(3):
        gt = scene(seed)
        pred = np.where((rng.random(gt.shape) < 0.2) | (gt == 255), 0, gt).astype(np.uint8)
        check.add(move(pred), gt)
    sentence = check.sentence()
    assert sentence.startswith(f'with {words}') if words else sentence == ''


def test_predictions_of_a_bad_network_say_nothing():
    check = AxisCheck(GRID, frames=2)
    for seed in range(4):
        check.add(np.random.default_rng(seed).integers(0, 5, GRID.shape), scene(seed))
    assert check.left == 0 and check.sentence() == ''
    assert AxisCheck(GRID).sentence() == ''


def test_axes_of_different_lengths_are_not_swapped():
    grid = VoxelGrid((-4, -3, -1, 4, 3, 3), 0.5, (16, 12, 8), 'ego', 0, class_names=('free', 'a', 'b'))
    gt = np.zeros(grid.shape, dtype=np.uint8)
    gt[:5, :7, :2] = 1
    check = AxisCheck(grid)
    check.add(gt[:, ::-1], gt)
    assert check.sentence().startswith('with y flipped, 100 %')
