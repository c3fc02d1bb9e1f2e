"""The ablation tool with stand-ins for training and test; what it asks of them is checked against the real configs."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from projects.occ.engine.config_options import apply_cfg_options
from projects.occ.engine.schedule import fit_schedule

ROOT = Path(__file__).resolve().parents[2]


def load(name):
    spec = importlib.util.spec_from_file_location(f'ablation_{name}', ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def tool():
    return load('ablation')


@pytest.fixture
def calls(tool, monkeypatch):
    """Replaces the tools that it calls; a test writes metrics that depend on variant and seed."""
    made = []

    def call(log, script, *arguments, threads=1):
        arguments = [str(argument) for argument in arguments]
        made.append((script, arguments))
        log.parent.mkdir(parents=True, exist_ok=True)
        if script == 'tools/train.py':
            here = Path(arguments[arguments.index('--work-dir') + 1])
            (here / 'last_checkpoint').write_text(str(here / 'epoch.pth'))
        if script == 'tools/test.py':
            seed = int(next(a for a in arguments if a.startswith('randomness.seed=')).split('=')[1])
            gain = 0.02 * (seed + 1) if '_gaussrender' in arguments[0] else 0.0
            values = dict(mIoU=0.10 + 0.01 * seed + gain, IoU=0.5, img_mIoU=0.2, depth_L1=3.0 - seed, unrelated=1)
            Path(arguments[arguments.index('--metrics-json') + 1]).write_text(json.dumps(values))

    monkeypatch.setattr(tool, 'call', call)
    return made


@pytest.fixture
def command(tmp_path):
    (tmp_path / 'doc.md').write_text('<!-- ablation: begin -->\n<!-- ablation: end -->\n')
    places = ['--work-dir', 'work', '--out', 'out', '--document', 'doc.md']
    return [str(tmp_path / part) if not part.startswith('--') else part for part in places]


def test_numbers_come_out_as_they_were_measured(tool, calls, command, tmp_path):
    assert tool.main([*command, '--families', 'tpvformer', '--jobs', '2']) == 0
    report = json.loads((tmp_path / 'out/ablation.json').read_text())
    assert len(report['runs']) == 6 and all('unrelated' not in row for row in report['runs'])
    (summary,) = report['summary']
    assert summary['seeds'] == [0, 1, 2]
    assert summary['mIoU']['base'] == pytest.approx(dict(mean=0.11, std=0.01, n=3))
    # 0.02, 0.04, 0.06
    assert summary['mIoU']['difference'] == pytest.approx(dict(mean=0.04, std=0.02, n=3))
    text = (tmp_path / 'doc.md').read_text()
    assert '| tpvformer, occ3d | base | 11.00 ± 1.00 | 50.00 ± 0.00 | 20.00 ± 0.00 | 2.00 ± 1.00 |' in text
    assert '| difference, seed by seed | +4.00 ± 2.00 | +0.00 ± 0.00 |' in text
    assert 'mIoU ↑' in text and 'depth error (m) ↓' in text
    assert (tmp_path / 'out/ablation.png').read_bytes().startswith(b'\x89PNG')


def test_finished_runs_are_skipped_and_other_settings_are_not_mixed_in(tool, calls, command):
    short = [*command, '--families', 'tpvformer', '--repeats', '1']
    assert tool.main(short) == 0
    assert [script for script, _ in calls].count('tools/train.py') == 2
    calls.clear()
    assert tool.main(short) == 0
    assert [script for script, _ in calls] == ['tools/create_data.py']
    assert tool.main([*short, '--epochs', '2']) == 0
    assert [script for script, _ in calls].count('tools/train.py') == 2


@pytest.mark.parametrize('variant', ['base', 'gaussrender'])
def test_options_fit_the_configs_and_the_tools(tool, calls, command, variant):
    families = list(tool.FAMILIES)
    assert tool.main([*command, '--repeats', '2', '--epochs', '3']) == 0
    trained = [
        a for script, a in calls if script == 'tools/train.py' and ('_gaussrender' in a[0]) == (variant == 'gaussrender')
    ]
    assert len(trained) == 2 * len(families)
    train = load('train')
    for arguments in trained:
        args = train.parse_args(arguments)
        assert args.resume == 'auto'
        cfg = Config.fromfile(ROOT / args.config, import_custom_modules=False)
        apply_cfg_options(cfg, args.cfg_options, args.allow_new_keys)
        fit_schedule(cfg, args.cfg_options)
        assert cfg.train_cfg.max_epochs == 3 and cfg.train_cfg.val_begin == 4
        assert all(s.get('end', 3) == 3 for s in cfg.param_scheduler if s.by_epoch)
        # 8 of 10 epochs
        assert all(s.get('milestones', [2]) == [2] for s in cfg.param_scheduler)
        sizes = [s.final_wh for s in cfg.test_dataloader.dataset.pipeline if s.type == 'ResizeCropFlipImages']
        assert sizes == [[352, 96] if 'kitti360' in args.config else [128, 80]]
        seeds = {cfg.randomness.seed} | ({cfg.model.aggregator.cameras.seed} if variant == 'gaussrender' else set())
        assert len(seeds) == 1 and seeds <= {0, 1}
        assert Path(cfg.train_dataloader.dataset.data_root).parent.name == 'data'
    created = [arguments for script, arguments in calls if script == 'tools/create_data.py']
    assert len(created) == len({tool.GENERATED[kind] for kind in tool.FAMILIES.values()})
    load('test').parse_args(next(arguments for script, arguments in calls if script == 'tools/test.py'))


def test_a_failed_run_is_named_and_the_others_finish(tool, calls, command, monkeypatch, capsys, tmp_path):
    works = tool.call

    def call(log, script, *arguments, threads=1):
        if script == 'tools/test.py' and '_gaussrender' in str(arguments[0]):
            raise tool.ToolError(f'{script} ended with exit status 1; its output is in {log}')
        works(log, script, *arguments, threads=threads)

    monkeypatch.setattr(tool, 'call', call)
    assert tool.main([*command, '--families', 'tpvformer', '--repeats', '1']) == 1
    message = capsys.readouterr().err
    assert 'error: 1 of 2 runs failed: tpvformer_gaussrender_seed0: tools/test.py ended with exit status 1' in message
    assert len(list(tmp_path.glob('work/*/*/metrics.json'))) == 1 and not (tmp_path / 'out').exists()


def test_the_output_of_a_failed_tool_is_kept(tool, tmp_path):
    with pytest.raises(tool.ToolError, match='tools/nothing.py ended with exit status 2; its output is in .*log.txt'):
        tool.call(tmp_path / 'log.txt', 'tools/nothing.py', 'x')
    assert 'nothing.py' in (tmp_path / 'log.txt').read_text()


def test_bad_arguments(tool, capsys):
    with pytest.raises(SystemExit):
        tool.parse_args(['--repeats', '0'])
    assert '--repeats must be at least 1, got 0' in capsys.readouterr().err
