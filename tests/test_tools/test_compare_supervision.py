"""The comparison of supervisions with stand-ins for training and test; what it asks of them is checked against the real
configs."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from projects.occ.engine.config_options import apply_cfg_options
from projects.occ.engine.schedule import fit_schedule
from projects.occ.evaluation.functional import summarize_confusion

ROOT = Path(__file__).resolve().parents[2]
ROWS = ['voxel', 'gaussrender', 'gaussrender-march', 'rays', 'rays-voxel', 'ray-queries', 'photometric']
CLASSES, FREE, FRAMES, SCENES = 18, 17, 8, 4


def load(name):
    spec = importlib.util.spec_from_file_location(f'compare_{name}', ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def tool():
    return load('compare_supervision')


def confusions(seed, right):
    """Frames of two classes and free space; ``right`` of 1000 voxels of class 0 are found."""
    rng = np.random.default_rng(seed)
    hist = np.zeros((FRAMES, CLASSES, CLASSES), dtype=np.int64)
    found = right + rng.integers(-30, 30, FRAMES)
    hist[:, 0, 0], hist[:, 0, FREE] = found, 1000 - found
    hist[:, 1, 1], hist[:, FREE, FREE] = 500, 5000
    return hist


def records(seed, right):
    hard = np.zeros((FRAMES, 7, CLASSES + 1, 4, 2))
    hard[:, 2, 0, 1] = (200 - seed, 1000)
    soft = np.zeros((FRAMES, 6, CLASSES + 1, 4, 2))
    soft[:, 4, 0, 1] = (1500.0, 1000)
    depth = np.full((FRAMES, 2, 3, 7), np.nan)
    depth[:, :, 0] = 0.25
    return {
        'tokens': np.array([f't{i}' for i in range(FRAMES)]),
        'scenes': np.array([f'scene-{i % SCENES}' for i in range(FRAMES)]),
        'OccupancyMetric': confusions(seed, right),
        'RayIoUMetric': np.full((FRAMES, 5, CLASSES), 10),
        'RayProfileMetric.hard': hard,
        'RayProfileMetric.soft': soft,
        'RayProfileMetric.counts': np.tile([5, 100, 2, 50], (FRAMES, 1)),
        'RenderedDepthMetric.1': depth,
    }


@pytest.fixture
def calls(tool, monkeypatch):
    """Replaces the tools that it calls; a test writes records that depend on row and seed."""
    made = []

    def call(log, script, *arguments, threads=1):
        arguments = [str(argument) for argument in arguments]
        made.append((script, arguments))
        log.parent.mkdir(parents=True, exist_ok=True)
        if script == 'tools/train.py':
            here = Path(arguments[arguments.index('--work-dir') + 1])
            (here / 'last_checkpoint').write_text(str(here / 'epoch.pth'))
            (here / 'log' / 'vis_data').mkdir(parents=True)
            lines = [dict(loss=1.0, time=t) for t in (9.0, 0.5, 0.4)] + [dict(mIoU=1)]
            (here / 'log' / 'vis_data' / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
        if script == 'tools/test.py':
            seed = int(next(a for a in arguments if a.startswith('randomness.seed=')).split('=')[1])
            gain = 60 if '_gaussrender' in arguments[0] else 0
            np.savez(arguments[arguments.index('--records') + 1], **records(seed, 600 + gain))
            values = dict(mIoU=0.5, per_class=dict(a=1))
            Path(arguments[arguments.index('--metrics-json') + 1]).write_text(json.dumps(values))
        return tool.Usage(12.0, 2048.0)

    monkeypatch.setattr(tool, 'call', call)
    return made


@pytest.fixture
def command(tmp_path):
    (tmp_path / 'doc.md').write_text('<!-- supervision-table: begin -->\n<!-- supervision-table: end -->\n')
    places = ['--work-dir', 'work', '--out', 'out', '--document', 'doc.md']
    places = [str(tmp_path / part) if not part.startswith('--') else part for part in places]
    return [*places, '--rows', 'voxel', 'gaussrender', '--draws', '200']


def test_numbers_differences_and_costs(tool, calls, command, tmp_path):
    assert tool.main([*command, '--hosts', 'tpvformer', '--jobs', '2', '--draws', '1000']) == 0
    report = json.loads((tmp_path / 'out/compare_supervision.json').read_text())
    summary = report['hosts']['tpvformer']
    expected = [summarize_confusion(confusions(seed, 600).sum(0), FREE)['mIoU'] for seed in range(3)]
    assert summary['rows']['voxel']['mIoU'] == dict(
        mean=pytest.approx(np.mean(expected)), std=pytest.approx(np.std(expected, ddof=1)), seeds=[0, 1, 2]
    )
    assert summary['rows']['voxel']['ray_behind']['mean'] == pytest.approx(0.199)
    assert summary['rows']['voxel']['ray_spread']['mean'] == pytest.approx(1.5)
    assert summary['rows']['voxel']['abs_rel']['mean'] == pytest.approx(0.25)
    assert summary['rows']['voxel']['floaters']['mean'] == pytest.approx(0.05)
    gain = summary['differences']['gaussrender']['mIoU']
    assert gain['difference'] == pytest.approx(0.03, abs=1e-9) and gain['verdict'] == gain['verdict_holm'] == 'helps'
    same = summary['differences']['gaussrender']['ray_behind']
    assert (same['difference'], same['verdict'], same['p']) == (0, 'open', 1)
    assert summary['comparisons'] == len(summary['differences']['gaussrender']) >= 9
    assert summary['costs']['voxel'] == dict(seconds_per_step=0.5, peak_mib=2048)
    text = (tmp_path / 'doc.md').read_text()
    assert '| + GaussRender (splat) − voxel loss | **+3.00** †' in text and '0.50 | 2.0 |' in text and 'mIoU ↑' in text
    assert (tmp_path / 'out/compare_supervision.png').read_bytes().startswith(b'\x89PNG')


def test_tables_come_from_the_files_of_the_runs_alone(tool, calls, command, tmp_path):
    assert tool.main([*command, '--hosts', 'tpvformer', '--seeds', '2']) == 0
    first = [(tmp_path / name).read_text() for name in ('doc.md', 'out/compare_supervision.json')]
    (tmp_path / 'out/compare_supervision.json').unlink()
    calls.clear()
    assert tool.main([*command, '--report']) == 0
    assert not calls
    assert [(tmp_path / name).read_text() for name in ('doc.md', 'out/compare_supervision.json')] == first
    files = sorted(path.name for path in (tmp_path / 'out/compare_supervision').iterdir())
    assert files == [f'tpvformer_{row}_seed{s}.json' for row in ('gaussrender', 'voxel') for s in (0, 1)]


def test_finished_runs_are_skipped_and_other_settings_are_not_mixed_in(tool, calls, command):
    short = [*command, '--hosts', 'tpvformer', '--seeds', '1']
    assert tool.main(short) == 0
    assert [script for script, _ in calls].count('tools/train.py') == 2
    calls.clear()
    assert tool.main(short) == 0
    assert [script for script, _ in calls] == ['tools/create_data.py']
    assert tool.main([*short, '--epochs', '2']) == 0
    assert [script for script, _ in calls].count('tools/train.py') == 2


def test_a_killed_run_goes_on_where_it_was(tool, calls, command, monkeypatch, tmp_path):
    works = tool.call

    def killed(log, script, *arguments, threads=1):
        if script == 'tools/test.py':
            raise KeyboardInterrupt
        return works(log, script, *arguments, threads=threads)

    short = [*command, '--hosts', 'tpvformer', '--seeds', '1']
    monkeypatch.setattr(tool, 'call', killed)
    with pytest.raises(KeyboardInterrupt):
        tool.main(short)
    monkeypatch.setattr(tool, 'call', works)
    assert not (tmp_path / 'out').exists()
    trained = [script for script, _ in calls].count('tools/train.py')
    assert tool.main(short) == 0
    # what was trained is not trained again, and what was not is resumed
    assert [script for script, _ in calls].count('tools/train.py') == 2 and trained in (1, 2)
    assert all('--resume' in arguments for script, arguments in calls if script == 'tools/train.py')


def test_a_slice_ends_and_the_next_one_goes_on(tool, calls, command, tmp_path, capsys):
    short = [*command, '--hosts', 'tpvformer', '--seeds', '1']
    assert tool.main([*short, '--minutes', '0']) == 1
    assert 'no finished run' in capsys.readouterr().err
    assert tool.main(short) == 0


@pytest.mark.parametrize('row', ROWS)
def test_options_fit_the_configs_and_the_tools(tool, calls, command, row):
    hosts = [host for host in tool.HOSTS if tool.Run(host, row, 0).exists]
    assert 'surroundocc' in hosts
    assert tool.main([*command, '--hosts', *hosts, '--seeds', '2', '--epochs', '3', '--rows', row]) == 0
    trained = [a for script, a in calls if script == 'tools/train.py']
    assert len(trained) == 2 * len(hosts)
    train = load('train')
    for arguments in trained:
        args = train.parse_args(arguments)
        assert args.resume == 'auto'
        cfg = Config.fromfile(ROOT / args.config, import_custom_modules=False)
        apply_cfg_options(cfg, args.cfg_options, args.allow_new_keys)
        fit_schedule(cfg, args.cfg_options)
        assert cfg.train_cfg.max_epochs == 3 and cfg.train_cfg.val_begin == 4
        assert all(s.get('end', 3) == 3 for s in cfg.param_scheduler if s.by_epoch)
        sizes = [s.final_wh for s in cfg.test_dataloader.dataset.pipeline if s.type == 'ResizeCropFlipImages']
        assert sizes == [[352, 96] if 'kitti360' in args.config else [128, 80]]
        for step in cfg.train_dataloader.dataset.pipeline:
            assert step.type != 'ResizeImages' or step.size == cfg.model.aggregator.target.size == [80, 128]
        seeds = {cfg.randomness.seed} | ({cfg.model.aggregator.cameras.seed} if row == 'gaussrender' else set())
        assert len(seeds) == 1 and seeds <= {0, 1}
        assert Path(cfg.train_dataloader.dataset.data_root).parent.name == 'data'
    created = [arguments for script, arguments in calls if script == 'tools/create_data.py']
    assert len(created) == len({tool.GENERATED[tool.HOSTS[host][1]] for host in hosts})
    load('test').parse_args(next(arguments for script, arguments in calls if script == 'tools/test.py'))


def test_a_failed_run_is_named_and_the_others_finish(tool, calls, command, monkeypatch, capsys, tmp_path):
    works = tool.call

    def call(log, script, *arguments, threads=1):
        if script == 'tools/test.py' and '_gaussrender' in str(arguments[0]):
            raise tool.ToolError(f'{script} ended with exit status 1; its output is in {log}')
        return works(log, script, *arguments, threads=threads)

    monkeypatch.setattr(tool, 'call', call)
    assert tool.main([*command, '--hosts', 'tpvformer', '--seeds', '1']) == 1
    message = capsys.readouterr().err
    assert 'error: 1 of 2 runs failed: tpvformer_gaussrender_seed0: tools/test.py ended with exit status 1' in message
    assert len(list((tmp_path / 'out/compare_supervision').iterdir())) == 1


def test_the_output_of_a_failed_tool_is_kept(tool, tmp_path):
    with pytest.raises(tool.ToolError, match='tools/nothing.py ended with exit status 2; its output is in .*log.txt'):
        tool.call(tmp_path / 'log.txt', 'tools/nothing.py', 'x')
    assert 'nothing.py' in (tmp_path / 'log.txt').read_text()


def test_time_and_memory_of_a_step(tool, tmp_path):
    usage = tool.call(tmp_path / 'log.txt', 'tools/dev/benchmark_report.py')
    assert 0 < usage.seconds < 100 and 20 < usage.peak_mib < 4000


def test_bad_arguments(tool, capsys):
    with pytest.raises(SystemExit):
        tool.parse_args(['--repeats', '0'])
    assert '--seeds must be at least 1, got 0' in capsys.readouterr().err
