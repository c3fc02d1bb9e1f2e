"""tools/demo.py from generated data to metrics and pictures, with everything as small as it gets."""

import json
import sys
from pathlib import Path
from unittest import mock

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test_occ' / 'test_engine'))

from toy_occupancy import REPO_ROOT, load_tool  # noqa: E402


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The tool, with a smaller data set, and its steps in this process."""
    tool = load_tool('demo')
    data = tmp_path / 'data'
    loaders = ''.join(
        f'{split}_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(data_root={f"{data}/"!r}))\n'
        for split in ('train', 'val', 'test')
    )
    config = tmp_path / 'small.py'
    config.write_text(
        f'_base_ = [{str(REPO_ROOT / tool.CONFIG)!r}]\n{loaders}experiment_name = {tmp_path.name!r}\n'
        f'visualizer = dict(name={tmp_path.name!r})\n'
    )
    size = ['--image-size', '48x28', '--scenes-train', '1', '--scenes-val', '1', '--frames', '1']
    monkeypatch.setattr(tool, 'CONFIG', str(config))
    monkeypatch.setattr(tool, 'DRAWN', (0,))
    monkeypatch.setattr(tool, 'DATA', str(data))
    monkeypatch.setattr(tool, 'GENERATE', ['synthetic', '--format', 'occ3d', '--seed', '0', *size])
    steps = []

    def in_this_process(step, script, *arguments):
        steps.append(script)
        with mock.patch('mmengine.config.config.FormatCode', lambda text, **_: (text, False)):
            status = load_tool(Path(script).stem).main([str(argument) for argument in arguments])
        assert status == 0, step
        return 1.0

    monkeypatch.setattr(tool, 'run', in_this_process)
    tool.steps = steps
    return tool


def test_from_data_to_pictures(demo, tmp_path, capsys):
    work_dir = tmp_path / 'work'
    arguments = ['--work-dir', str(work_dir), '--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=9']
    status = demo.main(arguments)
    assert demo.steps == [f'tools/{name}.py' for name in ('create_data', 'train', 'test', 'visualize')]
    written = json.loads((work_dir / 'metrics.json').read_text())
    model, prior = written['model'], written['static_prior']
    assert 0 <= model['mIoU'] < 1 and 0 < prior['mIoU'] < 1 and set(model['per_class']) == set(prior['per_class'])
    # the exit status says whether the model has learned more than the places of things
    assert status == int(model['mIoU'] <= prior['mIoU'])
    assert ('does not beat the static prior' in capsys.readouterr().out) == bool(status)
    pages = sorted(path.name for path in (work_dir / 'pictures').rglob('*.png'))
    assert pages == ['cameras.png', 'rendered.png', 'scene.png']


def test_a_step_that_fails_stops_the_demo(capfd):
    with pytest.raises(SystemExit, match='demo: "data" failed with exit status 2; its message stands above'):
        load_tool('demo').run('data', 'tools/create_data.py', 'absent')
    assert "invalid choice: 'absent'" in capfd.readouterr().err
