"""The converter on published folders of GaussianOcc: round trips, the pose network alone, and what is refused."""

import importlib.util

import pytest
import torch

from projects.gaussianocc.checkpoint import FOLDER, POSE_NETWORK


@pytest.fixture(scope='module')
def tool(repo_root):
    spec = importlib.util.spec_from_file_location('convert_checkpoint', repo_root / 'tools' / 'convert_checkpoint.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def networks(golden_dir):
    """Contents of the four files, with what the authors' files hold beside weights."""
    networks = torch.load(golden_dir / 'gaussianocc_small.pt', weights_only=True)['state_dict']
    return {**networks, 'encoder': {**networks['encoder'], 'height': 48, 'width': 80}}


def write(folder, networks, names=FOLDER):
    folder.mkdir(exist_ok=True)
    for name in names:
        torch.save(networks[name], folder / f'{name}.pth')
    return str(folder)


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for key in a:
        same = torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype if torch.is_tensor(a[key]) else a[key] == b[key]
        assert same and type(a[key]) is type(b[key]), key


def test_round_trip_is_bit_for_bit(tool, networks, tmp_path, capsys):
    given, ours, back = write(tmp_path / 'nusc-sem-gs', networks), str(tmp_path / 'ours.pth'), tmp_path / 'back'
    torch.save(dict(step=3), tmp_path / 'nusc-sem-gs' / 'adam.pth')
    assert tool.main(['gaussianocc', given, ours]) == 0
    assert '0 unknown' in capsys.readouterr().out
    weights = torch.load(ours, weights_only=True)['state_dict']
    assert torch.equal(weights['img_backbone.conv1.weight'], networks['encoder']['backbone.0.weight'])
    assert torch.equal(weights[POSE_NETWORK + 'net.0.bias'], networks['pose']['net.0.bias'])
    assert tool.main(['gaussianocc', ours, str(back), '--reverse', '--summary']) == 0
    assert sorted(path.name for path in back.iterdir()) == sorted(f'{name}.pth' for name in FOLDER)
    for name in FOLDER:
        assert_same_bits(torch.load(back / f'{name}.pth', weights_only=True), networks[name])


def test_folder_with_the_pose_network_alone(tool, networks, tmp_path):
    given, ours = write(tmp_path / 'stage1_pose_nusc', networks, ('pose_encoder', 'pose')), str(tmp_path / 'ours.pth')
    assert tool.main(['gaussianocc', given, ours, '--summary']) == 0
    weights = torch.load(ours, weights_only=True)['state_dict']
    assert weights and all(key.startswith(POSE_NETWORK) for key in weights)
    back = tmp_path / 'back'
    assert tool.main(['gaussianocc', ours, str(back), '--reverse', '--summary']) == 0
    assert sorted(path.name for path in back.iterdir()) == ['pose.pth', 'pose_encoder.pth']


def test_one_file_of_a_folder_is_refused(tool, networks, tmp_path, capsys):
    write(tmp_path / 'folder', networks)
    assert tool.main(['gaussianocc', str(tmp_path / 'folder' / 'encoder.pth'), str(tmp_path / 'ours.pth')]) != 0
    assert 'folder' in capsys.readouterr().err


@pytest.mark.parametrize('family', ['gaussianocc', 'tpvformer'])
def test_folders_without_weights_are_refused(tool, tmp_path, capsys, family):
    (tmp_path / 'empty').mkdir()
    assert tool.main([family, str(tmp_path / 'empty'), str(tmp_path / 'ours.pth')]) != 0
    assert 'empty' in capsys.readouterr().err


def test_unknown_entries_are_refused_until_asked(tool, networks, tmp_path, capsys):
    networks = {**networks, 'depth': {**networks['depth'], 'other.weight': torch.zeros(2)}}
    given, ours = write(tmp_path / 'folder', networks), tmp_path / 'ours.pth'
    assert tool.main(['gaussianocc', given, str(ours), '--summary']) != 0 and not ours.exists()
    assert 'depth.other.weight' in capsys.readouterr().err
    assert tool.main(['gaussianocc', given, str(ours), '--summary', '--no-strict']) == 0 and ours.exists()
