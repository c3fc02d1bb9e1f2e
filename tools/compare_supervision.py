"""One host, one schedule, every supervision: trains small networks on generated streets and compares them in pairs.

Generates the streets, trains and tests each run with ``tools/train.py`` and ``tools/test.py`` on configs of ``configs/debug``,
and writes a json per finished run (metrics and counts per held-out scene). From these files alone come the tables (means over
seeds; paired differences with intervals of a hierarchical bootstrap, Holm's correction), a plot and the summary json. Finished
runs are skipped and broken ones resumed when the same command is given again; other settings get a folder of their own.

python tools/compare_supervision.py --hosts surroundocc --jobs 2
python tools/compare_supervision.py --hosts surroundocc tpvformer --rows voxel gaussrender --seeds 5
python tools/compare_supervision.py --report                  # tables and plot again from the json files, nothing is trained
"""

import argparse
import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from mmengine.config import Config  # noqa: E402
from tqdm import tqdm  # noqa: E402

from projects.occ.structures import VoxelGrid  # noqa: E402
from tools.dev.benchmark_report import describe_machine, replace_section, write_report  # noqa: E402
from tools.dev.supervision_report import compare, plot, scene_counts, tables  # noqa: E402
from tools.dev.tool_runs import ToolError, Usage, call  # noqa: E402

# host -> family and format of its frames
HOSTS = {
    'surroundocc': ('surroundocc', 'occ3d'),
    'bevdet': ('bevdet', 'occ3d'),
    'tpvformer': ('tpvformer', 'occ3d'),
    'symphonies': ('symphonies', 'sscbench-kitti360'),
    'surroundocc-lidar': ('surroundocc', 'surroundocc'),
    'tpvformer-lidar': ('tpvformer', 'surroundocc'),
}
CONFIG = 'configs/debug/{}_tiny_synthetic-{}{}.py'
# row -> end of the name of its config, title
ROWS = {
    'voxel': ('', 'voxel loss'),
    'gaussrender': ('_gaussrender', '+ GaussRender (splat)'),
    'gaussrender-march': ('_gaussrender-march', '+ GaussRender (march)'),
    'rays': ('_rays', 'LiDAR rays, 2D only'),
    'rays-voxel': ('_rays-voxel', '+ LiDAR rays'),
    'ray-queries': ('_ray-queries', 'points along LiDAR rays, 2D only'),
    'photometric': ('_photometric', 'neighbouring images and 2D classes, given poses'),
}
# format -> data set to generate (one serves both formats of nuScenes), and width and height of its images in pixels
GENERATED = {'occ3d': 'both', 'surroundocc': 'both', 'sscbench-kitti360': 'sscbench-kitti360'}
# what some of its rows read
EXTRAS = {'both': ('--camera-sweeps', 1, '--image-classes'), 'sscbench-kitti360': ()}
IMAGE_WH = {'both': (128, 80), 'sscbench-kitti360': (352, 96)}
# format -> flags of tools/test.py; generated KITTI-360 frames have neither poses of whole drives nor LiDAR
TESTS = {
    'occ3d': ('--ray-iou', '--ray-profile', '--depth-metrics', '--image-metrics'),
    'surroundocc': ('--ray-iou', '--ray-profile', '--depth-metrics', '--image-metrics'),
    'sscbench-kitti360': ('--image-metrics',),
}
SECTION = 'supervision-table'


