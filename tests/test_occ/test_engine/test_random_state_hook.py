import random

import numpy as np
import pytest
import torch
from toy_occupancy import read_losses, train, write_config

from projects.occ.engine.hooks.random_state_hook import SeededFetch, seed_everything

INSIDE_EPOCHS = """
train_cfg = dict(type='ResumableTrainLoop', max_epochs=2, val_interval=1)
default_hooks.update(checkpoint=dict(by_epoch=False, interval=1, max_keep_ckpts=20))
"""


def loaders(num_workers, persistent=False):
    return f'train_dataloader.update(num_workers={num_workers}, persistent_workers={persistent})\n'


def draws():
    return random.random(), np.random.rand(), torch.rand(2).tolist()  # noqa: NPY002


def test_seeds_reach_all_generators_and_tell_parts_apart():
    seed_everything(3, 1, 5)
    first = draws()
    seed_everything(3, 1, 5)
    assert draws() == first
    for other in ((4, 1, 5), (3, 5, 1), (3, 1, 6), (3, 1)):
        seed_everything(*other)
        assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_a_sample_depends_on_seed_epoch_and_index_alone():
    class Noise:
        def __getitem__(self, index):
            return index, draws()

    epoch = torch.zeros((), dtype=torch.int64)
    fetch = SeededFetch(Noise(), 7, epoch)
    together = fetch([2, 0, 1])
    assert together == [fetch([2])[0], fetch([0])[0], fetch([1])[0]]
    assert [index for index, _ in together] == [2, 0, 1]
    epoch.fill_(1)
    assert fetch([2])[0] != together[0]
    assert SeededFetch(Noise(), 8, epoch)([2])[0] != fetch([2])[0]


@pytest.mark.parametrize(('workers', 'persistent'), [(0, False), (2, False), (2, True)])
def test_resumed_training_gives_the_losses_of_an_uninterrupted_one(tmp_path, workers, persistent):
    assert train(write_config(tmp_path, 'straight', loaders(workers, persistent))) == 0
    straight = read_losses(tmp_path / 'losses_straight')
    assert sorted(straight) == list(range(8)) and len(set(straight.values())) == 8

    # killed by Ctrl-C in the middle of the second epoch: starts again from the end of the first
    stop = "default_hooks.update(stop=dict(type='ToyStopHook', iteration=6))\n"
    assert train(write_config(tmp_path, 'broken', loaders(workers, persistent) + stop)) == 130
    config = write_config(tmp_path, 'broken', loaders(workers, persistent))
    before = read_losses(tmp_path / 'losses_broken')
    assert sorted(before) == list(range(6))
    assert train(config, '--resume') == 0
    assert read_losses(tmp_path / 'losses_broken') == straight


def test_number_of_workers_does_not_change_the_losses(tmp_path):
    for workers in (0, 2):
        assert train(write_config(tmp_path, f'w{workers}', loaders(workers))) == 0
    assert read_losses(tmp_path / 'losses_w0') == read_losses(tmp_path / 'losses_w2')


def test_without_the_hook_the_resumed_losses_differ(tmp_path):
    # proves that the toy project needs the hook: dropout and augmentation are really random
    off = "default_hooks.update(random_state=dict(type='EmptyCacheHook', _delete_=True))\n"
    assert train(write_config(tmp_path, 'straight', off)) == 0
    config = write_config(tmp_path, 'broken', off)
    times = ('param_scheduler.1.end=2', 'param_scheduler.1.T_max=2')
    assert train(config, '--cfg-options', 'train_cfg.max_epochs=1', *times) == 0
    assert train(config, '--resume') == 0
    first, second = read_losses(tmp_path / 'losses_straight'), read_losses(tmp_path / 'losses_broken')
    assert [first[i] == second[i] for i in range(8)] == [True] * 4 + [False] * 4


@pytest.mark.parametrize('iteration', [4, 7])
def test_resumes_inside_an_epoch(tmp_path, iteration):
    assert train(write_config(tmp_path, 'straight', INSIDE_EPOCHS + loaders(2))) == 0
    stop = f"default_hooks.update(stop=dict(type='ToyStopHook', iteration={iteration}))\n"
    assert train(write_config(tmp_path, 'broken', INSIDE_EPOCHS + loaders(0) + stop)) == 130
    assert train(write_config(tmp_path, 'broken', INSIDE_EPOCHS + loaders(2)), '--resume') == 0
    # nothing was trained twice, nothing left out
    lines = (tmp_path / 'losses_broken.0').read_text().split('\n')[:-1]
    assert [int(line.split()[0]) for line in lines] == list(range(8))
    assert read_losses(tmp_path / 'losses_broken') == read_losses(tmp_path / 'losses_straight')


def test_says_when_a_resumed_run_cannot_be_exact(tmp_path, capfd):
    by_iteration = 'default_hooks.update(checkpoint=dict(by_epoch=False, interval=1, max_keep_ckpts=20))\n'
    config = write_config(tmp_path, 'toy', by_iteration)
    assert train(config) == 0
    assert train(config, '--resume', tmp_path / 'work_toy/iter_6.pth') == 0
    assert "starts again from its first batch; train_cfg.type='ResumableTrainLoop'" in capfd.readouterr().out

    endless = """
train_cfg = dict(type='IterBasedTrainLoop', max_iters=2)
train_dataloader.update(sampler=dict(type='InfiniteSampler'))
param_scheduler = None
"""
    assert train(write_config(tmp_path, 'endless', endless)) == 0
    assert 'IterBasedTrainLoop cannot be resumed exactly' in capfd.readouterr().out
