"""What a resumed training takes from its config, and what from the checkpoint."""

import re

import pytest
import torch
from toy_occupancy import read_losses, read_rates, train, write_config

CHANGES = {
    'lr': ("optim_wrapper['optimizer']['lr'] = 0.003\n", 'lr 0.01 -> 0.003'),
    'weight decay': ("optim_wrapper['optimizer']['weight_decay'] = 0.3\n", 'weight_decay 0.01 -> 0.3'),
    'betas': ("optim_wrapper['optimizer']['betas'] = (0.5, 0.9)\n", r'betas \(0.9, 0.999\) -> \(0.5, 0.9\)'),
    'length': ("train_cfg['max_epochs'] = 4\n", 'T_max 8 -> 16'),
    'kind': ("param_scheduler[1] = dict(type='MultiStepLR', end=2, milestones=[1], gamma=0.25)\n", 'is now MultiStepLR'),
    'number': ("param_scheduler = [dict(type='ConstantLR', factor=0.5, begin=0, end=3)]\n", '2 -> 1 schedulers'),
    'none': ('param_scheduler = None\n', '2 -> 0 schedulers'),
    'by iteration': (
        "param_scheduler[1] = dict(type='CosineAnnealingLR', by_epoch=False, begin=2, end=8, T_max=6)\n",
        'T_max 8 -> 6, begin 0 -> 2',
    ),
}


@pytest.fixture(scope='module')
def stopped(tmp_path_factory):
    """Folder of a toy training that was interrupted after the first of two epochs."""
    folder = tmp_path_factory.mktemp('stopped')
    stop = "default_hooks.update(stop=dict(type='ToyStopHook', iteration=5))\n"
    assert train(write_config(folder, 'toy', stop)) == 130
    return folder / 'work_toy' / 'epoch_1.pth'


@pytest.mark.parametrize('change', CHANGES)
def test_a_changed_setting_holds_from_the_checkpoint_on(stopped, tmp_path, capfd, change):
    option, told = CHANGES[change]
    assert train(write_config(tmp_path, 'straight', option)) == 0
    capfd.readouterr()
    config = write_config(tmp_path, 'resumed', option)
    assert train(config, '--resume', stopped) == 0
    log = capfd.readouterr().out
    assert re.search(f'resuming with settings that the config changed since the checkpoint: .*{told}', log)
    # at the rate that a run of this config has at the same iteration
    expected, resumed = read_rates(tmp_path / 'losses_straight'), read_rates(tmp_path / 'losses_resumed')
    assert min(resumed) == 4 and resumed == {step: rate for step, rate in expected.items() if step > 3}
    ends = [
        torch.load(tmp_path / f'work_{name}' / f'epoch_{(max(resumed) + 1) // 4}.pth', weights_only=True)
        for name in ('straight', 'resumed')
    ]
    groups = [end['optimizer']['param_groups'] for end in ends]
    assert groups[0] == groups[1]
    assert ends[0].get('param_schedulers') == ends[1].get('param_schedulers')


def test_nothing_is_touched_without_a_change(stopped, tmp_path, capfd):
    assert train(write_config(tmp_path, 'straight')) == 0
    capfd.readouterr()
    assert train(write_config(tmp_path, 'resumed'), '--resume', stopped) == 0
    assert 'resuming with settings' not in capfd.readouterr().out
    straight = read_losses(tmp_path / 'losses_straight')
    assert read_losses(tmp_path / 'losses_resumed') == {step: loss for step, loss in straight.items() if step > 3}


def test_rates_of_parts(tmp_path, capfd):
    parts = "optim_wrapper['paramwise_cfg'] = dict(custom_keys=dict(encoder=dict(lr_mult=0.1)))\n"
    stop = "default_hooks.update(stop=dict(type='ToyStopHook', iteration=5))\n"
    assert train(write_config(tmp_path, 'first', parts + stop)) == 130
    capfd.readouterr()
    changed = parts.replace('0.1', '0.5')
    path = tmp_path / 'work_first/epoch_1.pth'
    assert train(write_config(tmp_path, 'second', changed), '--resume', path) == 0
    assert 'lr 0.001 -> 0.005' in capfd.readouterr().out
    groups = torch.load(tmp_path / 'work_second/epoch_2.pth', weights_only=True)['optimizer']['param_groups']
    assert {group['initial_lr'] for group in groups} == {0.005, 0.01}


def test_a_schedule_by_validation_cannot_be_brought_forward(stopped, tmp_path, capfd):
    option = "param_scheduler = [dict(type='ReduceOnPlateauLR', monitor='occ/mIoU', rule='greater')]\n"
    assert train(write_config(tmp_path, 'toy', option), '--resume', stopped) == 1
    message = capfd.readouterr().err.strip().split('\n')[-1]
    assert message.startswith('error: cannot resume: ') and 'load_from' in message
