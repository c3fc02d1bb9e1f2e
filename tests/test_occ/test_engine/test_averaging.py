"""The ramp of the moving average, its buffers, and saving."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from projects.occ.engine.averaging import RampedEMA


def decay_after(average, model):
    """The decay of one update, measured on a weight of 0 that becomes 1."""
    with torch.no_grad():
        model.weight.fill_(1.0)
        average.module.weight.zero_()
    average.update_parameters(model)
    return 1 - float(average.module.weight[0])


def test_the_first_updates_average_too():
    model = nn.BatchNorm1d(1)
    average = RampedEMA(model)
    assert decay_after(average, model) == pytest.approx(0.993915, abs=1e-6)
    assert decay_after(average, model) == pytest.approx(0.999 * (1 - math.exp(-10562 / 2000)), abs=1e-6)


def test_decays_of_the_reference(golden_dir):
    cases = np.load(golden_dir / 'rendering_supervision_small.npz')
    counts, decays = cases['ema/update_index'], cases['ema/decay_megvii_0.999']
    model = nn.BatchNorm1d(1).double()
    assert counts.min() > 1
    for count, decay in zip(counts, decays, strict=True):
        average = RampedEMA(model, start=int(count) - 1)
        assert decay_after(average, model) == pytest.approx(float(decay), rel=1e-9)


def test_statistics_of_norms_are_averaged_or_copied():
    for update_buffers in (True, False):
        model = nn.BatchNorm1d(2)
        average = RampedEMA(model, update_buffers=update_buffers)
        model.running_mean.fill_(2.0)
        average.update_parameters(model)
        expected = 2 * (1 - 0.993915) if update_buffers else 2.0
        assert average.module.running_mean.tolist() == pytest.approx([expected] * 2, rel=1e-3)


def test_a_resumed_average_goes_on():
    model = nn.BatchNorm1d(2)
    average = RampedEMA(model, start=3)
    for _ in range(4):
        average.update_parameters(model)
    again = RampedEMA(model, start=3)
    again.load_state_dict(average.state_dict())
    assert again.steps == 7
    assert decay_after(again, model) == pytest.approx(0.999 * (1 - math.exp(-8 / 2000)), abs=1e-6)
