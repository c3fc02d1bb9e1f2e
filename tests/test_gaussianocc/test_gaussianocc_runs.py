"""Training runs of both stages on generated drives: interrupted and resumed, in two processes, without a neighbour."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch.nn.parallel import DistributedDataParallel

from projects.streets import build_config, generate_ddad

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test_occ' / 'test_engine'))

from toy_occupancy import train  # noqa: E402

REPO_ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ('gaussianocc-stage1_tiny_synthetic-ddad', 'gaussianocc_tiny_synthetic-ddad')


@pytest.fixture(scope='module')
def drives(tmp_path_factory):
    root = tmp_path_factory.mktemp('drives')
    streets = build_config(formats=('occ3d',), image_size=(96, 60), scenes_train=1, scenes_val=1, frames=4, seed=3)
    generate_ddad(streets, root, workers=1, progress=False)
    return root


def load(name, root):
    cfg = Config.fromfile(REPO_ROOT / f'configs/debug/{name}.py')
    init_default_scope('mmdet3d')
    cfg.train_dataloader.dataset.data_root = str(root)
    return cfg


def sample(cfg, index, **changes):
    pipeline = [step for step in cfg.train_dataloader.dataset.pipeline if step.type != 'JitterColors']  # draws numbers
    item = DATASETS.build({**cfg.train_dataloader.dataset, 'pipeline': pipeline, **changes})[index]
    return dict(inputs={key: [value] for key, value in item['inputs'].items()}, data_samples=[item['data_samples']])


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_interrupted_and_resumed_equals_uninterrupted(drives, tmp_path, name):
    cfg = load(name, drives)
    for split in ('val', 'test'):
        cfg.update({f'{split}_{part}': None for part in ('cfg', 'dataloader', 'evaluator')})
    cfg.train_cfg.max_epochs = 3
    cfg.default_hooks.checkpoint.save_best = None
    for run in ('whole', 'parts'):
        cfg.experiment_name = cfg.visualizer.name = f'{name}_{run}_{tmp_path.name}'
        cfg.dump(tmp_path / f'{run}.py')
    assert train(tmp_path / 'whole.py') == 0
    results = {run: tmp_path / f'work_{run}' for run in ('whole', 'parts')}
    results['parts'].mkdir()
    shutil.copy(results['whole'] / 'epoch_2.pth', results['parts'])
    assert train(tmp_path / 'parts.py', '--resume', results['parts'] / 'epoch_2.pth') == 0
    whole, resumed = (torch.load(folder / 'epoch_3.pth', weights_only=True) for folder in results.values())
    before = torch.load(results['parts'] / 'epoch_2.pth', weights_only=True)['state_dict']
    for key, value in whole['state_dict'].items():
        if torch.is_tensor(value):
            assert torch.equal(value, resumed['state_dict'][key]), key
    assert any(torch.is_tensor(v) and not torch.equal(v, before[k]) for k, v in whole['state_dict'].items())


class _Losses(torch.nn.Module):
    """The part of a training step that a data-parallel wrapper sees."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, data):
        torch.manual_seed(0)  # noise that breaks ties
        return sum(self.model(**self.model.data_preprocessor(data, True), mode='loss').values())


def gradients(name, root, index, wrap):
    cfg = load(name, root)
    torch.set_num_threads(1)  # sums in one order
    torch.manual_seed(1)
    model = MODELS.build(cfg.model).train()
    for part in model.modules():
        if hasattr(part, 'warmup_steps'):
            part.warmup_steps = 0
    module = wrap(_Losses(model))
    module(sample(cfg, index)).backward()
    return {key: value.grad for key, value in model.named_parameters() if value.requires_grad}


def step(rank, address, folder, name, root):
    torch.set_num_threads(1)
    dist.init_process_group('gloo', init_method=address, rank=rank, world_size=2)
    # nothing may be left without a gradient
    found = gradients(name, root, rank, lambda m: DistributedDataParallel(m, find_unused_parameters=False))
    torch.save(found, Path(folder) / f'{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_two_processes_have_the_mean_of_their_gradients(drives, tmp_path, name):
    mp.spawn(step, args=(f'file://{tmp_path}/rendezvous', str(tmp_path), name, str(drives)), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth', weights_only=True) for rank in range(2))
    alone = [gradients(name, drives, index, lambda m: m) for index in range(2)]
    mean = {key: (alone[0][key] + alone[1][key]) / 2 for key in first}
    whole = torch.cat([grad.flatten() for grad in mean.values()]).norm()
    errors = {}
    for key, grad in first.items():
        assert torch.equal(grad, second[key]), key
        errors[key] = float((grad - mean[key]).norm() / whole)
    assert max(errors.values()) < 1e-4, sorted(errors.items(), key=lambda item: -item[1])[:5]


@pytest.mark.parametrize('name', CONFIGS)
def test_a_frame_without_neighbours_gives_finite_losses(drives, name):
    """The first frame of a drive: its own views stand in for the frame before it."""
    cfg = load(name, drives)
    data = sample(cfg, 0, missing_frames='repeat')
    assert data['inputs']['view_missing'][0].sum() == 6
    model = MODELS.build(cfg.model).train()
    losses = model(**model.data_preprocessor(data, True), mode='loss')
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
