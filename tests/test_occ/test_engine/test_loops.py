import pytest
import torch
from toy_occupancy import read_losses, train, write_config

from projects.occ.engine.loops import ResumableTrainLoop

BY_ITERATION = """
train_cfg = dict(type='ResumableTrainLoop', max_iters=6, val_interval=3)
default_hooks.update(checkpoint=dict(by_epoch=False, interval=1, max_keep_ckpts=20))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=False, begin=0, end=6, T_max=6)]
"""


def test_trains_a_number_of_iterations_and_resumes(tmp_path, capfd):
    assert train(write_config(tmp_path, 'straight', BY_ITERATION)) == 0
    log = capfd.readouterr().out
    assert log.count('occ/mIoU: ') == 2, 'validation after 3 and 6 iterations'
    straight = read_losses(tmp_path / 'losses_straight')
    assert sorted(straight) == list(range(6))

    config = write_config(tmp_path, 'broken', BY_ITERATION)
    times = ('param_scheduler.0.end=6', 'param_scheduler.0.T_max=6')
    assert train(config, '--cfg-options', 'train_cfg.max_iters=5', *times) == 0
    meta = torch.load(tmp_path / 'work_broken/iter_5.pth', weights_only=True)['meta']
    assert (meta['epoch'], meta['iter']) == (1, 5)
    assert train(config, '--resume') == 0
    assert read_losses(tmp_path / 'losses_broken') == straight


def test_warns_of_checkpoints_that_will_not_be_written(tmp_path, capfd):
    loop = "train_cfg = dict(type='ResumableTrainLoop', max_iters=1)\n"
    assert train(write_config(tmp_path, 'toy', loop)) == 0
    assert 'default_hooks.checkpoint.by_epoch=False' in capfd.readouterr().out


def test_needs_one_length():
    for arguments in ({}, dict(max_epochs=1, max_iters=1)):
        with pytest.raises(ValueError, match='either max_epochs or max_iters'):
            ResumableTrainLoop(None, None, **arguments)


@pytest.mark.parametrize('arguments', [dict(max_epochs=0), dict(max_iters=-1), dict(max_epochs=2, val_interval=0)])
def test_lengths_are_positive(arguments):
    with pytest.raises(ValueError, match=r'train_cfg.(max_epochs|max_iters|val_interval) must be at least 1, got'):
        ResumableTrainLoop(None, None, **arguments)


def test_another_number_of_iterations_per_epoch_is_reported(tmp_path, capfd):
    loop = "train_cfg = dict(type='ResumableTrainLoop', max_epochs=3)\n"
    config = write_config(tmp_path, 'toy', loop)
    assert train(config, '--cfg-options', 'train_cfg.max_epochs=1') == 0
    assert train(config, '--resume', '--cfg-options', 'train_dataloader.batch_size=1') == 1
    message = capfd.readouterr().err.strip().split('\n')[-1]
    assert message.startswith('error: cannot resume: iteration 4 does not lie in epoch 2 of 7 iterations')
    assert 'batch size' in message and 'load_from' in message
