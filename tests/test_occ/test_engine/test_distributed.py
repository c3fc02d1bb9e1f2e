import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from toy_occupancy import evaluate, read_losses, train, write_config

from projects.occ.engine.checkpoint import find_latest_checkpoint
from projects.occ.engine.distributed import prepare_launch, set_sync_bn
from projects.occ.engine.errors import LaunchError


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def torchrun(repo_root):
    """Starts a script of this folder in two processes and waits for it."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(repo_root), str(here), os.environ.get('PYTHONPATH', '')])
    # without GPUs even on a machine that has some
    environment = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']

    def run(script, *arguments):
        whole = [*command, str(here / script), *map(str, arguments)]
        return subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=300)

    return run


def keep_norms(folder, name):
    return f"custom_hooks = [dict(type='ToyNormHook', path={str(folder / f'norms_{name}')!r})]\n"


def assert_validation_judged(checkpoint, path):
    """The running statistics of the last validation, on both ranks, are those of a checkpoint."""
    saved = torch.load(checkpoint, weights_only=True)['state_dict']
    for rank in (0, 1):
        used = torch.load(f'{path}.{rank}', weights_only=True)
        assert set(used) == {'encoder.1.running_mean', 'encoder.1.running_var'}
        assert all(torch.equal(value, saved[key]) for key, value in used.items())


def test_two_processes_train_resume_and_score_like_one(tmp_path, torchrun):
    loop = "train_cfg = dict(type='ResumableTrainLoop', max_epochs=2, val_interval=1)\nmodel['aggregator'] = True\n"
    for name in ('straight', 'broken'):
        write_config(tmp_path, name, loop + keep_norms(tmp_path, name))
    run = torchrun('toy_two_processes.py', tmp_path)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]

    # seven samples in batches of two on two ranks: two iterations per epoch
    for rank in (0, 1):
        losses = read_losses(tmp_path / 'losses_straight', rank)
        assert sorted(losses) == list(range(4))
        assert read_losses(tmp_path / 'losses_broken', rank) == losses
    assert read_losses(tmp_path / 'losses_straight', 0) != read_losses(tmp_path / 'losses_straight', 1)

    config = write_config(tmp_path, 'one')
    checkpoint = tmp_path / 'work_straight' / 'epoch_2.pth'
    assert_validation_judged(checkpoint, tmp_path / 'norms_straight')
    assert evaluate(config, checkpoint, '--metrics-json', tmp_path / 'one.json', '--out', tmp_path / 'one') == 0
    one, two = (json.loads((tmp_path / f'{name}.json').read_text()) for name in ('one', 'two'))
    assert one['tokens'] == [f'frame-{index}' for index in range(7)]
    assert {**one, 'source': None} == {**two, 'source': None}
    assert sum(map(sum, one['hist'])) == 7 * 24
    for index in range(7):
        first, second = (np.load(tmp_path / name / f'frame-{index}.npz')['pred'] for name in ('one', 'two'))
        np.testing.assert_array_equal(first, second)


def test_a_killed_worker_ends_the_run_and_leaves_a_checkpoint_to_resume(tmp_path, torchrun):
    extra = f"""
