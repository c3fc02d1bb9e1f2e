"""A training step hardly ever waits for the GPU: measured on the CPU, by the operators that would."""

import importlib.util
import sys

import pytest
import torch
from host_waits import HostWaits
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

CONFIGS = (
    'tpvformer_tiny_synthetic-occ3d_gaussrender',
    'tpvformer_tiny_synthetic-occ3d_gaussrender-march',
    'surroundocc_tiny_synthetic-surroundocc_gaussrender',
    'symphonies_tiny_synthetic-sscbench-kitti360_gaussrender',
)
# One camera and the bird's-eye view are rendered, prediction and label of each.
RENDERED = 4


@pytest.fixture(scope='module')
def measured_step(repo_root):
    spec = importlib.util.spec_from_file_location('measured_step', repo_root / 'tests/benchmarks/measured_step.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_counter_counts():
    numbers = torch.arange(6.0)
    with HostWaits() as waits:
        _ = numbers[numbers > 2], numbers.sum().item(), (numbers > 1).nonzero(), numbers[torch.tensor([1, 2])]
    assert {name for name, _ in waits.counts} == {'index', '_local_scalar_dense', 'nonzero'} and waits.total == 3


@pytest.mark.parametrize('name', CONFIGS)
def test_a_training_step_waits_at_most_four_times_and_once_per_rendered_view(repo_root, measured_step, name):
    cfg = Config.fromfile(repo_root / f'configs/debug/{name}.py')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    data = model.data_preprocessor(pseudo_collate([measured_step.made_up_frame(cfg)]), True)
    with HostWaits() as waits:
        losses = model(data['inputs'], data['data_samples'], mode='loss')
        sum(losses.values()).backward()
    assert sum(name.startswith('loss_render') for name in losses) == 4
    assert waits.total <= 4 + RENDERED, '\n'.join(map(str, waits.counts.items()))
