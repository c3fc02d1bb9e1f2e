"""The tool that finds the threshold of a density head, on generated streets with a network of random weights."""

import importlib.util
import json
import sys

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config

from projects.streets import build_config, generate


@pytest.fixture(scope='module')
def tool(repo_root):
    spec = importlib.util.spec_from_file_location('calibrate_threshold', repo_root / 'tools' / 'calibrate_threshold.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def streets(tmp_path_factory):
    root = tmp_path_factory.mktemp('streets')
    generate(build_config(formats=('occ3d',), preset='tiny', image_size=(64, 40), scenes_train=1, scenes_val=1, frames=2), root)
    return root


def write(repo_root, streets, tmp_path, density=True):
    """A config with a density head, and weights."""
    base = repo_root / 'configs/debug/tpvformer_tiny_synthetic-occ3d.py'
    head = (
        "host = _base_.model.occ_head\nmodel = dict(occ_head=dict(_delete_=True, type='DensityHead', host=host, channels=64,\n"
        "    loss_occ=dict(type='DensityOccLoss'), threshold=None))\n"
    )
    splits = ''.join(f'{s}_dataloader = dict(dataset=dict(data_root={f"{streets}/"!r}))\n' for s in ('train', 'val', 'test'))
    path = tmp_path / 'config.py'
    path.write_text(f'_base_ = [{str(base)!r}]\n{head if density else ""}{splits}experiment_name = {tmp_path.name!r}\n')
    cfg = Config.fromfile(path)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    torch.save(model.state_dict(), tmp_path / 'random.pth')
    return path, tmp_path / 'random.pth'


def test_the_threshold_gives_the_scores_that_are_told(tool, repo_root, streets, tmp_path, capsys):
    config, checkpoint = write(repo_root, streets, tmp_path)
    out = tmp_path / 'threshold.json'
    places = ['--work-dir', str(tmp_path / 'work')]
    assert tool.main([str(config), str(checkpoint), '--metric', 'IoU', '--out', str(out), *places]) == 0
    found = json.loads(out.read_text())
    assert f'--cfg-options model.occ_head.threshold={found["threshold"]:.6g}' in capsys.readouterr().out
    assert found['frames'] == 2 and 0 < found['IoU'] < 1
    spec = importlib.util.spec_from_file_location('test_tool', repo_root / 'tools' / 'test.py')
    test = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(test)
    options = ['--allow-new-keys', '--cfg-options', f'model.occ_head.threshold={found["threshold"]!r}']
    metrics = tmp_path / 'metrics.json'
    assert test.main([str(config), str(checkpoint), '--metrics-json', str(metrics), *places, *options]) == 0
    scored = json.loads(metrics.read_text())
    assert (scored['IoU'], scored['mIoU']) == pytest.approx((found['IoU'], found['mIoU']), abs=1e-9)


def test_other_heads_are_refused(tool, repo_root, streets, tmp_path, capsys):
    config, checkpoint = write(repo_root, streets, tmp_path, density=False)
    assert tool.main([str(config), str(checkpoint), '--work-dir', str(tmp_path / 'work')]) == 1
    assert 'does not decide by a density threshold' in capsys.readouterr().err
