"""Time a rendered loss forward and backward: tile by tile without images, beside both renders compared with PyTorch.

    python benchmarks/bm_render_loss.py --threads 1 2 --out ../../docs/benchmarks/render_loss_cpu.json

Median, minimum and maximum of the wall clock after one warm-up, in milliseconds; L1 between class images and depth images,
label Gaussians as target, gradients of features and opacities. The two ways take turns, so that a busy machine hits both.
``memory``: peak of the process above what it held before the first call, MiB, in a process of its own.
"""

import argparse
import itertools
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from bm_rasterize import replace
from scenes import make_scene

from gaussian_rasterization import TargetGaussians, build_config, fused_render_loss

PARTS = (('nuscenes', 'kitti360'), ('front', 'bev'), ('trained', 'half', 'untrained'))
CASES = ['-'.join(parts) for parts in itertools.product(*PARTS)]


def make_case(name, scale):
    """Arguments of ``fused_render_loss``."""
    dataset, view, kind = name.split('-')
    scene, goal = (make_scene(dataset, view, k, scale) for k in (kind, 'gt'))
    target = TargetGaussians(*(goal[k] for k in ('means', 'quats', 'scales', 'opacities', 'features')))
    leaves = {k: scene[k].clone().requires_grad_() for k in ('features', 'opacities')}
    return dict(scene, **leaves, target=target)


def step(case, fused):
    """Seconds of one forward and backward pass."""
    start = time.perf_counter()
    out = fused_render_loss(**case, fused=fused)
    (out.semantic + out.depth).backward()
    return time.perf_counter() - start


def status(key):
    """MiB from /proc/self/status."""
    return int(re.search(rf'{key}:\s+(\d+) kB', Path('/proc/self/status').read_text()).group(1)) / 1024


def peak(name, scale, fused):
    """MiB that one step adds, in a process of its own."""
    command = [sys.executable, __file__, '--peak', name, str(int(fused)), '--scale', str(scale)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--scale', type=int, default=1, help='divides the size of the front images')
    parser.add_argument('--only', default='', help='run cases whose name contains this text')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/render_loss.json'))
    parser.add_argument('--peak', nargs=2, metavar=('CASE', 'FUSED'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        case, before = make_case(args.peak[0], args.scale), status('VmRSS')
        step(case, args.peak[1] == '1')
        print(status('VmHWM') - before)
        return
    rows, load = [], os.getloadavg()
    for name in filter(lambda name: args.only in name, CASES):
        case, memory = make_case(name, args.scale), {str(fused): peak(name, args.scale, fused) for fused in (True, False)}
        for threads in args.threads:
            torch.set_num_threads(threads)
            times = {True: [], False: []}
            for repeat in range(args.repeats + 1):
                for fused, values in times.items():
                    values += [1e3 * step(case, fused)] * (repeat > 0)
            row = dict(case=name, threads=threads, scale=args.scale, memory=memory)
            for fused, values in times.items():
                key = 'fused' if fused else 'images'
                row[key] = dict(median=statistics.median(values), least=min(values), most=max(values))
            row['factor'] = row['images']['median'] / row['fused']['median']
            rows.append(row)
            medians = [row[key]['median'] for key in ('images', 'fused')]
            print(f'{name}, threads {threads}: {medians[0]:.0f} -> {medians[1]:.0f} ms, {row["factor"]:.2f} x', flush=True)
    report = dict(
        build={k: v for k, v in build_config().items() if k not in ('library', 'build_command')},
        machine=platform.processor() or platform.machine(),
        processors=os.cpu_count(),
        load=[load, os.getloadavg()],
        geometric_mean=statistics.geometric_mean(row['factor'] for row in rows),
        results=rows,
    )
    replace(args.out, lambda temporary: Path(temporary).write_text(json.dumps(report, indent=1)))


if __name__ == '__main__':
    main()
