"""The model zoo: one tiny entry for real, the rest with stand-ins for training and test."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test_occ' / 'test_engine'))

from toy_occupancy import REPO_ROOT, load_tool  # noqa: E402

NAME = 'tpvformer_tiny_synthetic-occ3d'


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """The tool with stand-ins: training writes a checkpoint, a test reports numbers made from the weights of its file."""
    tool = load_tool('model_zoo')
    tool.steps = []

    def call(log, script, *arguments, threads=1):
        arguments = [str(argument) for argument in arguments]
        tool.steps.append((script, arguments))
        if script == 'tools/train.py':
            work_dir = Path(arguments[arguments.index('--work-dir') + 1])
            logs = work_dir / '20260101_000000' / 'vis_data'
            logs.mkdir(parents=True)
            lines = [dict(loss=9.0, step=10), dict(val=1.0, step=1), dict(loss=4.5, step=20)]
            (logs / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
            torch.save({'state_dict': {'weight': torch.full((3,), 0.1)}, 'optimizer': {}}, work_dir / 'epoch_1.pth')
            (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
        if script == 'tools/test.py':
            weights = torch.load(arguments[1], weights_only=True)
            assert set(weights) == {'state_dict', 'meta'}
            value = float(weights['state_dict']['weight'].double().mean())
            target = Path(arguments[arguments.index('--metrics-json') + 1])
            target.write_text(json.dumps(dict(mIoU=value, IoU=0.5, source=dict(config='x'))))

    monkeypatch.setattr(tool, 'call', call)
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'README.md').write_text('before\n<!-- zoo: begin -->\n<!-- zoo: end -->\nafter\n')
    tool.out, tool.work_dir = out, tmp_path / 'work'
    tool.arguments = ['--only', NAME, '--work-dir', str(tool.work_dir), '--out', str(out)]
    return tool


def test_a_model_is_trained_tested_and_written_down(zoo, capsys):
    assert zoo.main(zoo.arguments) == 0
    assert [script for script, _ in zoo.steps] == ['tools/create_data.py', 'tools/train.py', 'tools/test.py']
    config = f'configs/debug/{NAME}.py'
    weights = zoo.work_dir / f'{NAME}.pth'
    # the file that is tested is the one that is given away
    assert zoo.steps[1][1][0] == zoo.steps[2][1][0] == config and zoo.steps[2][1][1] == str(weights)
    record = json.loads((zoo.out / 'zoo.json').read_text())[NAME]
    assert record['sha256'] == hashlib.sha256(weights.read_bytes()).hexdigest() and record['bytes'] == weights.stat().st_size
    assert record['training'] == dict(iterations=20, first_loss=9.0, last_loss=4.5)
    assert record['metrics'] == dict(mIoU=float(torch.tensor(0.1).double()), IoU=0.5)
    text = (zoo.out / 'README.md').read_text()
    assert text.startswith('before\n') and text.endswith('after\n')
    assert '| 10.00 | 50.00 | – | – | 9.00 → 4.50 (20) |' in text and record['sha256'][:16] in text


def test_finished_models_are_not_trained_again(zoo):
    assert zoo.main(zoo.arguments) == 0
    zoo.steps.clear()
    assert zoo.main(zoo.arguments) == 0
    assert [script for script, _ in zoo.steps] == ['tools/create_data.py']


def test_a_part_made_again_leaves_the_other_rows(zoo):
    (zoo.out / 'zoo.json').write_text(json.dumps({}))
    assert zoo.main(zoo.arguments) == 0
    other = f'{NAME}_gaussrender'
    assert zoo.main(['--only', other, *zoo.arguments[2:]]) == 0
    assert sorted(json.loads((zoo.out / 'zoo.json').read_text())) == [NAME, other]


def test_verification_finds_other_numbers_and_other_files(zoo, capsys):
    assert zoo.main([*zoo.arguments, '--verify']) == 1
    assert 'run without --verify first' in capsys.readouterr().err
    assert zoo.main(zoo.arguments) == 0
    assert zoo.main([*zoo.arguments, '--verify']) == 0
    record = zoo.work_dir / NAME / 'zoo.json'
    content = json.loads(record.read_text())
    content['metrics']['IoU'] = 0.5000001
    record.write_text(json.dumps(content))
    assert zoo.main([*zoo.arguments, '--verify']) == 1
    assert 'IoU differ' in capsys.readouterr().err
    weights = zoo.work_dir / f'{NAME}.pth'
    weights.write_bytes(weights.read_bytes() + b'x')
    assert zoo.main([*zoo.arguments, '--verify']) == 1
    assert 'sha256' in capsys.readouterr().err


def test_large_files_and_unknown_names_are_refused(zoo, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        zoo.parse_args(['--only', 'nothing'])
    assert 'nothing' in capsys.readouterr().err
    monkeypatch.setattr(zoo, 'SIZE_LIMIT', 10)
    assert zoo.main(zoo.arguments) == 1
    assert NAME in capsys.readouterr().err


def test_the_frames_of_every_small_config_can_be_made():
    tool = load_tool('model_zoo')
    configs = sorted(REPO_ROOT.glob(tool.CONFIGS))
    assert len(configs) >= 18
    assert {tool.data_root(str(path.relative_to(REPO_ROOT))) for path in configs} == set(tool.DATA)