train_cfg = dict(type='ResumableTrainLoop', max_iters=5, val_interval=5)
default_hooks.update(checkpoint=dict(by_epoch=False, interval=1))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=5, T_max=5)]
custom_hooks = [dict(type='ToyKillHook', folder={str(tmp_path)!r}, iteration=-1)]
"""
    for name in ('straight', 'broken'):
        write_config(tmp_path, name, extra + keep_norms(tmp_path, name).replace('custom_hooks = ', 'custom_hooks += '))
    run = torchrun('toy_killed_worker.py', tmp_path, 'killed')
    assert run.returncode != 0 and 'Signal 9 (SIGKILL)' in run.stdout + run.stderr
    for rank in (0, 1):
        # nobody waits for the dead one
        assert not Path(f'/proc/{(tmp_path / f"pid.{rank}").read_text()}').exists()
    work_dir = tmp_path / 'work_broken'
    latest = find_latest_checkpoint(str(work_dir))
    done = torch.load(latest, weights_only=True)['meta']['iter']
    # rank 0 may have been stopped while it wrote the third
    assert done in (2, 3) and not (work_dir / 'iter_5.pth').exists()

    run = torchrun('toy_killed_worker.py', tmp_path, 'resumed')
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    for rank in (0, 1):
        losses = read_losses(tmp_path / 'losses_straight', rank)
        assert sorted(losses) == list(range(5)) and read_losses(tmp_path / 'losses_broken', rank) == losses
    # checkpoint and validation come inside an epoch
    assert_validation_judged(tmp_path / 'work_straight' / 'iter_5.pth', tmp_path / 'norms_straight')


def test_processes_without_launcher_are_stopped(tmp_path, monkeypatch, no_gpu, capfd):
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert train(write_config(tmp_path)) == 1
    assert 'error: 2 processes were started' in capfd.readouterr().err
    assert not list(tmp_path.glob('work_toy/*.pth'))


def test_launcher_without_its_environment(no_gpu):
    with pytest.raises(LaunchError, match='RANK, WORLD_SIZE, .* are not set; start with torchrun'):
        prepare_launch(Config(dict()), 'pytorch')
    with pytest.raises(LaunchError, match='slurm needs GPUs and none is visible'):
        prepare_launch(Config(dict()), 'slurm')


@pytest.mark.parametrize(
    ('given', 'wanted'),
    [
        (dict(), dict(find_unused_parameters=False)),
        (dict(find_unused_parameters=True), dict(find_unused_parameters=True)),
        (dict(model_wrapper_cfg=dict(static_graph=True)), dict(static_graph=True)),
        (dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', broadcast_buffers=True)), dict(broadcast_buffers=True)),
    ],
)
def test_the_model_wrapper_keeps_what_the_config_says(no_gpu, monkeypatch, given, wanted):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.setenv(name, '1')
    started = []
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda backend, **_: started.append(backend))
    cfg = Config(given)
    prepare_launch(cfg, 'pytorch')
    assert started == ['gloo'] and cfg.launcher == 'pytorch'
    expected = {'type': 'DeviceAwareDistributedDataParallel', 'broadcast_buffers': False, **wanted}
    assert cfg.model_wrapper_cfg.to_dict() == expected


def test_sync_bn_of_a_config_is_ignored_with_a_warning_without_gpus(no_gpu, monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.setenv(name, '1')
    monkeypatch.setattr(torch.distributed, 'init_process_group', lambda *args, **_: None)
    said = []
    monkeypatch.setattr('projects.occ.engine.distributed.print_log', lambda text, **_: said.append(text))
    cfg = Config(dict(sync_bn='torch'))
    prepare_launch(cfg, 'pytorch')
    assert cfg.sync_bn is None and len(said) == 1
    assert said[0].startswith("sync_bn='torch' of the config is ignored: synchronised batch normalisation needs GPUs")
    prepare_launch(Config(dict()), 'pytorch')
    assert len(said) == 1


def test_sync_bn_is_ignored_with_a_warning_without_gpus(tmp_path, no_gpu, monkeypatch):
    said = []
    monkeypatch.setattr('projects.occ.engine.distributed.print_log', lambda text, **_: said.append(text))
    assert train(write_config(tmp_path), '--sync_bn', 'torch', '--cfg-options', 'train_cfg.max_epochs=1') == 0
    assert said == ['--sync_bn is ignored: synchronised batch normalisation needs GPUs']
    cfg = Config(dict())
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    set_sync_bn(cfg, 'none')
    assert 'sync_bn' not in cfg
    set_sync_bn(cfg, 'mmcv')
    assert cfg.sync_bn == 'mmcv'