@dataclass(frozen=True)
class Run:
    """One training and its test.

    Args:
        host: Key of HOSTS.
        row: Key of ROWS.
        seed: Of initial weights, order of the frames, augmentation, dropout and what is drawn by supervisions.
    """

    host: str
    row: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder and its json."""
        return f'{self.host}_{self.row}_seed{self.seed}'

    @property
    def config(self) -> str:
        """Path of its config below the root of the repository."""
        return CONFIG.format(*HOSTS[self.host], ROWS[self.row][0])

    @property
    def exists(self) -> bool:
        """Whether this host has this supervision."""
        return (ROOT / self.config).is_file()


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--hosts', '--families', nargs='+', choices=tuple(HOSTS), default=['surroundocc'], metavar='HOST',
                        help=f'networks: {", ".join(HOSTS)} [%(default)s]')  # fmt: skip
    parser.add_argument('--rows', nargs='+', choices=tuple(ROWS), default=list(ROWS), metavar='ROW',
                        help=f'supervisions: {", ".join(ROWS)} [all that a host has]')  # fmt: skip
    parser.add_argument('--against', choices=tuple(ROWS), default='voxel', help='row that others are compared with [voxel]')
    parser.add_argument('--seeds', '--repeats', type=int, default=3, help='seeds per row, from 0 [%(default)s]')
    parser.add_argument('--epochs', type=int, default=10, help='of each training [%(default)s]')
    parser.add_argument('--scenes-train', type=int, default=40, help='generated training scenes [%(default)s]')
    parser.add_argument('--scenes-val', type=int, default=10, help='held-out scenes [%(default)s]')
    parser.add_argument('--frames', type=int, default=4, help='key frames per scene [%(default)s]')
    parser.add_argument('--data-options', default='', metavar='TEXT', help='further options of create_data.py synthetic')
    parser.add_argument('--jobs', type=int, default=1, help='runs side by side, one thread each [%(default)s]')
    parser.add_argument('--minutes', type=float, metavar='M', help='start no run after M minutes; the same command goes on')
    parser.add_argument('--draws', type=int, default=10000, help='of the bootstrap [%(default)s]')
    parser.add_argument('--report', action='store_true', help='tables and plot from finished runs alone')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/compare_supervision', help='frames, runs, logs')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/benchmarks', help='folder of compare_supervision/<run>.json, '
                        'compare_supervision.json and .png')  # fmt: skip
    parser.add_argument('--document', type=Path, default=ROOT / 'docs/results.md', help='where the tables go')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='for all trainings and tests')
    args = parser.parse_args(argv)
    for name in ('seeds', 'epochs', 'scenes_train', 'scenes_val', 'frames', 'jobs', 'draws'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1, got {getattr(args, name)}')
    return args


def settings_of(args: argparse.Namespace) -> dict:
    """What decides the numbers of a run besides host, row and seed."""
    names = ('epochs', 'scenes_train', 'scenes_val', 'frames', 'data_options', 'cfg_options')
    return json.loads(json.dumps(dict({name: getattr(args, name) for name in names}, image_wh=IMAGE_WH)))


def folder_of(args: argparse.Namespace) -> Path:
    """Folder of all runs of these settings."""
    digest = hashlib.sha256(json.dumps(settings_of(args), sort_keys=True).encode()).hexdigest()[:8]
    return args.work_dir / f'{args.epochs}e_{args.scenes_train}scenes_{digest}'


def make_frames(kind: str, folder: Path, args: argparse.Namespace) -> Path:
    """Generates the frames of a format, or finds them complete; returns their folder."""
    out = folder / 'data' / kind
    size = ('--scenes-train', args.scenes_train, '--scenes-val', args.scenes_val, '--frames', args.frames)
    options = ('--format', kind, '--preset', 'tiny', '--image-size', 'x'.join(map(str, IMAGE_WH[kind])), *size)
    options += (*EXTRAS[kind], *shlex.split(args.data_options), '--workers', args.jobs, '--out', out)
    call(folder / 'data' / f'{kind}.log', 'tools/create_data.py', 'synthetic', *options, threads=None)
    return out


def overrides(run: Run, data: Path, args: argparse.Namespace) -> list[str]:
    """Options for training and test of a run."""
    cfg = Config.fromfile(ROOT / run.config, import_custom_modules=False)
    width, height = IMAGE_WH[GENERATED[HOSTS[run.host][1]]]
    options = {
        'randomness.seed': run.seed,
        'train_cfg.max_epochs': args.epochs,
        # no validation: nothing is chosen by it
        'train_cfg.val_begin': args.epochs + 1,
        'default_hooks.checkpoint.save_best': None,
        'default_hooks.checkpoint.max_keep_ckpts': 1,
    }
    if (cfg.model.get('aggregator') or {}).get('cameras') is not None:
        options['model.aggregator.cameras.seed'] = run.seed
    if (cfg.model.get('aggregator') or {}).get('target', {}).get('size') is not None:
        options['model.aggregator.target.size'] = f'[{height},{width}]'
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        options[f'{split}_dataloader.dataset.data_root'] = f'{data}/'
        for index, step in enumerate(dataset.pipeline):
            if step.type == 'ResizeCropFlipImages':
                options[f'{split}_dataloader.dataset.pipeline.{index}.final_wh'] = f'[{width},{height}]'
            if step.type == 'ResizeImages':
                options[f'{split}_dataloader.dataset.pipeline.{index}.size'] = f'[{height},{width}]'
    return ['--allow-new-keys', '--cfg-options', *(f'{key}={value}' for key, value in options.items()), *args.cfg_options]


def seconds_per_step(work_dir: Path) -> float | None:
    """Median of the logged seconds of a training step, reading included."""
    times = []
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        times += [line['time'] for line in map(json.loads, path.read_text().splitlines()) if 'time' in line and 'loss' in line]
    return float(np.median(times)) if times else None


def execute(run: Run, folder: Path, data: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Trains and tests unless the json is there; returns it.

    Raises:
        ToolError: If a step fails.
    """
    here, report = folder / run.name, args.out / 'compare_supervision' / f'{run.name}.json'
    settings = settings_of(args)
    if report.exists() and (known := json.loads(report.read_text()))['settings'] == settings:
        return known
    options = overrides(run, data, args)
    log, metrics, records = here / 'log.txt', here / 'metrics.json', here / 'records.npz'
    training: Usage | None = None
    if not (here / 'trained').exists():
        training = call(log, 'tools/train.py', run.config, '--work-dir', here, '--resume', *options)
        write_report(here / 'trained', dict(seconds=training.seconds, peak_mib=training.peak_mib))
    usage = json.loads((here / 'trained').read_text())
    checkpoint = (here / 'last_checkpoint').read_text().strip()
    outputs = (*TESTS[HOSTS[run.host][1]], '--metrics-json', metrics, '--records', records)
    call(log, 'tools/test.py', run.config, checkpoint, '--work-dir', here, *outputs, *options)
    grid = VoxelGrid.build(Config.fromfile(ROOT / run.config, import_custom_modules=False).grid)
    with np.load(records) as file:
        scenes, counts = scene_counts(dict(file), grid.free_index)
    found = json.loads(metrics.read_text())
    result = dict(
        host=run.host,
        row=run.row,
        seed=run.seed,
        config=run.config,
        settings=settings,
        machine=describe_machine(ROOT),
        seconds_per_step=seconds_per_step(here),
        training_seconds=usage['seconds'],
        peak_mib=usage['peak_mib'],
        metrics={key: value for key, value in found.items() if isinstance(value, (int, float))},
        free_index=grid.free_index,
        scenes=scenes,
        counts={name: array.tolist() for name, array in counts.items()},
    )
    # one line of counts, not one line per number
    report.parent.mkdir(parents=True, exist_ok=True)
    temporary = report.with_suffix('.part')
    temporary.write_text(json.dumps(result, separators=(',', ':')) + '\n')
    os.replace(temporary, report)
    return result


