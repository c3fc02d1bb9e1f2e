"""A complete tiny project for tests of the engine: data set with random augmentation, model with dropout, metric, config."""

import importlib.util
import random
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import torch
from mmdet3d.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
from mmengine.dataset import BaseDataset
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

from projects.occ.engine.distributed import leave_process_group
from projects.occ.structures import OccDataSample

REPO_ROOT = Path(__file__).resolve().parents[3]
SHAPE = (4, 3, 2)
CLASSES = 3
FEATURES = 5


@TRANSFORMS.register_module()
class ToyAugment:
    """Noise from the three generators that transforms use."""

    def __call__(self, results: dict) -> dict:
        noise = random.random() + np.random.rand() + torch.rand(()).item()  # noqa: NPY002 - what upstream transforms do
        results['feat'] = results['feat'] + 0.1 * noise
        return results


@TRANSFORMS.register_module()
class ToyPack:
    """Tensor and data sample."""

    def __call__(self, results: dict) -> dict:
        sample = OccDataSample(gt_occ=torch.from_numpy(results['labels']), metainfo=dict(token=results['token']))
        return dict(inputs=torch.from_numpy(results['feat']).float(), data_samples=sample)


@DATASETS.register_module()
class ToyOccDataset(BaseDataset):
    """Seven frames of which the features tell the labels; ``poison`` puts a NaN into one of them."""

    METAINFO = dict(classes=('a', 'b', 'free'), palette=np.arange(9).reshape(3, 3))

    def __init__(self, length: int = 7, poison: int = -1, **kwargs) -> None:
        self.length = length
        self.poison = poison
        super().__init__(serialize_data=False, **kwargs)

    def load_data_list(self) -> list[dict]:
        rng = np.random.default_rng(0)
        frames = []
        for index in range(self.length):
            labels = rng.integers(0, CLASSES, SHAPE).astype(np.uint8)
            feat = rng.normal(size=(*SHAPE, FEATURES)) + labels[..., None]
            if index == self.poison:
                feat[0] = np.nan
            frames.append(dict(token=f'frame-{index}', labels=labels, feat=feat))
        return frames


@MODELS.register_module()
class ToyOccModel(BaseModel):
    """A two-layer classifier of voxels with dropout; ``aggregator`` adds a loss term with a buffer of its own."""

    training_only_prefixes = ('aggregator.',)

    def __init__(self, width: int = 8, aggregator: bool = False, record_dtype: bool = False, **kwargs) -> None:
        super().__init__(**kwargs)
        self.encoder = nn.Sequential(nn.Linear(FEATURES, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5))
        self.classifier = nn.Linear(width, CLASSES)
        if aggregator:
            self.aggregator = nn.Module()
            self.aggregator.register_buffer('strength', torch.ones(()))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        feats = torch.stack(list(inputs))
        hidden = self.encoder(feats.flatten(0, -2))
        logits = self.classifier(hidden).view(*feats.shape[:-1], CLASSES)
        if mode == 'loss':
            target = torch.stack([sample.gt_occ for sample in data_samples]).long()
            self.logits_dtype = logits.dtype
            losses = dict(loss_occ_ce_0=nn.functional.cross_entropy(logits.flatten(0, -2).float(), target.flatten()))
            if hasattr(self, 'aggregator'):
                losses['loss_render_cam_sem'] = self.aggregator.strength * logits.float().square().mean()
            return losses
        for sample, label in zip(data_samples, logits.argmax(-1).to(torch.uint8), strict=True):
            sample.pred_occ = label
        return data_samples


@METRICS.register_module()
class ToyOccMetric(BaseMetric):
    """mIoU and, to be compared as integers, the pooled confusion matrix and the tokens in order."""

    default_prefix = 'occ'

    def process(self, data_batch, data_samples) -> None:
        for sample in data_samples:
            pair = sample['gt_occ'].long() * CLASSES + sample['pred_occ'].long()
            self.results.append((sample['token'], torch.bincount(pair.flatten(), minlength=CLASSES**2).numpy()))

    def compute_metrics(self, results) -> dict:
        hist = sum(counts for _, counts in results).reshape(CLASSES, CLASSES)
        iou = np.diag(hist) / (hist.sum(0) + hist.sum(1) - np.diag(hist))
        return dict(mIoU=float(iou.mean()), hist=hist.tolist(), tokens=[token for token, _ in results], nothing=float('nan'))


@HOOKS.register_module()
class ToyRecordHook(Hook):
    """Appends ``iteration loss rate`` to a file: loss and learning rate (of the last group) as exact hexadecimal floats."""

    def __init__(self, path: str) -> None:
        self.path = path

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        with open(f'{self.path}.{runner.rank}', 'a') as file:
            rate = runner.optim_wrapper.optimizer.param_groups[-1]['lr']
            file.write(f'{runner.iter} {outputs["loss"].item().hex()} {float(rate).hex()}\n')

    def after_train(self, runner) -> None:
        stop_workers(runner)


