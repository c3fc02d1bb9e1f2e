"""A model zoo on generated streets: one small trained checkpoint per config of ``configs/debug``, made by one command.

Generates the frames, trains every config as it stands, keeps the weights alone, tests **that file** with ``tools/test.py``,
and writes its checksum, size and metrics to ``zoo.json`` and the table in ``configs/debug/README.md``. The same command
continues after an interruption and skips what is finished. Files are no part of the repository: attach those of
``work_dirs/model_zoo`` to a release. The same versions of Python packages, number of threads and processor give the same file.

python tools/model_zoo.py --jobs 2
python tools/model_zoo.py --verify      # the metrics of existing files once more, to the last digit
"""

import argparse
import hashlib
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from tqdm import tqdm  # noqa: E402

from projects.occ.atomic_write import write_atomically  # noqa: E402
from projects.occ.engine.checkpoint import load_from_local, weights_of  # noqa: E402
from tools.dev.benchmark_report import describe_machine, markdown_table, replace_section, write_report  # noqa: E402
from tools.dev.tool_runs import ToolError, call  # noqa: E402

CONFIGS = 'configs/debug/*_tiny_synthetic-*.py'
# data root of the configs -> options of create_data.py synthetic
DATA = {
    'data/synthetic/': '--format both --preset tiny --image-size 200x112 --scenes-train 24 --scenes-val 4 --frames 4 --seed 0',
    'data/synthetic_sweeps/': '--format occ3d --frames 6 --scenes-train 32 --scenes-val 8 --camera-sweeps 1 --image-classes '
    '--seed 3',
    'data/synthetic-kitti360/': '--format sscbench-kitti360 --preset tiny --seed 0',
    'data/synthetic_ddad/': '--format ddad --image-size 192x120 --frames 8 --seed 0',
}
SIZE_LIMIT = 10 * 2**20  # bytes of a file that people download without thinking
# name in the json of tools/test.py -> heading, factor, digits
METRICS = {
    'mIoU': ('mIoU', 100, 2),
    'IoU': ('IoU', 100, 2),
    'abs_rel': ('abs rel', 1, 3),
    'a1': ('a1', 100, 2),
}


@dataclass(frozen=True)
class Entry:
    """One checkpoint of the zoo.

    Args:
        config: Path of its config below the root of the repository.
        folder: Where all entries are.
    """

    config: str
    folder: Path

    @property
    def name(self) -> str:
        """Name of the config."""
        return Path(self.config).stem

    @property
    def work_dir(self) -> Path:
        """Of its training."""
        return self.folder / self.name

    @property
    def weights(self) -> Path:
        """The file that people download."""
        return self.folder / f'{self.name}.pth'

    @property
    def record(self) -> Path:
        """What is known of it; written last."""
        return self.work_dir / 'zoo.json'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', metavar='NAME', help='names of configs in configs/debug; without: all')
    parser.add_argument('--jobs', type=int, default=1, help='trainings side by side, one thread each [%(default)s]')
    parser.add_argument('--verify', action='store_true', help='test the existing files again and compare every number')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'model_zoo', help='checkpoints, logs')
    parser.add_argument('--out', type=Path, default=ROOT / 'configs' / 'debug', help='folder of zoo.json and its README.md')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='for all trainings and tests')
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f'--jobs must be at least 1, got {args.jobs}')
    known = [path.stem for path in sorted(ROOT.glob(CONFIGS))]
    if unknown := set(args.only or ()) - set(known):
        parser.error(f'--only {" ".join(sorted(unknown))}: no such config; there are {", ".join(known)}')
    args.names = [name for name in known if not args.only or name in args.only]
    return args


def data_root(config: str) -> str:
    """The folder that a config reads."""
    cfg = Config.fromfile(ROOT / config, import_custom_modules=False)
    dataset = cfg.train_dataloader.dataset
    while 'data_root' not in dataset and 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset.data_root


def make_frames(root: str, args: argparse.Namespace) -> None:
    """Generates the frames of a data root, or finds them complete.

    Raises:
        ToolError: If nothing is known of the folder or the generator fails.
    """
    if root not in DATA:
        raise ToolError(f'no command is known that makes {root}; add it to DATA in {Path(__file__).name}')
    log = args.work_dir / f'{Path(root).name}.log'
    call(log, 'tools/create_data.py', 'synthetic', *DATA[root].split(), '--workers', args.jobs, '--out', root, threads=None)


def keep_weights(checkpoint: Path, out: Path) -> None:
    """Writes the weights of a checkpoint alone, in a file that loads as any other."""
    content = dict(state_dict=weights_of(load_from_local(checkpoint, map_location='cpu')), meta={})
    write_atomically(out, lambda file: torch.save(content, file))


