"""A small ablation on generated streets: every family with and without GaussRender, same seeds, several repeats.

Generates the frames, trains and tests each run with ``tools/train.py`` and ``tools/test.py`` on configs of ``configs/debug``,
and writes the numbers as they come out: json, a table (between two marks in docs/benchmarks.md) and a plot. Finished runs are
skipped and broken ones resumed when the same command is given again; other settings get a folder of their own.

python tools/ablation.py --jobs 2
"""

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mmengine.config import Config  # noqa: E402
from tqdm import tqdm  # noqa: E402

from projects.occ.atomic_write import write_atomically  # noqa: E402
from tools.dev.benchmark_report import (  # noqa: E402
    describe_machine,
    markdown_table,
    replace_section,
    write_report,
)
from tools.dev.tool_runs import ToolError, call  # noqa: E402

# family -> format of its frames; the benchmarks of the paper, a different one for each where it reports several
FAMILIES = {'tpvformer': 'occ3d', 'surroundocc': 'surroundocc', 'symphonies': 'sscbench-kitti360'}
# format -> data set to generate (one serves both formats of nuScenes), and width and height of its images in pixels
GENERATED = {'occ3d': 'both', 'surroundocc': 'both', 'sscbench-kitti360': 'sscbench-kitti360'}
IMAGE_WH = {'both': (128, 80), 'sscbench-kitti360': (352, 96)}
CONFIG = 'configs/debug/{}_tiny_synthetic-{}{}.py'
VARIANTS = {'base': '', 'gaussrender': '_gaussrender'}
# name in the json of tools/test.py -> heading, factor, better direction
METRICS = {
    'mIoU': ('mIoU', 100, 'higher'),
    'IoU': ('IoU', 100, 'higher'),
    'img_mIoU': ('image mIoU', 100, 'higher'),
    'depth_L1': ('depth error (m)', 1, 'lower'),
}


@dataclass(frozen=True)
class Run:
    """One training and its test.

    Args:
        family: Key of FAMILIES.
        variant: Key of VARIANTS.
        seed: Of initial weights, order of the frames, augmentation, dropout and rendered cameras.
    """

    family: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f'{self.family}_{self.variant}_seed{self.seed}'

    @property
    def config(self) -> str:
        """Its config."""
        return CONFIG.format(self.family, FAMILIES[self.family], VARIANTS[self.variant])


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--families', nargs='+', choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument('--repeats', type=int, default=3, help='seeds 0, 1, ... [%(default)s]')
    parser.add_argument('--epochs', type=int, default=7, help='of every training [%(default)s]')
    parser.add_argument('--scenes-train', type=int, default=16, help='of four frames each [%(default)s]')
    parser.add_argument('--scenes-val', type=int, default=8, help='held-out scenes of four frames each [%(default)s]')
    parser.add_argument('--jobs', type=int, default=1, help='runs side by side, one thread each [%(default)s]')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/ablation', help='frames, runs, logs')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/benchmarks', help='folder of ablation.json and ablation.png')
    parser.add_argument('--document', type=Path, default=ROOT / 'docs/benchmarks.md', help='where the table goes')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='for all trainings and tests')
    args = parser.parse_args(argv)
    for name in ('repeats', 'epochs', 'scenes_train', 'scenes_val', 'jobs'):
        if getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} must be at least 1, got {getattr(args, name)}')
    return args


def settings_of(args: argparse.Namespace) -> dict:
    """What decides the numbers of a run besides family, variant and seed."""
    names = ('epochs', 'scenes_train', 'scenes_val', 'cfg_options')
    return dict({name: getattr(args, name) for name in names}, image_wh=IMAGE_WH)


def folder_of(args: argparse.Namespace) -> Path:
    """Folder of all runs of these settings."""
    digest = hashlib.sha256(json.dumps(settings_of(args), sort_keys=True).encode()).hexdigest()[:8]
    return args.work_dir / f'{args.epochs}e_{args.scenes_train}scenes_{digest}'