@HOOKS.register_module()
class ToyNormHook(Hook):
    """Keeps the running statistics of batch normalisation that a validation uses, a file for each process."""

    priority = 'LOW'

    def __init__(self, path: str) -> None:
        self.path = path

    def before_val_epoch(self, runner) -> None:
        state = {key.removeprefix('module.'): value for key, value in runner.model.state_dict().items()}
        torch.save({key: value for key, value in state.items() if '.running_' in key}, f'{self.path}.{runner.rank}')


@HOOKS.register_module()
class ToyDrawHook(Hook):
    """Stands for the visualisation hook: one empty picture per test batch."""

    def __init__(self, draw: bool = False, show: bool = False, wait_time: float = 0, out_dir: str | None = None) -> None:
        self.draw = draw
        self.out_dir = out_dir

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self.draw:
            (Path(self.out_dir) / f'{batch_idx}.png').write_bytes(b'')


@HOOKS.register_module()
class ToyStopHook(Hook):
    """Interrupts the training like Ctrl-C in front of an iteration."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.iteration:
            stop_workers(runner)
            raise KeyboardInterrupt


def stop_workers(runner) -> None:
    """Ends persistent workers; left to Python's garbage collector they wait five seconds each."""
    iterator = runner.train_dataloader._iterator
    if iterator is not None:
        iterator._shutdown_workers()


def read_losses(path: Path, rank: int = 0) -> dict[int, str]:
    """Losses by iteration that ToyRecordHook wrote; later lines win."""
    lines = Path(f'{path}.{rank}').read_text().split('\n')
    return {int(line.split()[0]): line.split()[1] for line in lines if line}


def read_rates(path: Path) -> dict[int, float]:
    """Learning rates by iteration that ToyRecordHook wrote."""
    lines = Path(f'{path}.0').read_text().splitlines()
    return {int(line.split()[0]): float.fromhex(line.split()[2]) for line in lines}


@cache
def load_tool(name: str) -> ModuleType:
    """A script of ``tools/`` as a module; by path, because ``test`` is also a package of Python."""
    # configs of the tests import this file by name
    sys.modules.setdefault('toy_occupancy', sys.modules[__name__])
    spec = importlib.util.spec_from_file_location(f'occ_tools_{name}', REPO_ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(config: Path, *arguments: object) -> int:
    """Runs tools/train.py in this process, with the work directory beside the config; returns the exit code."""
    return _run('train', config, *arguments)


def evaluate(config: Path, checkpoint: Path, *arguments: object) -> int:
    """Runs tools/test.py in this process, like :func:`train`."""
    return _run('test', config, checkpoint, *arguments)


def _run(tool: str, config: Path, *arguments: object) -> int:
    work_dir = config.parent / f'work_{config.stem}'
    # laying out the dumped config nicely takes most of the time of a run
    with mock.patch('mmengine.config.config.FormatCode', lambda text, **_: (text, False)):
        return load_tool(tool).main([str(config), '--work-dir', str(work_dir), *map(str, arguments)])


def write_config(folder: Path, name: str = 'toy', extra: str = '') -> Path:
    """Writes a config that inherits the real runtime config; ``extra`` is appended. Losses go to ``folder/losses_<name>``."""
    path = folder / f'{name}.py'
    path.write_text(
        f"""
_base_ = [{str(REPO_ROOT / 'configs/_base_/default_runtime.py')!r}]
custom_imports = dict(imports=['projects.occ.engine', 'toy_occupancy'])
visualizer = dict(_delete_=True, type='Visualizer', name={uuid.uuid4().hex!r})
experiment_name = {uuid.uuid4().hex!r}
default_hooks = dict(
    logger=dict(interval=1), visualization=dict(_delete_=True, type='ToyDrawHook'),
    record=dict(type='ToyRecordHook', path={str(folder / f'losses_{name}')!r}))
model = dict(type='ToyOccModel')
pipeline = [dict(type='ToyAugment'), dict(type='ToyPack')]
train_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='ToyOccDataset', pipeline=pipeline))
val_dataloader = dict(
    batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ToyOccDataset', test_mode=True, pipeline=[dict(type='ToyPack')]))
test_dataloader = val_dataloader
val_evaluator = dict(type='ToyOccMetric')
test_evaluator = val_evaluator
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2), clip_grad=dict(max_norm=35))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.3, by_epoch=False, begin=0, end=3),
    dict(type='CosineAnnealingLR', by_epoch=True, begin=0, end=2, T_max=2, convert_to_iter_based=True)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
{extra}
"""
    )
    return path


@contextmanager
def one_process_group() -> Iterator[None]:
    """Lets several tools run in one process of torchrun, which can join its group only once, and leaves it afterwards."""
    with mock.patch('projects.occ.engine.command_line.leave_process_group'):
        yield
    assert count_gloo_threads()
    leave_process_group()
    # a thread that outlives its group may abort the process in its last moment, once in some dozen runs
    assert not count_gloo_threads()


def count_gloo_threads() -> int:
    """Threads of this process that carry out collective operations."""
    return sum('gloo' in path.read_text() for path in Path('/proc/self/task').glob('*/comm'))
