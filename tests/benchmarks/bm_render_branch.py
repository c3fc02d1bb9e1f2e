"""The whole GaussRender branch of a training step, forward and backward, beside that of an earlier checkout.

python tests/benchmarks/bm_render_branch.py --baseline ../older-checkout [--threads 1 2] [--out docs/benchmarks/render_branch]

One camera at full size and the bird's-eye view, grids of three benchmarks, logits of three stages of training (a boost of the
true class above noise), opacity from the logits. Every variant has a process of its own; they take turns, so that a change of
the machine's load meets all of them. ``--baseline`` names a checkout whose rasteriser is built in place; without it the branch
with images (``renderer.fused=False``) is the baseline. Memory: peak of a process in its first step above what it held before.
"""

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCENES = 'extensions/diff-gaussian-rasterization'
# benchmark -> range, voxel size, shape, classes, free class, sigma; the camera is that of the rasteriser's benchmark
CASES = {
    'occ3d': ((-40, -40, -1, 40, 40, 5.4), 0.4, (200, 200, 16), 18, 17, 0.27, 'nuscenes'),
    'surroundocc': ((-50, -50, -5, 50, 50, 3), 0.5, (200, 200, 16), 17, 0, 0.25, 'nuscenes'),
    'kitti360': ((0, -25.6, -2, 51.2, 25.6, 4.4), 0.2, (256, 256, 32), 19, 0, 0.1, 'kitti360'),
}
STAGES = ('trained', 'half', 'untrained')


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--baseline', type=Path, help='a checkout with its rasteriser built in place')
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--scale', type=int, default=1, help='divides the size of the camera image')
    parser.add_argument('--only', default='', help='run cases whose name contains this text')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/benchmarks/render_branch', help='without suffix')
    parser.add_argument('--worker', nargs=3, metavar=('CASE', 'FUSED', 'THREADS'), help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def build(case: str, fused: str, scale: int):
    """One step as a function without arguments."""
    import torch

    from projects.gaussrender import CameraBatch, GaussRender

    sys.path.insert(0, str(ROOT / SCENES / 'benchmarks'))
    from scenes import BOOSTS, make_camera, make_labels

    name, stage = case.split('-')
    limits, voxel, shape, classes, free, sigma, dataset = CASES[name]
    generator = torch.Generator().manual_seed(0)
    labels = make_labels(dict(shape=shape, classes=classes), generator)
    labels = labels if free else (labels + 1) % classes  # free is the last class there
    logits = torch.randn(*shape, classes, generator=generator)
    logits.scatter_add_(-1, labels[..., None], torch.full((*shape, 1), BOOSTS[stage]))
    # (1, C, X, Y, Z), in memory as heads leave it
    logits = logits.permute(3, 0, 1, 2)[None].requires_grad_()
    ref2cam, K, width, height = make_camera(dataset, 'front', scale)
    cameras = CameraBatch(ref2cam[None, None], K[None, None], width, height)
    model = GaussRender(
        dict(
            point_cloud_range=limits,
            voxel_size=voxel,
            shape=shape,
            frame='ego',
            free_index=free,
            ignore_index=255,
            class_names=[f'class {i}' for i in range(classes)],
        ),
        gaussians=dict(gaussian_scale=sigma),
        renderer={} if fused == 'as it is' else dict(fused=fused == 'yes'),
    )
    labels = labels[None]

    def step() -> dict[str, float]:
        logits.grad = None
        losses = model(logits, labels, cameras)
        sum(losses.values()).backward()
        return {key: float(value.detach()) for key, value in losses.items()}

    return step


def status(key: str) -> float:
    """MiB from /proc/self/status."""
    return int(re.search(rf'{key}:\s+(\d+) kB', Path('/proc/self/status').read_text()).group(1)) / 1024


def serve(case: str, fused: str, threads: str, scale: int) -> None:
    """Makes a step for every line of the input and answers with seconds, losses and peak memory as JSON."""
    import torch

    torch.set_num_threads(int(threads))
    step = build(case, fused, scale)
    before = status('VmRSS')
    for _ in sys.stdin:
        start = time.perf_counter()
        losses = step()
        seconds = time.perf_counter() - start
        print(json.dumps(dict(seconds=seconds, memory=status('VmHWM') - before, losses=losses)), flush=True)


class Worker:
    """A process that makes steps on demand."""

    def __init__(self, checkout: Path, case: str, fused: str, threads: int, scale: int) -> None:
        path = os.pathsep.join((str(checkout), str(checkout / SCENES)))
        command = [sys.executable, __file__, '--scale', str(scale), '--worker', case, fused, str(threads)]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def step(self) -> dict:
        """The answer to one step."""
        print(file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark."""
    args = parse_args(argv)
    if args.worker:
        serve(*args.worker, args.scale)
        return 0
    sys.path.insert(0, str(ROOT))
    from tools.dev.benchmark_report import describe_machine, write_report

    baseline = (args.baseline.resolve(), 'as it is') if args.baseline else (ROOT, 'no')
    rows, load = [], os.getloadavg()
    cases = [case for case in map('-'.join, itertools.product(CASES, STAGES)) if args.only in case]
    for case, threads in itertools.product(cases, args.threads):
        workers = {
            'before': Worker(baseline[0], case, baseline[1], threads, args.scale),
            'now': Worker(ROOT, case, 'yes', threads, args.scale),
        }
        answers = {name: [] for name in workers}
        try:
            for _ in range(1 + args.repeats):
                for name, worker in workers.items():
                    answers[name].append(worker.step())
        finally:
            for worker in workers.values():
                worker.close()
        row = dict(case=case, threads=threads)
        for name, values in answers.items():
            seconds = [value['seconds'] for value in values[1:]]  # the first warms up
            row[name] = dict(
                median=statistics.median(seconds),
                least=min(seconds),
                most=max(seconds),
                memory=values[0]['memory'],
                losses=values[0]['losses'],
            )
        row['factor'] = row['before']['median'] / row['now']['median']
        row['memory_share'] = row['now']['memory'] / row['before']['memory']
        rows.append(row)
        print(
            f'{case}, threads {threads}: {row["before"]["median"]:.2f} -> {row["now"]["median"]:.2f} s, {row["factor"]:.2f} x, '
            f'memory {row["before"]["memory"]:.0f} -> {row["now"]["memory"]:.0f} MiB',
            flush=True,
        )
    report = dict(
        machine=dict(describe_machine(ROOT), load=[load, os.getloadavg()]),
        baseline=commit(baseline[0]) if args.baseline else 'renderer.fused=False',
        scale=args.scale,
        repeats=args.repeats,
        geometric_mean=statistics.geometric_mean(row['factor'] for row in rows),
        least_factor=min(row['factor'] for row in rows),
        results=rows,
    )
    write_report(args.out.with_suffix('.json'), report)
    plot(rows, args.out.with_suffix('.png'))
    print(f'geometric mean {report["geometric_mean"]:.2f} x, least {report["least_factor"]:.2f} x')
    return 0


def commit(checkout: Path) -> str:
    """Of a checkout."""
    return subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=checkout, capture_output=True, text=True).stdout.strip()


def plot(rows: list[dict], path: Path) -> None:
    """Bars before and now, one panel per number of threads."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    from projects.occ.atomic_write import write_atomically

    counts = sorted({row['threads'] for row in rows})
    figure, axes = plt.subplots(1, len(counts), figsize=(6 * len(counts), 3.6), squeeze=False, sharey=True)
    for axis, threads in zip(axes[0], counts):
        shown = [row for row in rows if row['threads'] == threads]
        places = range(len(shown))
        for shift, name, color in ((-0.2, 'before', '#4477aa'), (0.2, 'now', '#ee8866')):
            axis.bar([p + shift for p in places], [row[name]['median'] for row in shown], 0.38, color=color, label=name)
        for p, row in zip(places, shown):
            axis.text(p + 0.2, row['now']['median'], f'{row["factor"]:.1f}x', ha='center', va='bottom', fontsize=8)
        axis.set_xticks(list(places), [row['case'] for row in shown], rotation=35, ha='right', fontsize=8)
        axis.set_title(f'{threads} thread{"s" * (threads > 1)}')
        axis.grid(axis='y', alpha=0.3)
    axes[0][0].set_ylabel('seconds per step, render branch')
    axes[0][0].legend()
    figure.tight_layout()
    write_atomically(path, lambda file: figure.savefig(file, dpi=110, format='png'))
    plt.close(figure)


if __name__ == '__main__':
    sys.exit(main())