def make_frames(kind: str, folder: Path, args: argparse.Namespace) -> Path:
    """Generates the frames of a format, or finds them complete; returns their folder."""
    out = folder / 'data' / kind
    size = ('--scenes-train', args.scenes_train, '--scenes-val', args.scenes_val, '--frames', 4, '--workers', args.jobs)
    options = ('--format', kind, '--preset', 'tiny', '--image-size', 'x'.join(map(str, IMAGE_WH[kind])), *size, '--out', out)
    call(folder / 'data' / f'{kind}.log', 'tools/create_data.py', 'synthetic', *options, threads=None)
    return out


def overrides(run: Run, data: Path, args: argparse.Namespace) -> list[str]:
    """Options for training and test of a run."""
    cfg = Config.fromfile(ROOT / run.config, import_custom_modules=False)
    size = '[{},{}]'.format(*IMAGE_WH[GENERATED[FAMILIES[run.family]]])
    options = {
        'randomness.seed': run.seed,
        'train_cfg.max_epochs': args.epochs,
        # no validation: nothing is chosen by it
        'train_cfg.val_begin': args.epochs + 1,
        'default_hooks.checkpoint.save_best': None,
        'default_hooks.checkpoint.max_keep_ckpts': 1,
    }
    if cfg.model.get('aggregator'):
        options['model.aggregator.cameras.seed'] = run.seed
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        options[f'{split}_dataloader.dataset.data_root'] = f'{data}/'
        for index, step in enumerate(dataset.pipeline):
            if step.type == 'ResizeCropFlipImages':
                options[f'{split}_dataloader.dataset.pipeline.{index}.final_wh'] = size
    return ['--allow-new-keys', '--cfg-options', *(f'{key}={value}' for key, value in options.items()), *args.cfg_options]


def execute(run: Run, folder: Path, data: Path, args: argparse.Namespace) -> float:
    """Trains and tests unless the metrics are there; returns the seconds of this call."""
    start = time.monotonic()
    here = folder / run.name
    if (here / 'metrics.json').exists():
        return 0.0
    options = overrides(run, data, args)
    log, metrics = here / 'log.txt', here / 'metrics.json'
    call(log, 'tools/train.py', run.config, '--work-dir', here, '--resume', *options)
    checkpoint = (here / 'last_checkpoint').read_text().strip()
    outputs = ('--image-metrics', '--metrics-json', metrics)
    call(log, 'tools/test.py', run.config, checkpoint, '--work-dir', here, *outputs, *options)
    return time.monotonic() - start


def execute_all(runs: list[Run], folder: Path, data: dict[str, Path], args: argparse.Namespace) -> dict[Run, float]:
    """Executes runs side by side behind a progress bar; one that fails does not stop the others.

    Returns:
        Seconds per run.

    Raises:
        ToolError: If runs failed; the others are finished.
    """
    seconds, failed = {}, []
    with ThreadPoolExecutor(args.jobs) as pool, tqdm(total=len(runs), unit='run', desc='ablation') as progress:
        jobs = {pool.submit(execute, run, folder, data[GENERATED[FAMILIES[run.family]]], args): run for run in runs}
        for job in as_completed(jobs):
            run = jobs[job]
            try:
                seconds[run] = job.result()
                progress.set_postfix_str(f'{run.name} {seconds[run]:.0f} s')
            except ToolError as error:
                failed.append(f'{run.name}: {error}')
            progress.update()
    if failed:
        raise ToolError(f'{len(failed)} of {len(runs)} runs failed: ' + '; '.join(failed))
    return seconds


def collect(runs: Iterable[Run], folder: Path) -> list[dict]:
    """Metrics of finished runs: family, variant, seed and the values of METRICS as far as the test reports them."""
    rows = []
    for run in runs:
        metrics = json.loads((folder / run.name / 'metrics.json').read_text())
        values = {name: metrics[name] for name in METRICS if name in metrics}
        rows.append(dict(family=run.family, variant=run.variant, seed=run.seed, **values))
    return rows


