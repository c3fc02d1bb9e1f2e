import importlib.util
from types import SimpleNamespace

import pytest
import torch

import gaussian_rasterization
from projects.occ.engine.errors import OccError
from projects.occ.engine.hooks.rasterizer_check_hook import RasterizerCheckHook


@pytest.fixture
def runner():
    model = torch.nn.Linear(1, 1)
    model.aggregator = torch.nn.Identity()
    return SimpleNamespace(model=model, logger=SimpleNamespace())


@pytest.fixture
def absent(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)


def test_missing_rasteriser_is_told_before_training(runner, absent):
    with pytest.raises(OccError, match='not installed; install it with pip install .*diff-gaussian-rasterization'):
        RasterizerCheckHook().before_train(runner)


def test_baselines_need_none(runner, absent):
    runner.model.aggregator = None
    RasterizerCheckHook().before_train(runner)
    del runner.model.aggregator
    RasterizerCheckHook().before_train(runner)


def test_slow_reference_is_a_warning_unless_chosen(runner, monkeypatch):
    said = []
    runner.logger.warning = said.append
    built = dict(default=dict(cpu='reference', cuda='reference'), reason='it was not built', build_command='pip X')
    monkeypatch.setattr(gaussian_rasterization, 'build_config', lambda: built)
    RasterizerCheckHook().before_train(runner)
    assert said == [
        'The rasteriser has no compiled backend for cpu (it was not built); rendering will be very slow. Build it with pip X'
    ]
    runner.model.aggregator.renderer = SimpleNamespace(backend='reference')
    RasterizerCheckHook().before_train(runner)
    built['default']['cpu'] = 'cpu'
    runner.model.aggregator.renderer.backend = None
    RasterizerCheckHook().before_train(runner)
    assert len(said) == 1
