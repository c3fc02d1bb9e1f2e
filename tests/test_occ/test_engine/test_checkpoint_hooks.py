import os
import re
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from toy_occupancy import evaluate, train, write_config

from projects.occ.engine.file_io import AtomicLocalBackend
from projects.occ.engine.hooks.checkpoint_hooks import PlainCheckpointHook, to_plain


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Work directory of one finished toy training."""
    folder = tmp_path_factory.mktemp('trained')
    config = write_config(folder)
    assert train(config, '--cfg-options', 'train_cfg.max_epochs=3') == 0
    return folder / 'work_toy'


def last_error(capfd):
    return capfd.readouterr().err.strip().split('\n')[-1]


def test_plain_data():
    class Thing:
        def __repr__(self):
            return 'a thing'

    plain = to_plain(
        ConfigDict(a=dict(b=[np.float64(1.5), np.int64(2)]), c=(np.arange(3), np.array(['x', 'y'])), d=torch.ones(1), e=Thing())
    )
    assert type(plain) is dict and type(plain['a']) is dict and plain['a'] == {'b': [1.5, 2]}
    assert [type(value) for value in plain['a']['b']] == [float, int]
    assert isinstance(plain['c'], tuple) and plain['c'][0].tolist() == [0, 1, 2] and plain['c'][1] == ['x', 'y']
    assert plain['d'].tolist() == [1] and plain['e'] == 'a thing'


def test_history_survives_saving_and_loading(tmp_path):
    hook, runner = PlainCheckpointHook(), SimpleNamespace(cfg=dict(resume=False))
    buffer = HistoryBuffer([0.1, 0.2, 0.7], [1, 1, 2], max_length=5)
    stock = HistoryBuffer([4.0], [1])
    checkpoint = dict(
        meta=dict(epoch=1),
        message_hub=dict(
            log_scalars=OrderedDict(loss=buffer),
            runtime_info=OrderedDict(eta=np.float64(9)),
            resumed_keys=OrderedDict(loss=True),
        ),
    )
    hook.before_save_checkpoint(runner, checkpoint)
    torch.save(checkpoint, tmp_path / 'plain.pth')
    assert torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / 'plain.pth') == []

    loaded = torch.load(tmp_path / 'plain.pth', weights_only=True)
    loaded['message_hub']['log_scalars']['other'] = stock
    hook.after_load_checkpoint(runner, loaded)
    back = loaded['message_hub']['log_scalars']
    assert back['other'] is stock
    assert (back['loss'].data[0].tolist(), back['loss'].data[1].tolist()) == ([0.1, 0.2, 0.7], [1, 1, 2])
    assert back['loss'].max_length == 5
    back['loss'].update(1.0)
    assert back['loss'].current() == 1.0
    hook.after_load_checkpoint(runner, dict(weight=torch.ones(1)))


def test_checkpoints_are_plain_old_ones_are_removed_and_no_rest_remains(trained):
    assert sorted(path.name for path in trained.glob('*.pth')) == sorted(
        ['epoch_2.pth', 'epoch_3.pth', next(trained.glob('best_occ_mIoU_epoch_*.pth')).name]
    )
    assert not list(trained.glob('.*'))
    for path in trained.glob('*.pth'):
        assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []
    checkpoint = torch.load(trained / 'epoch_3.pth', weights_only=True)
    assert checkpoint['meta']['epoch'] == 3
    # numpy arrays of the data set's description are tensors in the file
    assert checkpoint['meta']['dataset_meta']['palette'].shape == (3, 3)


def test_resuming_does_not_take_the_data_set_for_another(trained, tmp_path, capfd):
    config = write_config(tmp_path)
    assert train(config, '--resume', trained / 'epoch_2.pth', '--cfg-options', 'train_cfg.max_epochs=3') == 0
    log = capfd.readouterr().out
    assert 'resumed epoch: 2, iter: 8' in log
    assert 'dataset metainfo' not in log


def test_a_crash_while_saving_leaves_the_older_checkpoints(tmp_path, monkeypatch):
    config = write_config(tmp_path, extra='default_hooks.update(checkpoint=dict(max_keep_ckpts=1, save_best=None))\n')
    assert train(config, '--cfg-options', 'train_cfg.max_epochs=1') == 0
    work_dir = tmp_path / 'work_toy'
    good = (work_dir / 'epoch_1.pth').read_bytes()

    def full(self, obj, filepath):
        raise OSError('No space left on device')

    monkeypatch.setattr(AtomicLocalBackend, 'put', full)
    with pytest.raises(OSError, match='No space'):
        train(config, '--resume')
    monkeypatch.undo()
    assert (work_dir / 'epoch_1.pth').read_bytes() == good
    assert train(config, '--resume') == 0
    assert sorted(path.name for path in work_dir.glob('*.pth')) == ['epoch_2.pth']


def test_a_stock_checkpoint_of_mmengine_resumes(tmp_path):
    config = write_config(tmp_path, extra="default_hooks.update(plain_checkpoint=dict(type='EmptyCacheHook', _delete_=True))\n")
    assert train(config, '--cfg-options', 'train_cfg.max_epochs=1') == 0
    stock = tmp_path / 'work_toy' / 'epoch_1.pth'
    assert torch.serialization.get_unsafe_globals_in_checkpoint(stock) == [] or 'HistoryBuffer' in stock.read_bytes().decode(
        'latin1'
    )
    assert train(write_config(tmp_path), '--resume', stock) == 0


def test_save_best_of_an_unknown_metric(tmp_path, capfd):
    config = write_config(tmp_path, extra="default_hooks.update(checkpoint=dict(save_best='occ/mIuO'))\n")
    assert train(config) == 1
    assert "save_best asks for ['occ/mIuO'], but the evaluation returned ['occ/hist'" in last_error(capfd)


def test_checkpoint_of_another_model_is_refused_when_testing_and_resuming(trained, tmp_path, capfd):
    config = write_config(tmp_path, extra="model['width'] = 9\n")
    for run, *arguments in ((evaluate,), (train, '--resume')):
        assert run(config, *arguments, trained / 'epoch_3.pth') == 1
        message = last_error(capfd)
        assert message.startswith('error: the checkpoint does not fit the model of this config: 2 of 9 model entries match; ')
        assert 'encoder.0.weight (8, 5) in the checkpoint, (9, 5) in the model' in message
        assert 'Use the config that it was trained with' in message


def save_weights(path: Path, weights: dict) -> Path:
    torch.save(dict(state_dict=weights), path)
    return path


def test_initialising_from_other_weights_reports_and_needs_one_match(trained, tmp_path, capfd):
    weights = torch.load(trained / 'epoch_3.pth', weights_only=True)['state_dict']
    part = save_weights(tmp_path / 'part.pth', {key: value for key, value in weights.items() if key.startswith('encoder')})
    config = write_config(tmp_path)
    assert train(config, '--cfg-options', f'load_from={part}', 'train_cfg.max_epochs=1') == 0
    assert 'fits the model in part: 7 of 9 model entries match; only in the model: classifier.* (2)' in capfd.readouterr().out

    alien = save_weights(tmp_path / 'alien.pth', {f'net.{key}': value for key, value in weights.items()})
    assert train(config, '--cfg-options', f'load_from={alien}') == 1
    assert '0 of 8 model entries match; only in the model: encoder.*' in last_error(capfd)
    torch.save([1, 2], tmp_path / 'list.pth')
    assert train(config, '--cfg-options', f'load_from={tmp_path / "list.pth"}') == 1
    assert 'holds no weights' in last_error(capfd)


def test_weights_of_a_wrapped_model_fit(trained, tmp_path):
    weights = torch.load(trained / 'epoch_3.pth', weights_only=True)['state_dict']
    path = save_weights(tmp_path / 'wrapped.pth', {f'module.{key}': value for key, value in weights.items()})
    assert evaluate(write_config(tmp_path), path) == 0


def test_checkpoints_with_and_without_rendering_interchange(trained, tmp_path, capfd):
    rendered = write_config(tmp_path, 'rendered', "model['aggregator'] = True\n")
    assert evaluate(rendered, trained / 'epoch_3.pth') == 0
    assert 'Skipped entries that only training uses (0 in the checkpoint, 1 in the model; first: aggregator.strength)' in (
        capfd.readouterr().out
    )
    assert train(rendered, '--cfg-options', 'train_cfg.max_epochs=1') == 0
    checkpoint = tmp_path / 'work_rendered' / 'epoch_1.pth'
    assert 'aggregator.strength' in torch.load(checkpoint, weights_only=True)['state_dict']
    capfd.readouterr()
    assert evaluate(write_config(tmp_path, 'baseline'), checkpoint) == 0
    log = capfd.readouterr().out
    assert '(1 in the checkpoint, 0 in the model; first: aggregator.strength)' in log
    assert 'unexpected key' not in log


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        (
            "optim_wrapper['paramwise_cfg'] = dict(custom_keys=dict(encoder=dict(lr_mult=0.1)))",
            'the optimiser of the checkpoint holds 6 parameters in 1 groups, '
            r'the one of this config \d parameters in \d groups',
        ),
        (
            "optim_wrapper['optimizer'] = dict(type='SGD', lr=0.1, momentum=0.9)",
            'has .*betas.*, the one of this config .*momentum',
        ),
    ],
)
def test_resuming_needs_the_same_optimiser(trained, tmp_path, capfd, option, message):
    config = write_config(tmp_path, extra=option)
    assert train(config, '--resume', trained / 'epoch_2.pth') == 1
    error = last_error(capfd)
    assert re.search(message, error) and error.startswith('error: cannot resume: ') and 'load_from' in error
    assert train(config, '--cfg-options', f'load_from={trained / "epoch_2.pth"}') == 0


def test_last_checkpoint_names_the_newest(trained):
    assert os.path.samefile((trained / 'last_checkpoint').read_text(), trained / 'epoch_3.pth')
