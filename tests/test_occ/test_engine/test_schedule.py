"""The length of a training and its schedule are one decision."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from toy_occupancy import REPO_ROOT, read_rates, train, write_config

from projects.occ.engine.config_options import apply_cfg_options
from projects.occ.engine.errors import ConfigOptionError
from projects.occ.engine.schedule import fit_schedule

CONFIGS = sorted(
    path
    for folder in ('tpvformer', 'surroundocc', 'symphonies', 'debug')
    for path in (REPO_ROOT / 'configs' / folder).glob('*.py')
)
WARM_UP = dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=5)
COSINE = dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, begin=0, end=20, T_max=20, convert_to_iter_based=True)


def fitted(schedule, options=(), **loop):
    cfg = Config(dict(train_cfg=loop, param_scheduler=schedule))
    fit_schedule(cfg, options)
    return cfg.param_scheduler


def rates(schedule, epochs, epoch_length):
    """Learning rate of every iteration, relative to the optimiser's."""
    optimizer = OptimWrapper(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0))
    built = [
        PARAM_SCHEDULERS.build(dict(one), default_args=dict(optimizer=optimizer, epoch_length=epoch_length)) for one in schedule
    ]
    values = []
    for iteration in range(epochs * epoch_length):
        values.append(optimizer.param_groups[0]['lr'])
        for one in built:
            if not one.by_epoch or (iteration + 1) % epoch_length == 0:
                one.step()
    return values


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('epochs', [1, 12, 20, 40])
def test_a_cosine_ends_with_the_training(epochs):
    schedule = fitted([WARM_UP, COSINE], max_epochs=epochs)
    values = rates(schedule, epochs, 50)
    assert values[-1] < 3e-3 and min(values[5:]) == values[-1]
    assert schedule[0] == WARM_UP and schedule[1].T_max == schedule[1].end == epochs
    # half of it in the middle
    assert values[len(values) // 2] == pytest.approx(0.5, abs=0.01)


@pytest.mark.filterwarnings('ignore')
def test_epochs_become_iterations():
    schedule = fitted([WARM_UP, COSINE], max_epochs=None, max_iters=300)
    assert schedule[1].to_dict() == dict(
        type='CosineAnnealingLR', eta_min_ratio=1e-3, begin=0, end=300, T_max=300, by_epoch=False
    )
    assert rates(schedule, 3, 100)[-1] < 2e-3
    steps = [dict(type='MultiStepLR', end=30, milestones=[25], gamma=0.1)]
    assert fitted(steps, max_iters=600)[0].milestones == [500]
    by_iter = [dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=6, T_max=6)]
    assert (fitted(by_iter, max_iters=9)[0].end, fitted(by_iter, max_iters=9)[0].T_max) == (9, 9)
    # how many iterations three epochs have is not known
    assert fitted(by_iter, max_epochs=3) == by_iter


@pytest.mark.parametrize(('epochs', 'milestones'), [(30, [20, 25]), (12, [8, 10]), (60, [40, 50]), (3, [2, 2]), (1, [1, 1])])
def test_milestones_move_in_proportion(epochs, milestones):
    schedule = fitted(dict(type='MultiStepLR', by_epoch=True, end=30, milestones=[20, 25]), max_epochs=epochs)
    assert (schedule.milestones, schedule.end) == (milestones, epochs)


def test_a_warm_up_in_epochs_keeps_its_length():
    parts = [
        dict(type='LinearLR', start_factor=0.1, begin=0, end=2),
        dict(type='CosineAnnealingLR', begin=2, end=20, T_max=18),
        dict(type='StepLR', step_size=5, begin=2, end=20),
        dict(type='CosineRestartLR', periods=[10, 10], restart_weights=[1, 0.5], begin=0),
        dict(type='OneCycleLR', total_steps=20, eta_max=1.0),
    ]
    linear, cosine, step, restart, cycle = fitted(parts, max_epochs=11)
    assert linear == parts[0]
    assert (cosine.begin, cosine.end, cosine.T_max) == (2, 11, 9)
    assert (step.begin, step.end, step.step_size) == (2, 11, 2)
    assert restart.periods == [6, 5] and cycle.total_steps == 11
    # no room for it
    linear, cosine, *_ = fitted(parts, max_epochs=1)
    assert (cosine.end, cosine.T_max) == (1, 1) or cosine.end > cosine.begin
    # alone it is no schedule that must reach the end
    assert fitted([WARM_UP], max_iters=200) == [WARM_UP]


def test_each_of_several_optimisers_has_its_schedule():
    schedule = fitted(dict(a=[COSINE], b=dict(type='MultiStepLR', end=10, milestones=[8])), max_epochs=5)
    assert schedule.a[0].T_max == 5 and schedule.b.milestones == [4]


@pytest.mark.parametrize('options', [['param_scheduler.0.T_max'], ['param_scheduler'], ['param_scheduler.0.milestones.0']])
def test_times_set_on_the_command_line_stay(options):
    assert fitted([COSINE], options, max_epochs=12) == [COSINE]


def test_other_options_of_a_scheduler_do_not_hold_its_times():
    assert fitted([COSINE], ['param_scheduler.0.eta_min_ratio'], max_epochs=12)[0].end == 12


def test_a_schedule_that_does_not_say_its_length_is_refused_where_it_cannot_be_meant():
    steps = [dict(type='MultiStepLR', milestones=[25])]
    assert fitted(steps, max_epochs=40) == steps
    with pytest.raises(ConfigOptionError, match=r'param_scheduler\.0\.milestones.*train_cfg\.max_epochs=12'):
        fitted(steps, max_epochs=12)


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_every_config_follows_its_length(path):
    cfg = Config.fromfile(path, import_custom_modules=False)
    before = Config.fromfile(path, import_custom_modules=False).param_scheduler
    fit_schedule(cfg)
    assert cfg.param_scheduler == before, 'fits as it is written'
    if cfg.train_cfg.get('max_epochs') is None:
        return
    apply_cfg_options(cfg, {'train_cfg.max_epochs': 4})
    fit_schedule(cfg)
    # 1000 iterations an epoch: the warm-up of 500 lies behind
    values = rates(cfg.param_scheduler, 4, 1000)
    assert values[-1] == min(values[1000:]) and values[-1] < 0.15 and values[1000] > 0.8


def test_the_tool_trains_to_the_end_of_the_schedule(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('projects.occ.engine.schedule.print_log', lambda text, **_: said.append(text))
    options = ('train_cfg.max_epochs=4', 'param_scheduler.1.eta_min_ratio=0.01', '--allow-new-keys')
    assert train(write_config(tmp_path), '--cfg-options', *options) == 0
    assert [text.split(';')[0] for text in said] == [
        'param_scheduler, written for 2 epochs, was fitted to train_cfg.max_epochs=4'
    ]
    lrs = list(read_rates(tmp_path / 'losses_toy').values())
    # seven samples in batches of two; the warm-up and the cosine multiply
    assert len(lrs) == 16 and lrs[-1] == min(lrs[3:]) < 3e-4 and lrs[8] > 3e-3
    assert Config.fromfile(tmp_path / 'work_toy/toy.py', import_custom_modules=False).param_scheduler[1].end == 4
