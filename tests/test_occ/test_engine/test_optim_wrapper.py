import pytest
import torch
from mmdet3d.registry import OPTIM_WRAPPERS
from mmengine.config import Config
from toy_occupancy import read_losses, train, write_config

from projects.occ.engine.errors import ConfigOptionError
from projects.occ.engine.optim_wrapper import enable_amp


def test_cpu_amp_runs_the_forward_pass_in_bfloat16():
    model = torch.nn.Linear(4, 4)
    wrapper = OPTIM_WRAPPERS.build(dict(type='CPUAmpOptimWrapper', optimizer=torch.optim.SGD(model.parameters(), lr=0.1)))
    with wrapper.optim_context(model):
        output = model(torch.ones(1, 4))
    assert output.dtype == torch.bfloat16
    before = model.weight.detach().clone()
    wrapper.update_params(output.float().sum())
    assert model.weight.dtype == torch.float32 and not torch.equal(model.weight, before)
    assert model(torch.ones(1, 4)).dtype == torch.float32


@pytest.mark.parametrize(('gpu', 'wanted'), [(True, 'AmpOptimWrapper'), (False, 'CPUAmpOptimWrapper')])
def test_amp_fits_the_machine(monkeypatch, gpu, wanted):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    for old in ({}, dict(type='OptimWrapper'), dict(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16')):
        cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='AdamW'), **old)))
        enable_amp(cfg)
        enable_amp(cfg)
        assert cfg.optim_wrapper.type == wanted
        assert cfg.optim_wrapper.get('loss_scale') == ('dynamic' if gpu else None)
    with pytest.raises(ConfigOptionError, match='got ApexOptimWrapper; remove --amp'):
        enable_amp(Config(dict(optim_wrapper=dict(type='ApexOptimWrapper'))))


def test_training_with_amp(tmp_path):
    assert train(write_config(tmp_path, 'amp'), '--amp', '--cfg-options', 'train_cfg.max_epochs=1') == 0
    assert train(write_config(tmp_path, 'full'), '--cfg-options', 'train_cfg.max_epochs=1') == 0
    amp, full = read_losses(tmp_path / 'losses_amp'), read_losses(tmp_path / 'losses_full')
    differences = [abs(float.fromhex(amp[i]) - float.fromhex(full[i])) for i in range(4)]
    assert all(0 < difference < 0.05 for difference in differences)
    assert "type='CPUAmpOptimWrapper'" in (tmp_path / 'work_amp' / 'amp.py').read_text()
