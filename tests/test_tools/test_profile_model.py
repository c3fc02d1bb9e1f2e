import importlib.util
import json

import pytest

FAMILIES = {
    'tpvformer_tiny_synthetic-occ3d': 'img_backbone',
    'surroundocc_tiny_synthetic-surroundocc': 'view_encoder',
    'symphonies_tiny_synthetic-sscbench-kitti360': 'occ_head',
    'bevdet_tiny_synthetic-occ3d': 'view_encoder',
    'gaussianocc_tiny_synthetic-ddad': 'occ_head',
    'gaussianocc-stage1_tiny_synthetic-ddad': 'depth_network',
}


@pytest.fixture(scope='module')
def tool(repo_root):
    spec = importlib.util.spec_from_file_location('profile_model', repo_root / 'tools' / 'profile_model.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(tool, repo_root, tmp_path, name, *arguments):
    file = tmp_path / 'profile.json'
    arguments = ['--device', 'cpu', '--steps', '1', '--warmup', '0', '--json', str(file), *arguments]
    assert tool.main([str(repo_root / 'configs' / 'debug' / f'{name}.py'), *arguments]) == 0
    return json.loads(file.read_text())


@pytest.mark.parametrize('name', FAMILIES)
def test_every_family_is_profiled(tool, repo_root, tmp_path, capsys, name):
    numbers = run(tool, repo_root, tmp_path, name)
    parts = {part['name']: part for part in numbers['parts']}
    assert parts[FAMILIES[name]]['seconds'] > 0 and parts[FAMILIES[name]]['flops'] > 0
    assert numbers['flops'] == sum(part['flops'] for part in numbers['parts']) > 1e8
    assert numbers['parameters'] == sum(part['parameters'] for part in numbers['parts'])
    text = capsys.readouterr().out
    assert text.startswith('prediction of 1 frame: ') and f'| {FAMILIES[name]} |' in text


def test_a_training_step_has_losses_and_a_backward_pass(tool, repo_root, tmp_path, capsys):
    numbers = run(tool, repo_root, tmp_path, 'tpvformer_tiny_synthetic-occ3d_gaussrender', '--train', '--batch-size', '2')
    parts = {part['name']: part for part in numbers['parts']}
    assert parts['aggregator']['seconds'] > 0 and parts['optimizer']['seconds'] > 0
    forward = numbers['flops'] - parts['backward']['flops']
    # every product of the forward pass has up to two in the backward pass
    assert forward < parts['backward']['flops'] < 2.1 * forward
    assert capsys.readouterr().out.startswith('training step of 2 frames: ')


def test_what_cannot_be_profiled_is_a_sentence(tool, repo_root, capsys):
    assert tool.main(['absent.py']) == 1
    assert 'absent.py' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool.parse_args(['c.py', '--steps', '0'])