def execute_all(runs: list[Run], folder: Path, data: Mapping[str, Path], args: argparse.Namespace) -> list[dict[str, Any]]:
    """Executes runs side by side behind a progress bar; one that fails does not stop the others.

    Returns:
        The finished runs.

    Raises:
        ToolError: If runs failed; the others are finished.
    """
    start, finished, failed = time.monotonic(), [], []

    def step(run: Run) -> dict[str, Any] | None:
        if args.minutes is not None and time.monotonic() - start > 60 * args.minutes:
            return None
        return execute(run, folder, data[GENERATED[HOSTS[run.host][1]]], args)

    with ThreadPoolExecutor(args.jobs) as pool, tqdm(total=len(runs), unit='run', desc='comparison') as progress:
        jobs = {pool.submit(step, run): run for run in runs}
        for job in as_completed(jobs):
            try:
                finished.append(job.result())
            except ToolError as error:
                failed.append(f'{jobs[job].name}: {error}')
            progress.set_postfix_str(jobs[job].name)
            progress.update()
    if failed:
        raise ToolError(f'{len(failed)} of {len(runs)} runs failed: ' + '; '.join(failed))
    return [run for run in finished if run is not None]


def finished_runs(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The json files of these settings, hosts, rows and seeds; with ``--report`` those of any settings, if all have the same.

    Raises:
        ToolError: If there is none, or they have different settings.
    """
    found = [json.loads(path.read_text()) for path in sorted((args.out / 'compare_supervision').glob('*.json'))]
    if not args.report:
        wanted = settings_of(args)
        found = [run for run in found if run['settings'] == wanted]
    found = [run for run in found if run['row'] in ROWS and run['host'] in HOSTS]
    if not found:
        raise ToolError(f'no finished run lies in {args.out / "compare_supervision"}')
    if len({json.dumps(run['settings'], sort_keys=True) for run in found}) > 1:
        raise ToolError(f'{args.out / "compare_supervision"} holds runs of different settings; keep those of one comparison')
    rows, hosts = list(ROWS), list(HOSTS)
    return sorted(found, key=lambda run: (hosts.index(run['host']), rows.index(run['row']), run['seed']))


def write_results(runs: list[dict[str, Any]], args: argparse.Namespace) -> str:
    """Writes summary, plot and tables; returns the tables."""
    titles = {row: title for row, (_, title) in ROWS.items()}
    summaries, texts = {}, []
    for host in dict.fromkeys(run['host'] for run in runs):
        own = [run for run in runs if run['host'] == host]
        summary = compare(own, args.against, args.draws)
        summary['costs'] = {
            row: {
                key: float(np.median([r[key] for r in own if r['row'] == row and r[key] is not None] or [np.nan]))
                for key in ('seconds_per_step', 'peak_mib')
            }
            for row in summary['rows']
        }
        summaries[host] = summary
        seeds = max(len(run['seeds']) for row in summary['rows'].values() for run in row.values())
        head = f'**{host}**, up to {seeds} seeds, {len(own[0]["scenes"])} held-out scenes, {summary["comparisons"]} comparisons'
        texts.append(f'{head}\n\n{tables(summary, args.against, titles)}')
    text = '\n\n'.join(texts)
    report = dict(settings=runs[0]['settings'], against=args.against, draws=args.draws, hosts=summaries)
    write_report(args.out / 'compare_supervision.json', report)
    plot(summaries, titles, args.out / 'compare_supervision.png')
    replace_section(args.document, SECTION, text)
    return text


def main(argv: list[str] | None = None) -> int:
    """Runs the comparison; returns the exit status."""
    args = parse_args(argv)
    try:
        if not args.report:
            folder = folder_of(args)
            runs = [Run(host, row, seed) for seed in range(args.seeds) for host in args.hosts for row in args.rows]
            for absent in dict.fromkeys(run.config for run in runs if not run.exists):
                print(f'left out, there is no {absent}', flush=True)
            runs = [run for run in runs if run.exists]
            print(f'runs and logs: {folder}', flush=True)
            kinds = dict.fromkeys(GENERATED[HOSTS[run.host][1]] for run in runs)
            data = {kind: make_frames(kind, folder, args) for kind in tqdm(kinds, desc='frames', unit='data set')}
            execute_all(runs, folder, data, args)
        text = write_results(finished_runs(args), args)
    except ToolError as error:
        print(f'error: {error}. The same command continues', file=sys.stderr)
        return 1
    names = [args.out / f'compare_supervision.{end}' for end in ('json', 'png')]
    print(f'{text}\nwrote {names[0]}, {names[1]} and the tables in {args.document}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
