"""Time the ray marcher and its peers on a volume like one of Occ3D; writes a json file and a picture.

    python benchmarks/bm_march.py --threads 1 2 --out docs/benchmarks/march_cpu

38,400 LiDAR-like rays of seven frames, 17 classes, samples of mip-NeRF 360 half a voxel apart, raw densities ('dvgo'), once as
a trained network has them and once as an initial one. Forward and backward (gradients of both volumes, from features and depth)
are timed apart, in turns, after a run for warming up: medians of the wall clock (GPU: of CUDA events). Peers: ``grid_sample``
of PyTorch at every sample; the same, with features only where weights count; a scalar loop with early stop compiled by numba,
one thread. Peak memory is what a call adds to the process.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

import torch
from bm_rasterize import Clock, PeakMemory, processor, replace, summary
from machine_peak import cpu_peak, cuda_peak

from gaussian_rasterization import MarchSettings, build_config, march_rays

sys.path.append(str(Path(__file__).resolve().parents[1] / 'tests'))
from march_scenes import street  # noqa: E402

KINDS = ('trained', 'initial')
LOOP = 'scalar numba loop, 1 thread'


def ours(backend):
    """``march(scene, settings) -> (features (R, C), depth (R,))`` of this package."""

    def march(scene, settings):
        out = march_rays(**scene, settings=settings, backend=backend)
        return out.features[0], out.depth[0]

    return march


def methods_of(backend, peers):
    """Name -> (function, whether features have their channels in front)."""
    methods = {'ours': (ours(backend), False)}
    if peers:
        from march_peers import grid_sample_march, loop_march

        methods['grid_sample'] = (grid_sample_march, True)
        methods['grid_sample, sparse features'] = (lambda *args: grid_sample_march(*args, sparse=True), True)
        methods[LOOP] = (loop_march, False)
    return methods


def run_once(march, scene, settings, upstream, clock):
    """Milliseconds of both passes, and the results."""
    leaves = {k: scene[k].detach().requires_grad_() for k in ('density', 'features')}
    clock.start()
    images = march(dict(scene, **leaves), settings)
    forward = clock.stop()
    clock.start()
    grads = torch.autograd.grad(images, list(leaves.values()), upstream)
    return forward, clock.stop(), [x.detach() for x in (*images, *grads)]


def compare(results, truth, first):
    """Largest differences from our numbers, relative to the largest of them."""
    if first:
        results = [*results[:3], results[3].permute(0, 2, 3, 4, 1)]
    names = ('features', 'depth', 'grad_density', 'grad_features')
    return {
        name: float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))
        for name, a, b in zip(names, results, truth, strict=True)
    }


def run_kind(kind, args, threads, peers, device):
    """Rows of one field: all methods in turns."""
    scene, contraction = street(trained=kind == 'trained', channels=args.channels)
    rays = slice(0, args.rays)
    scene = dict(scene, origins=scene['origins'][:, rays], directions=scene['directions'][:, rays])
    scene = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
    settings = MarchSettings(form='dvgo', contraction=contraction, alpha_min=1e-7, transmittance_min=1e-3, weight_min=1e-7)
    front = dict(scene, features=scene['features'].permute(0, 4, 1, 2, 3).contiguous())
    generator = torch.Generator().manual_seed(0)
    upstream = [torch.randn(args.rays, args.channels, generator=generator), torch.randn(args.rays, generator=generator)]
    upstream = [x.to(device) / args.rays for x in upstream]
    clock, states, truth = Clock(device), {}, None
    methods = methods_of(args.backend, peers)
    for name, (march, first) in methods.items():
        own = front if first else scene
        *_, results = run_once(march, own, settings, upstream, clock)  # warm-up, compilation
        truth = results if name == 'ours' else truth
        with PeakMemory(device) as memory:
            run_once(march, own, settings, upstream, clock)
        states[name] = dict(forward=[], backward=[], memory=memory.mebibytes, difference=compare(results, truth, first))
        del results
    for repeat in range(args.repeats):
        for name, (march, first) in methods.items():
            if name != 'ours' and repeat >= args.peer_repeats:
                continue
            # a short load of the machine must not decide: ours is quick, so it gets more of the turns
            for _ in range(3 if name == 'ours' else 1):
                forward, backward, _ = run_once(march, front if first else scene, settings, upstream, clock)
                states[name]['forward'].append(forward), states[name]['backward'].append(backward)
    samples = float(march_rays(**dict(scene, features=None), settings=settings, backend=args.backend).count.float().mean())
    rows = []
    for name, state in states.items():
        milliseconds = {k: summary(state[k]) for k in ('forward', 'backward')}
        total = [a + b for a, b in zip(state['forward'], state['backward'], strict=True)]
        milliseconds['total'] = summary(total)
        rows.append(
            dict(
                field=kind,
                method=name,
                threads=1 if name == LOOP else threads,
                rays=args.rays,
                channels=args.channels,
                samples_per_ray=samples,
                milliseconds=milliseconds,
                peak_mib=state['memory'],
                difference_from_ours=state['difference'],
            )
        )
        text = '  '.join(f'{k} {v["median"]:.0f}' for k, v in milliseconds.items())
        memory = '' if state['memory'] is None else f'  {state["memory"]:.0f} MiB'
        print(f'{rows[-1]["threads"]} threads  {kind:8s} {name:32s} {text} ms{memory}', flush=True)
    return rows


def ratios(rows):
    """How much longer and larger every peer is than ours with the most threads, by field."""
    found = {}
    for kind in KINDS:
        own = [r for r in rows if r['field'] == kind and r['method'] == 'ours']
        if not own:
            continue
        own = max(own, key=lambda r: r['threads'])
        for r in rows:
            if r['field'] == kind and r['method'] != 'ours':
                entry = dict(time=r['milliseconds']['total']['median'] / own['milliseconds']['total']['median'])
                if r['peak_mib'] and own['peak_mib']:
                    entry['memory'] = r['peak_mib'] / own['peak_mib']
                found[f'{kind}, {r["method"]}'] = entry
    return found


def table(rows):
    """Markdown: milliseconds forward + backward, and memory."""
    lines = ['| | ' + ' | '.join(f'{k} field, ms | MiB' for k in KINDS) + ' |', '|---|' + '---|---|' * len(KINDS)]
    names = dict.fromkeys((r['method'], r['threads']) for r in rows)
    for name, threads in names:
        cells = []
        for kind in KINDS:
            row = next((r for r in rows if (r['method'], r['threads'], r['field']) == (name, threads, kind)), None)
            if row is None:
                cells += ['', '']
                continue
            times = row['milliseconds']
            cells.append(f'{times["forward"]["median"]:.0f} + {times["backward"]["median"]:.0f}')
            cells.append('' if row['peak_mib'] is None else f'{row["peak_mib"]:.0f}')
        suffix = '' if name == LOOP else f', {threads} thread{"s" * (threads > 1)}'
        lines.append(f'| {name}{suffix} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def plot(rows, path):
    """Bars of the median time, logarithmic."""
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(KINDS), figsize=(11, 3.4), sharey=True, layout='constrained')
    for axis, kind in zip(axes, KINDS, strict=True):
        chosen = [r for r in rows if r['field'] == kind]
        labels = [r['method'] if r['method'] == LOOP else f'{r["method"]}, {r["threads"]} thr.' for r in chosen]
        left = [0.0] * len(chosen)
        for part, color in (('forward', '#4477aa'), ('backward', '#cc6677')):
            values = [r['milliseconds'][part]['median'] for r in chosen]
            axis.barh(labels, values, left=left, color=color, label=part)
            left = [a + b for a, b in zip(left, values, strict=True)]
        for i, total in enumerate(left):
            axis.text(total, i, f' {total:.0f}', va='center')
        axis.set(xscale='log', title=f'{kind} field', xlabel='milliseconds')
        axis.set_xlim(right=3 * max(left))
        axis.invert_yaxis()
    axes[0].legend()
    replace(path, lambda temporary: figure.savefig(temporary, format='png', dpi=110))
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--backend', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2], help='peers run with the last number')
    parser.add_argument('--rays', type=int, default=38400)
    parser.add_argument('--channels', type=int, default=17)
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--peer-repeats', type=int, default=3)
    parser.add_argument('--no-peers', action='store_true')
    parser.add_argument('--out', type=Path, help='path of json and png, without suffix')
    args = parser.parse_args()
    device, rows = ('cuda' if args.backend == 'cuda' else 'cpu'), []
    load = os.getloadavg()[0]
    peaks = {}
    for threads in args.threads:
        torch.set_num_threads(threads)
        peaks[threads] = cuda_peak() if device == 'cuda' else cpu_peak(threads)
        for kind in KINDS:
            rows += run_kind(kind, args, threads, threads == args.threads[-1] and not args.no_peers and device == 'cpu', device)
    found = ratios(rows)
    for name, entry in found.items():
        print(f'{name}: ' + ', '.join(f'{k} {v:.1f} x ours' for k, v in entry.items()))
    print(table(rows))
    if args.out:
        report = dict(
            build={k: v for k, v in build_config().items() if k not in ('library', 'build_command')},
            processor=processor(),
            processors=os.cpu_count(),
            load=[load, os.getloadavg()[0]],
            peaks={str(k): v for k, v in peaks.items()},
            results=rows,
            ratios=found,
            spread=statistics.median(
                r['milliseconds']['total']['maximum'] / r['milliseconds']['total']['minimum'] for r in rows
            ),
        )
        replace(args.out.with_suffix('.json'), lambda path: Path(path).write_text(json.dumps(report, indent=1)))
        plot(rows, args.out.with_suffix('.png'))


if __name__ == '__main__':
    main()