def spread(values: list[float]) -> dict[str, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return dict(mean=statistics.fmean(values), std=statistics.stdev(values) if len(values) > 1 else 0.0, n=len(values))


def summarize(rows: list[dict]) -> list[dict]:
    """Mean and spread per family and metric: of both variants, and of their difference seed by seed.

    Returns:
        One dict per family: ``family`` and, per metric, ``base``, ``gaussrender``, ``difference``.
    """
    summary = []
    for family in dict.fromkeys(row['family'] for row in rows):
        by_variant = {v: {row['seed']: row for row in rows if (row['family'], row['variant']) == (family, v)} for v in VARIANTS}
        seeds = sorted(by_variant['base'].keys() & by_variant['gaussrender'].keys())
        entry = dict(family=family, format=FAMILIES[family], seeds=seeds)
        for name in METRICS:
            if not all(name in by_variant[variant][seed] for variant in VARIANTS for seed in seeds):
                continue
            values = {variant: [by_variant[variant][seed][name] for seed in seeds] for variant in VARIANTS}
            values['difference'] = [a - b for a, b in zip(values['gaussrender'], values['base'], strict=True)]
            entry[name] = {key: spread(value) for key, value in values.items()}
        summary.append(entry)
    return summary


def table(summary: list[dict]) -> str:
    """The summary in Markdown: percent, metres for depth; mean ± standard deviation."""
    names = [name for name in METRICS if all(name in entry for entry in summary)]
    labels = {'base': 'base', 'gaussrender': '+ GaussRender', 'difference': 'difference, seed by seed'}
    rows = []
    for entry in summary:
        for key, label in labels.items():
            sign = '+' if key == 'difference' else ''
            cells = []
            for name in names:
                value, factor = entry[name][key], METRICS[name][1]
                cells.append(f'{factor * value["mean"]:{sign}.2f} ± {factor * value["std"]:.2f}')
            rows.append([f'{entry["family"]}, {entry["format"]}' if key == 'base' else '', label, *cells])
    arrows = {'higher': '↑', 'lower': '↓'}
    return markdown_table(['frames', 'training', *(f'{METRICS[n][0]} {arrows[METRICS[n][2]]}' for n in names)], rows, left=2)


def plot(rows: list[dict], path: Path) -> None:
    """One panel per metric: a dot per run, a bar at the mean, base and GaussRender side by side per family."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    names = [name for name in METRICS if all(name in row for row in rows)]
    families = list(dict.fromkeys(row['family'] for row in rows))
    colors = {'base': '#4477aa', 'gaussrender': '#ee8866'}
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 3.4), squeeze=False)
    for axis, name in zip(axes[0], names, strict=True):
        heading, factor, better = METRICS[name]
        for place, family in enumerate(families):
            for shift, variant in ((-0.17, 'base'), (0.17, 'gaussrender')):
                values = [factor * r[name] for r in rows if (r['family'], r['variant']) == (family, variant)]
                x = [place + shift] * len(values)
                axis.scatter(x, values, s=22, color=colors[variant], label=variant if place == 0 else None, zorder=3)
                axis.hlines(statistics.fmean(values), place + shift - 0.14, place + shift + 0.14, color=colors[variant])
        axis.set_xticks(range(len(families)), families, rotation=20)
        axis.set_title(f'{heading}{" (%)" if factor == 100 else ""}, {better} is better', fontsize=9)
        axis.grid(axis='y', alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    write_atomically(path, lambda file: figure.savefig(file, dpi=120, format='png'))
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    """Runs the ablation; returns the exit status."""
    args = parse_args(argv)
    folder = folder_of(args)
    runs = [Run(f, v, seed) for seed in range(args.repeats) for f in args.families for v in VARIANTS]
    start = time.monotonic()
    try:
        print(f'runs and logs: {folder}', flush=True)
        kinds = dict.fromkeys(GENERATED[FAMILIES[family]] for family in args.families)
        data = {kind: make_frames(kind, folder, args) for kind in tqdm(kinds, desc='frames', unit='data set')}
        seconds = execute_all(runs, folder, data, args)
    except ToolError as error:
        print(f'error: {error}. The same command continues', file=sys.stderr)
        return 1
    rows = collect(runs, folder)
    summary = summarize(rows)
    text = table(summary)
    report = dict(
        settings=settings_of(args),
        machine=describe_machine(ROOT),
        minutes=(time.monotonic() - start) / 60,
        seconds={run.name: value for run, value in seconds.items()},
        summary=summary,
        runs=rows,
    )
    write_report(args.out / 'ablation.json', report)
    plot(rows, args.out / 'ablation.png')
    replace_section(args.document, 'ablation', text)
    print(f'{text}\nwrote {args.out / "ablation.json"}, {args.out / "ablation.png"} and the table in {args.document}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
