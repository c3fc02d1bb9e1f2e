import copy
import re

import pytest
import torch
from toy_occupancy import train, write_config


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Config and checkpoint of one epoch."""
    folder = tmp_path_factory.mktemp('trained')
    config = write_config(folder)
    assert train(config, '--cfg-options', 'train_cfg.max_epochs=1') == 0
    return config, torch.load(folder / 'work_toy' / 'epoch_1.pth', weights_only=True)


def put(path, value):
    def change(content):
        *parents, key = path.split('/')
        for parent in parents:
            content = content[int(parent) if parent.isdigit() else parent]
        content[int(key) if key.isdigit() else key] = value

    return change


def drop(*keys):
    return lambda content: [content.pop(key) for key in keys]


@pytest.mark.parametrize(
    'change, named',
    [
        (drop('meta', 'message_hub', 'optimizer', 'param_schedulers'), 'holds weights only.*load_from'),
        (drop('optimizer'), r'lacks optimizer'),
        (put('meta', [1]), 'meta'),
        (put('message_hub', 'text'), 'message_hub'),
        (put('message_hub/log_scalars', {3: 4}), 'message_hub.log_scalars'),
        (put('message_hub/log_scalars/loss', dict(max_length=1, log='a', count=2)), 'log_scalars.loss'),
        (put('message_hub/runtime_info', None), 'message_hub.runtime_info'),
        (put('message_hub/resumed_keys', 7), 'message_hub.resumed_keys'),
        (put('meta/iter', '4'), 'meta.iter'),
        (put('meta/iter', -1), 'meta.iter'),
        (put('meta/iter', True), 'meta.iter'),
        (put('meta/epoch', 10**100), 'meta.epoch'),
        (put('meta/seed', 'x'), 'meta.seed'),
        (put('meta/seed', -5), 'meta.seed'),
        (put('optimizer', torch.ones(3)), 'optimizer'),
        (put('optimizer/param_groups', {}), 'optimizer.param_groups'),
        (put('optimizer/param_groups/0/params', 'ab'), 'param_groups.0.params'),
        (put('optimizer/param_groups/0/lr', 'fast'), 'param_groups.0.lr'),
        (put('optimizer/param_groups/0/lr', float('nan')), 'param_groups.0.lr'),
        (put('optimizer/state', [1]), 'optimizer.state'),
        (put('optimizer/state/0/exp_avg', torch.ones(77)), 'optimizer.state.0.exp_avg'),
        (put('optimizer/state/0', 5), 'optimizer.state'),
        (put('param_schedulers', 5), 'param_schedulers'),
        (put('param_schedulers/0', [1]), 'param_schedulers'),
        (put('param_schedulers/0/step', 5), 'param_schedulers.0'),
        (put('state_dict/5', torch.ones(1)), '5 is no name of a weight'),
        (put('state_dict/classifier.bias', torch.ones(3, dtype=torch.int64)), 'classifier.bias torch.int64'),
        (put('state_dict/classifier.bias', 'abc'), 'classifier.bias'),
    ],
)  # fmt: skip
def test_a_wrong_training_state_is_one_sentence(trained, tmp_path, capfd, change, named):
    config, good = trained
    content = copy.deepcopy(good)
    change(content)
    torch.save(content, tmp_path / 'bad.pth')
    assert train(config, '--resume', tmp_path / 'bad.pth', '--cfg-options', 'train_cfg.max_epochs=2') == 1
    last = capfd.readouterr().err.strip().split('\n')[-1]
    assert last.startswith('error: ')
    assert re.search(named, last), last


def test_weights_of_such_a_file_still_initialise(trained, tmp_path):
    config, good = trained
    content = dict(copy.deepcopy(good), message_hub=5, meta='text')
    torch.save(content, tmp_path / 'odd.pth')
    assert train(config, '--cfg-options', f'load_from={tmp_path / "odd.pth"}', 'train_cfg.max_epochs=1') == 0