def score(entry: Entry, metrics: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The json of ``tools/test.py`` for the file of an entry."""
    options = ['--cfg-options', *args.cfg_options] if args.cfg_options else []
    arguments = ('--work-dir', entry.work_dir, '--metrics-json', metrics, *options)
    call(entry.work_dir / 'log.txt', 'tools/test.py', entry.config, entry.weights, *arguments)
    return json.loads(metrics.read_text())


def training_summary(work_dir: Path) -> dict[str, Any]:
    """First and last logged loss, and the number of iterations, of the logs of a training."""
    lines = []
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        lines += [json.loads(line) for line in path.read_text().splitlines()]
    losses = [line for line in lines if 'loss' in line]
    if not losses:
        return {}
    return dict(iterations=losses[-1]['step'], first_loss=losses[0]['loss'], last_loss=losses[-1]['loss'])


def make(entry: Entry, args: argparse.Namespace) -> dict[str, Any]:
    """Trains, keeps the weights and tests them, unless all this was done; returns the record.

    Raises:
        ToolError: If a step fails or the file is too large.
    """
    if entry.record.exists() and entry.weights.exists():
        return json.loads(entry.record.read_text())
    start = time.monotonic()
    options = ['--cfg-options', *args.cfg_options] if args.cfg_options else []
    call(entry.work_dir / 'log.txt', 'tools/train.py', entry.config, '--work-dir', entry.work_dir, '--resume', *options)
    keep_weights(Path((entry.work_dir / 'last_checkpoint').read_text().strip()), entry.weights)
    content = entry.weights.read_bytes()
    if len(content) > SIZE_LIMIT:
        raise ToolError(f'{entry.weights} has {len(content)} bytes, more than {SIZE_LIMIT}; make its network smaller')
    metrics = score(entry, entry.work_dir / 'metrics.json', args)
    record = dict(
        config=entry.config,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        minutes=(time.monotonic() - start) / 60,
        training=training_summary(entry.work_dir),
        metrics={name: value for name, value in metrics.items() if name != 'source'},
        cfg_options=args.cfg_options,
        machine=describe_machine(ROOT),
    )
    write_report(entry.record, record)
    return record


def verify(entry: Entry, args: argparse.Namespace) -> dict[str, Any]:
    """Tests the file of an entry again.

    Raises:
        ToolError: If there is no file, it is another one, or a number differs.
    """
    if not (entry.record.exists() and entry.weights.exists()):
        raise ToolError(f'{entry.weights} and its record do not exist; run without --verify first')
    record = json.loads(entry.record.read_text())
    if hashlib.sha256(entry.weights.read_bytes()).hexdigest() != record['sha256']:
        raise ToolError(f'{entry.weights} is not the file that was tested: its sha256 differs from the recorded one')
    again = score(entry, entry.work_dir / 'metrics_again.json', args)
    if wrong := [name for name, value in record['metrics'].items() if again.get(name) != value]:
        raise ToolError(f'{entry.name}: {", ".join(wrong)} differ from the recorded values')
    return record


def table(records: list[dict[str, Any]]) -> str:
    """The records in Markdown."""
    rows = []
    for record in records:
        metrics, training = record['metrics'], record['training']
        cells = [
            f'{metrics[key] * factor:.{digits}f}' if isinstance(metrics.get(key), float) else '–'
            for key, (_, factor, digits) in METRICS.items()
        ]
        name, losses = Path(record['config']).name, '–'
        if training:
            losses = f'{training["first_loss"]:.2f} → {training["last_loss"]:.2f} ({training["iterations"]})'
        size = f'{record["bytes"] / 1e6:.1f} MB'
        rows.append([f'[{name}]({name})', *cells, losses, f'{record["minutes"]:.0f}', size, f'`{record["sha256"][:16]}`'])
    headings = (heading for heading, _, _ in METRICS.values())
    return markdown_table(['config', *headings, 'loss (iterations)', 'minutes', 'file', 'sha256 begins'], rows)


def main(argv: list[str] | None = None) -> int:
    """Makes or verifies the zoo; returns the exit status."""
    args = parse_args(argv)
    entries = [Entry(os.path.relpath(ROOT / 'configs' / 'debug' / f'{name}.py', ROOT), args.work_dir) for name in args.names]
    records, failed = {}, []
    try:
        if not args.verify:
            roots = dict.fromkeys(data_root(entry.config) for entry in entries)
            for root in tqdm(roots, desc='frames', unit='data set'):
                make_frames(root, args)
    except ToolError as error:
        print(f'error: {error}. The same command continues', file=sys.stderr)
        return 1
    step = verify if args.verify else make
    with ThreadPoolExecutor(args.jobs) as pool, tqdm(total=len(entries), unit='model', desc=step.__name__) as progress:
        jobs = {pool.submit(step, entry, args): entry for entry in entries}
        for job in as_completed(jobs):
            try:
                records[jobs[job].name] = job.result()
            except ToolError as error:
                failed.append(f'{jobs[job].name}: {error}')
            progress.update()
    if failed:
        print(f'error: {len(failed)} of {len(entries)} failed: ' + '; '.join(failed), file=sys.stderr)
        return 1
    if args.verify:
        print(f'{len(records)} files give the recorded numbers, digit by digit')
        return 0
    known = args.out / 'zoo.json'
    if known.exists():
        # a part of the zoo made again leaves the rest as it is
        records = {**json.loads(known.read_text()), **records}
    records = dict(sorted(records.items()))
    write_report(known, records)
    replace_section(args.out / 'README.md', 'zoo', table(list(records.values())))
    print(f'{table(list(records.values()))}\nwrote {known} and the table in {args.out / "README.md"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
