"""Time the rasteriser on voxel scenes and write a json file and a picture.

    python benchmarks/bm_rasterize.py --threads 1 2 --out work_dirs/rasterizer

Forward and backward are timed apart, projection, sorting and binning included, after warm-up; reported are the median of the
wall clock, the minimum and the processor time, which tells more on a shared machine. Gradients: features and opacities, what
rendering supervision of fixed voxels needs; ``--geometry`` adds means, quaternions and scales. "prefiltered": the Gaussians of
opacity below 1/255 were removed beforehand, which any rasteriser can profit from.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from scenes import make_scene

from gaussian_rasterization import build_config, rasterize

CASES = [
    *(('nuscenes', view, kind, 1) for view in ('front', 'bev') for kind in ('gt', 'trained', 'half', 'untrained')),
    *(('nuscenes', 'front', kind, 4) for kind in ('trained', 'half', 'untrained')),
    *(('kitti360', 'front', kind, 1) for kind in ('gt', 'trained', 'half', 'untrained')),
]


def synchronize(device):
    if device == 'cuda':
        torch.cuda.synchronize()


def measure(scene, backend, repeats, geometry):
    """Milliseconds of forward and backward: dict of lists."""
    device = 'cuda' if backend == 'cuda' else 'cpu'
    scene = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
    names = ['opacities', *(['features'] if scene['features'].is_floating_point() else [])]
    names += ['means', 'quats', 'scales'] if geometry else []
    labels = not scene['features'].is_floating_point()
    options = dict(backend=backend, num_classes=scene['background'].shape[0] if labels else None)
    needs_grad = torch.is_grad_enabled() and not labels
    leaves = {k: scene[k].clone().requires_grad_(needs_grad) for k in names}
    times = dict(forward=[], backward=[], forward_cpu=[], backward_cpu=[])
    grads = None
    for repeat in range(repeats + 2):
        synchronize(device)
        wall, processor = time.perf_counter(), time.process_time()
        out = rasterize(**dict(scene, **leaves), **options)
        synchronize(device)
        middle, middle_processor = time.perf_counter(), time.process_time()
        if grads is None:
            # an L1 loss has gradients of one size and either sign
            grads = [torch.randn_like(x).sign() / x.numel() for x in (out.features, out.depth)]
        start, start_processor = time.perf_counter(), time.process_time()
        if needs_grad:
            torch.autograd.grad([out.features, out.depth], list(leaves.values()), grads)
            synchronize(device)
        end, end_processor = time.perf_counter(), time.process_time()
        del out
        if repeat >= 2:
            times['forward'].append(middle - wall)
            times['forward_cpu'].append(middle_processor - processor)
            if needs_grad:
                times['backward'].append(end - start)
                times['backward_cpu'].append(end_processor - start_processor)
    return {k: [1e3 * x for x in v] for k, v in times.items() if v}


def summary(values):
    return dict(median=statistics.median(values), minimum=min(values), runs=len(values))


def run(args):
    """All measurements as a list of dicts."""
    results = []
    for threads in args.threads:
        torch.set_num_threads(threads)
        for dataset, view, kind, scale in CASES:
            name = f'{dataset} {view} {kind}' + (f' 1/{scale}' if scale > 1 else '')
            if args.only and args.only not in name:
                continue
            base = make_scene(dataset, view, kind, scale)
            variants = {'': base}
            if kind == 'trained':
                keep = base['opacities'] >= 1 / 255
                rows = ('means', 'quats', 'scales', 'opacities', 'features')
                variants['prefiltered'] = dict(base, **{k: base[k][keep] for k in rows})
            if kind == 'gt':
                one_hot = torch.nn.functional.one_hot(base['features'], base['background'].shape[0]).float()
                variants['one-hot'] = dict(base, features=one_hot)
            for variant, scene in variants.items():
                with torch.set_grad_enabled(kind != 'gt'):
                    times = measure(scene, args.backend, args.repeats, args.geometry)
                result = dict(
                    case=f'{name} {variant}'.strip(),
                    threads=threads,
                    gaussians=len(scene['means']),
                    drawn=int((scene['opacities'] >= 1 / 255).sum()),
                    size=[scene['width'], scene['height']],
                    channels=scene['background'].shape[0],
                    milliseconds={k: summary(v) for k, v in times.items()},
                )
                results.append(result)
                line = '  '.join(f'{k} {v["median"]:.1f} (min {v["minimum"]:.1f})' for k, v in result['milliseconds'].items())
                print(f'{threads} threads  {result["case"]:36s} {line} ms', flush=True)
    return results


def plot(results, path):
    """Bars per case, stacked forward and backward, one panel per number of threads."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    panels = sorted({r['threads'] for r in results})
    figure, axes = plt.subplots(1, len(panels), figsize=(7 * len(panels), 0.32 * len(results) / len(panels) + 1.5), sharey=True)
    for axis, threads in zip([axes] if len(panels) == 1 else axes, panels, strict=True):
        rows = [r for r in results if r['threads'] == threads][::-1]
        names = [r['case'] for r in rows]
        forward = [r['milliseconds']['forward']['median'] for r in rows]
        backward = [r['milliseconds'].get('backward', dict(median=0.0))['median'] for r in rows]
        axis.barh(names, forward, color='#4477aa', label='forward')
        axis.barh(names, backward, left=forward, color='#ee8866', label='backward (features, opacity)')
        axis.set_xlabel('milliseconds, median')
        axis.set_title(f'{threads} thread' + ('s' if threads > 1 else ''))
        axis.grid(axis='x', alpha=0.3)
        axis.set_axisbelow(True)
        axis.legend(loc='upper right')
    figure.tight_layout()
    replace(path, lambda temporary: figure.savefig(temporary, dpi=120, format='png'))


def replace(path, write):
    """Write to a temporary file in the same folder, then move it into place."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    os.close(descriptor)
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def processor():
    for line in Path('/proc/cpuinfo').read_text().splitlines() if Path('/proc/cpuinfo').exists() else ():
        if line.startswith('model name'):
            return line.split(':', 1)[1].strip()
    return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--backend', default='cpu', choices=['cpu', 'cuda', 'reference'])
    parser.add_argument('--threads', type=int, nargs='+', default=[torch.get_num_threads()])
    parser.add_argument('--repeats', type=int, default=9)
    parser.add_argument('--geometry', action='store_true', help='gradients of means, quaternions and scales, too')
    parser.add_argument('--only', default='', help='run cases whose name contains this text')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/rasterizer'), help='folder for timing.json and timing.png')
    args = parser.parse_args()
    report = dict(
        build={k: v for k, v in build_config().items() if k not in ('library', 'build_command')},
        processor=processor(),
        processors=os.cpu_count(),
        load_before=os.getloadavg(),
        gpu=torch.cuda.get_device_name() if args.backend == 'cuda' else None,
        backend=args.backend,
        python=sys.version.split()[0],
        results=run(args),
    )
    report['load_after'] = os.getloadavg()
    if not report['results']:
        raise SystemExit(f'no case contains {args.only!r}')
    args.out.mkdir(parents=True, exist_ok=True)
    replace(args.out / 'timing.json', lambda temporary: Path(temporary).write_text(json.dumps(report, indent=1)))
    plot(report['results'], args.out / 'timing.png')
    print(f'wrote {args.out}/timing.json and timing.png')


if __name__ == '__main__':
    main()
