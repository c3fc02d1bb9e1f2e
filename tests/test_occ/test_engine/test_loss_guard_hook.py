from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import HistoryBuffer
from toy_occupancy import train, write_config

from projects.occ.engine.errors import NonFiniteLossError
from projects.occ.engine.hooks.loss_guard_hook import LossGuardHook, describe_samples


def runner_with(grad_norm=None, weight=0.0, **wrapper):
    hub = SimpleNamespace(
        log_scalars={} if grad_norm is None else {'train/grad_norm': HistoryBuffer([grad_norm], [1])},
        runtime_info=dict(last_ckpt='work/epoch_4.pth'),
    )
    model = torch.nn.Linear(1, 1)
    model.weight.data.fill_(weight)
    return SimpleNamespace(iter=41, epoch=4, message_hub=hub, optim_wrapper=SimpleNamespace(**wrapper), model=model)


def test_a_poisoned_sample_stops_the_run_and_leaves_healthy_checkpoints(tmp_path, capfd):
    assert train(write_config(tmp_path), '--cfg-options', 'train_cfg.max_epochs=1') == 0
    good = (tmp_path / 'work_toy' / 'epoch_1.pth').read_bytes()
    capfd.readouterr()

    poisoned = write_config(tmp_path, extra="train_dataloader['dataset'].update(poison=3)\n")
    assert train(poisoned, '--resume') == 1
    message = capfd.readouterr().err.strip().split('\n')[-1]
    assert message.startswith('error: training stopped: loss_occ_ce_0 = nan in iteration ')
    assert '(epoch 2), samples ' in message and 'frame-3' in message
    assert 'The last good checkpoint is ' in message and 'epoch_1.pth' in message
    assert (tmp_path / 'work_toy' / 'epoch_1.pth').read_bytes() == good
    assert not (tmp_path / 'work_toy' / 'epoch_2.pth').exists()
    # the log file tells it too
    assert any('training stopped' in path.read_text() for path in tmp_path.glob('work_toy/*/*.log'))


def test_the_message_names_terms_not_their_sum():
    outputs = dict(loss=float('nan'), loss_a=torch.tensor(float('inf')), loss_b=torch.tensor(1.0), accuracy=float('nan'))
    with pytest.raises(NonFiniteLossError, match=r'^training stopped: loss_a = inf in iteration 42 \(epoch 5\), samples of'):
        LossGuardHook().after_train_iter(runner_with(), 0, None, outputs)
    LossGuardHook().after_train_iter(runner_with(1.0), 0, None, dict(loss=1.0, accuracy=float('nan')))


def test_gradient_norm_counts_unless_a_loss_scaler_handles_it():
    with pytest.raises(NonFiniteLossError, match='grad_norm = inf'):
        LossGuardHook().after_train_iter(runner_with(float('inf')), 0, None, dict(loss=1.0))
    LossGuardHook().after_train_iter(runner_with(float('inf'), loss_scaler=1), 0, None, dict(loss=1.0))


def test_broken_weights_are_not_written():
    with pytest.raises(NonFiniteLossError, match=r'1 parameters are NaN or infinite .*first: weight.*no checkpoint'):
        LossGuardHook().before_save_checkpoint(runner_with(weight=float('nan')), {})
    LossGuardHook().before_save_checkpoint(runner_with(), {})


def test_samples_are_named_by_what_they_have():
    samples = [SimpleNamespace(metainfo=meta) for meta in (dict(token='t', sample_idx=1), dict(sample_idx=2), {})]
    assert describe_samples(dict(data_samples=samples)) == 't, 2, ?'
    assert describe_samples([1]) == 'of unknown name'
