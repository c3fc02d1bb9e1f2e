"""Time the rasteriser and its peers on voxel scenes, beside the measured peak of the machine; writes a json file and a picture.

    python benchmarks/bm_rasterize.py --threads 1 2 --out docs/benchmarks/rasterizer_cpu
    PYTHONPATH=/folder/with/gsplat python benchmarks/bm_rasterize.py --only peers

Forward and backward are timed apart, projection, sorting and binning included, after warm-up: median, minimum, maximum of the
wall clock (GPU: of CUDA events). Scenes: ground truth (labels, and as one-hot features), a trained, half trained and untrained
network, from the front and from above, full and quarter resolution. Gradients: ``features+opacity``, what rendering supervision
of fixed voxels needs, and ``everything``. Variants: ``prefiltered``, Gaussians of opacity below 1/255 removed beforehand, which
any rasteriser can profit from; ``culling off``, lists made from the radius alone, the image is the same; ``lists only``,
projection, depth order and tile lists with every tile switched off: all that two renders from one camera could share.

Shares of the peak: flops of the arithmetic per pair (15 per test, 2 (C + 1) + 3 per blended pair, ...; see pairs.py) per
second, over the measured rate of fused multiply-adds of as many threads.
"""

import argparse
import ctypes
import gc
import json
import math
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

import peers
import torch
from machine_peak import cpu_peak, cuda_peak
from pairs import count_pairs, flops
from scenes import make_scene

from gaussian_rasterization import build_config, constants, rasterize

KINDS = ('gt', 'trained', 'half', 'untrained')
CASES = [  # data set, view, kind, divisor of the image size
    *((dataset, 'front', kind, scale) for dataset in ('nuscenes', 'kitti360') for scale in (1, 4) for kind in KINDS),
    *(('nuscenes', 'bev', kind, 1) for kind in KINDS),
    *(('kitti360', 'bev', kind, 1) for kind in ('gt', 'half')),
]
PER_GAUSSIAN = ('means', 'quats', 'scales', 'opacities', 'features')
GEOMETRY = ('means', 'quats', 'scales')
CULL = 'GAUSSIAN_RASTERIZATION_CULL'
PEER_GAUSSIANS = 20_000
LIMITS = [
    'gsplat: alpha capped at 0.999, quaternions normalised, no gradient at the cap; near plane set to 0.2',
    'gsplat (PyTorch, CPU): tile lists, list of pairs and scans along rays replaced by vectorised PyTorch code, see peers.py',
]


def ours(backend, num_classes=None):
    """``render(scene) -> (features, depth)`` of this package."""

    def render(scene):
        out = rasterize(**scene, backend=backend, num_classes=num_classes)
        return out.features, out.depth

    return render


def lists_only(backend):
    """Like :func:`ours`, without pixels: one channel, and no tile is drawn."""

    def render(scene):
        blocks = [-(-scene[side] // constants.MASK_TILE) for side in ('height', 'width')]
        off = torch.zeros(1, *blocks, dtype=torch.bool, device=scene['means'].device)
        one = dict(scene, features=torch.zeros_like(scene['features']), background=scene['background'][:1])
        out = rasterize(**one, backend=backend, num_classes=1, tile_mask=off)
        return out.features, out.depth

    return render


class Clock:
    """Milliseconds between ``start`` and ``stop``: CUDA events on a GPU, else the wall clock."""

    def __init__(self, device):
        self.cuda = device == 'cuda'

    def start(self):
        if self.cuda:
            self.events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            torch.cuda.synchronize()
            self.events[0].record()
        self.wall = time.perf_counter()

    def stop(self):
        if not self.cuda:
            return 1e3 * (time.perf_counter() - self.wall)
        self.events[1].record()
        torch.cuda.synchronize()
        return self.events[0].elapsed_time(self.events[1])


class PeakMemory:
    """MiB that a call adds at its peak: of the process (Linux), or of PyTorch's memory on the GPU. None where unknown."""

    def __init__(self, device):
        self.cuda, self.mebibytes = device == 'cuda', None

    @staticmethod
    def status(key):
        return int(re.search(rf'{key}:\s+(\d+) kB', Path('/proc/self/status').read_text()).group(1)) / 1024

    def __enter__(self):
        gc.collect()
        try:
            if self.cuda:
                torch.cuda.reset_peak_memory_stats()
                self.before = torch.cuda.memory_allocated()
            else:
                ctypes.CDLL(None).malloc_trim(0)  # or freed memory that is used again would not count
                Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far
                self.before = self.status('VmRSS')
        except (OSError, AttributeError):
            self.before = None
        return self

    def __exit__(self, *_):
        if self.before is None:
            return
        peak = torch.cuda.max_memory_allocated() if self.cuda else self.status('VmHWM')
        self.mebibytes = (peak - self.before) / 2**20 if self.cuda else peak - self.before


def measure(renders, scene, gradients, repeats, warm_up, device):
    """Time renderers in turns, so that a change of the machine's load meets all of them.

    Args:
        renders: name -> (render, scene, value of the culling switch).
        scene: unused names of the renderers fall back to it.
        gradients: ``'none'``, ``'features+opacity'`` or ``'everything'``.

    Returns:
        name -> dict of milliseconds (lists), peak memory and images of the first run.
    """
    clock, results = Clock(device), {}

    def run(name, times=None):
        render, own, cull = renders[name]
        os.environ[CULL] = cull
        own = own or scene
        wanted = () if gradients == 'none' else ('opacities', 'features') + (GEOMETRY if gradients == 'everything' else ())
        leaves = {k: own[k].detach().clone().requires_grad_() for k in wanted}
        with torch.set_grad_enabled(bool(leaves)):
            clock.start()
            images = render(dict(own, **leaves))
            forward = clock.stop()
            upstream = results[name]['upstream'] if name in results else None
            if upstream is None:  # an L1 loss has gradients of one size and either sign
                upstream = [torch.randn_like(x).sign() / x.numel() for x in images]
                results[name] = dict(forward=[], backward=[], upstream=upstream, images=[x.detach().clone() for x in images])
            clock.start()
            if leaves:
                torch.autograd.grad(images, list(leaves.values()), upstream)
            backward = clock.stop()
        if times is not None:
            times['forward'].append(forward)
            if leaves:
                times['backward'].append(backward)

    for name in renders:
        run(name)
        with PeakMemory(device) as memory:  # a run of its own, because taking the measure costs time
            run(name)
        results[name]['memory'] = memory.mebibytes
    for repeat in range(warm_up + repeats):
        for name in renders:
            run(name, results[name] if repeat >= warm_up else None)
    os.environ.pop(CULL, None)
    return results


def summary(values):
    return dict(median=statistics.median(values), minimum=min(values), maximum=max(values), runs=len(values))


def row(case, method, state, scene, gradients, threads, work=None, peak=None, **more):
    """One line of the report from what :func:`measure` returned."""
    milliseconds = {k: summary(state[k]) for k in ('forward', 'backward') if state[k]}
    result = dict(
        case=case,
        method=method,
        threads=threads,
        gradients=gradients,
        gaussians=len(scene['means']),
        drawn=int((scene['opacities'] >= 1 / 255).sum()),
        size=[scene['width'], scene['height']],
        channels=scene['background'].shape[-1],
        milliseconds=milliseconds,
        peak_mib=state.get('memory'),
        **more,
    )
    if work:
        result['gflop'] = {k: work[k] / 1e9 for k in milliseconds}
        result['share_of_peak'] = {k: work[k] / (v['median'] * 1e6 * peak) for k, v in milliseconds.items()}
    text = '  '.join(f'{k} {v["median"]:.1f}' for k, v in milliseconds.items())
    share = ''.join(f'  {100 * v:.0f}%' for v in result.get('share_of_peak', {}).values())
    print(f'{threads} threads  {case:28s} {method:26s} {gradients:17s} {text} ms{share}', flush=True)
    return result


def run_case(case, args, threads, peak, cache):
    """All rows of one scene with our rasteriser."""
    dataset, view, kind, scale = case
    name = f'{dataset} {view} {kind}' + (f' 1/{scale}' if scale > 1 else '')
    device = 'cuda' if args.backend == 'cuda' else 'cpu'
    scene = make_scene(dataset, view, kind, scale)
    channels, labels = scene['background'].shape[0], kind == 'gt'
    pairs = cache.setdefault(name, count_pairs(scene))
    scene = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
    main = ours(args.backend, channels if labels else None)
    renders, rows = {'labels' if labels else 'ours': (main, scene, '1')}, []
    if labels:
        one_hot = torch.nn.functional.one_hot(scene['features'], channels).float()
        renders['one-hot'] = (ours(args.backend), dict(scene, features=one_hot), '1')
        renders['lists only'] = (lists_only(args.backend), scene, '1')
    if kind == 'trained':
        keep = scene['opacities'] >= 1 / 255
        renders['prefiltered'] = (main, dict(scene, **{k: scene[k][keep] for k in PER_GAUSSIAN}), '1')
    plans = [('none' if labels else 'features+opacity', renders)]
    if kind in ('trained', 'half') and scale == 4 or args.backend == 'cuda' and not labels:
        renders['culling off'] = (main, scene, '0')
    if not labels:
        plans.append(('everything', {'ours': renders['ours']}))
    for gradients, chosen in plans:
        for method, state in measure(chosen, scene, gradients, args.repeats, args.warm_up, device).items():
            work = None if method == 'lists only' else flops(pairs, channels, method == 'labels', gradients)
            own = chosen[method][1]
            rows.append(row(name, method, state, own, gradients, threads, work, peak['fma_gflops'], pairs=pairs))
    return rows


def run_peers(args, threads):
    """Ours, the PyTorch reference and gsplat on the same scenes, with the same gradients wanted."""
    device, rows = ('cuda' if args.backend == 'cuda' else 'cpu'), []
    problem = peers.gsplat_problem()
    if problem:
        print(f'gsplat {problem}')
    for kind in ('trained', 'half', 'untrained'):
        full = make_scene('nuscenes', 'front', kind, 1 if device == 'cuda' else 4)
        name, channel_counts = f'peers {kind}' + ('' if device == 'cuda' else ' 1/4'), (18,)
        if device == 'cpu':  # a size that gsplat's PyTorch path can hold
            keep = torch.randperm(len(full['means']), generator=torch.Generator().manual_seed(0))[:PEER_GAUSSIANS].sort().values
            full = dict(full, **{k: full[k][keep] for k in PER_GAUSSIAN})
        else:
            channel_counts = (16, 18)  # with depth 17, which gsplat has compiled, and 19, which it pads to 32
        for channels in channel_counts:
            scene = dict(full, features=full['features'][:, :channels].contiguous(), background=full['background'][:channels])
            scene = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
            keep = scene['opacities'] >= 1 / 255
            fair = dict(scene, **{k: scene[k][keep] for k in PER_GAUSSIAN})
            renders = {'ours': (ours(args.backend), scene, '1'), 'ours, culling off': (ours(args.backend), scene, '0')}
            slow = {} if device == 'cuda' else {'PyTorch reference, prefiltered': (ours('reference'), fair, '1')}
            if not problem and device == 'cuda':
                for packed in (False, True):
                    for suffix, own in (('', scene), (', prefiltered', fair)):
                        renders[f'gsplat 1.5.3{" packed" * packed}{suffix}'] = (peers.gsplat_cuda(packed), own, '1')
            elif not problem:
                slow['gsplat 1.5.3 (PyTorch), prefiltered'] = (peers.gsplat_torch(), fair, '1')
            for gradients in ('features+opacity', 'everything'):
                states = measure(renders, scene, gradients, args.repeats, args.warm_up, device)
                if threads == args.threads[-1]:
                    states |= measure(slow, scene, gradients, args.peer_repeats, 0, device)
                truth = states['ours']['images']
                for method, state in states.items():
                    own = (renders | slow)[method][1]
                    errors = [float((a - b).abs().max()) for a, b in zip(state['images'], truth, strict=True)]
                    rows.append(
                        row(f'{name} C={channels}', method, state, own, gradients, threads,
                            difference_from_ours=dict(features=errors[0], depth=errors[1]))
                    )  # fmt: skip
    return rows


def geometric_means(rows):
    """method and gradients -> geometric mean of the median milliseconds (forward + backward) and over how many cases."""
    groups = {}
    for r in rows:
        total = sum(v['median'] for v in r['milliseconds'].values())
        groups.setdefault(f'{r["threads"]} threads, {r["method"]}, {r["gradients"]}', []).append(total)
    return {k: dict(milliseconds=math.exp(statistics.fmean(map(math.log, v))), cases=len(v)) for k, v in groups.items()}


def tables(rows):
    """Markdown: milliseconds of our rasteriser by case and number of threads, and of all methods on the scenes of the peers."""
    threads, cases, compared = sorted({r['threads'] for r in rows}), {}, {}
    for r in rows:
        times = [f'{v["median"]:.0f}' for v in r['milliseconds'].values()]
        if not r['case'].startswith('peers'):
            if r['gradients'] != 'everything' and r['method'] not in ('prefiltered', 'culling off', 'lists only'):
                name = r['case'] + (f', {r["method"]}' if r['method'] != 'ours' else '')
                shares = ' / '.join(f'{100 * v:.0f} %' for v in r['share_of_peak'].values())
                line = cases.setdefault(name, {'': f'{r["gaussians"] / 1e3:.0f} k / {r["drawn"] / 1e3:.0f} k'})
                line[r['threads']] = ' + '.join(times)
                line['share'] = shares
        elif r['threads'] == threads[-1]:
            key = f'{r["method"]}, {r["gradients"]}'
            compared.setdefault(key, {})[r['case'].removeprefix('peers ')] = ' + '.join(times)
    text = []
    if cases:
        header = [
            'render',
            'Gaussians / with opacity >= 1/255',
            *(f'{t} threads' if t > 1 else '1 thread' for t in threads),
            'share of peak',
        ]
        text += ['| ' + ' | '.join(header) + ' |', '|' + '---|' * len(header)]
        text += [
            f'| {name} | ' + ' | '.join([line[''], *(line.get(t, '') for t in threads), line['share']]) + ' |'
            for name, line in cases.items()
        ]
    if compared:
        names = list(dict.fromkeys(name for line in compared.values() for name in line))
        text += [
            '',
            f'| {threads[-1]} thread{"s" * (threads[-1] > 1)} | ' + ' | '.join(names) + ' |',
            '|' + '---|' * (len(names) + 1),
        ]
        text += [f'| {key} | ' + ' | '.join(line.get(name, '') for name in names) + ' |' for key, line in compared.items()]
    return '\n'.join(text).strip()


def write_tables(path, name, text):
    """Put the tables between the marks of that name in a document."""
    marks = [f'<!-- {name}: {which} -->' for which in ('begin', 'end')]
    document = path.read_text(encoding='utf-8')
    before, _, rest = document.partition(marks[0])
    _, found, after = rest.partition(marks[1])
    if not found:
        raise SystemExit(f'{path} must hold the lines {marks[0]} and {marks[1]}')
    new = f'{before}{marks[0]}\n{text}\n{marks[1]}{after}'
    replace(path, lambda temporary: Path(temporary).write_text(new, encoding='utf-8'))


def plot(rows, path):
    """Bars per case, forward and backward stacked; the figure at the bar is the share of the peak. Logarithmic for peers."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    threads = max(r['threads'] for r in rows)
    panels = [
        [r for r in rows if r['threads'] == threads and r['case'].startswith('peers') == are_peers]
        for are_peers in (False, True)
    ]
    panels = [panel for panel in panels if panel]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(9 * len(panels), 0.2 * max(map(len, panels)) + 1.5), squeeze=False, layout='constrained'
    )
    for axis, panel in zip(axes[0], panels, strict=True):
        panel = panel[::-1]
        positions = range(len(panel))
        forward = [r['milliseconds']['forward']['median'] for r in panel]
        backward = [r['milliseconds'].get('backward', dict(median=0.0))['median'] for r in panel]
        if panel[0]['case'].startswith('peers'):
            axis.barh(
                positions, [f + b for f, b in zip(forward, backward, strict=True)], color='#4477aa', label='forward + backward'
            )
            axis.set_xscale('log')
        else:
            axis.barh(positions, forward, color='#4477aa', label='forward')
            axis.barh(positions, backward, left=forward, color='#ee8866', label='backward')
        for position, r, total in zip(positions, panel, map(sum, zip(forward, backward, strict=True)), strict=True):
            shares = '/'.join(f'{100 * v:.0f}' for v in r.get('share_of_peak', {}).values())
            axis.text(total, position, f' {total:.0f} ms' + (f', {shares} %' if shares else ''), va='center', fontsize=6)
        axis.set_yticks(positions, [f'{r["case"]}, {r["method"]}, {r["gradients"]}' for r in panel], fontsize=6)
        axis.set_xlabel('milliseconds, median')
        axis.set_title(f'{threads} thread' + ('s' if threads > 1 else ''))
        axis.margins(x=0.15, y=0.01)
        axis.set_ylim(-1, len(panel) + 2)  # room for the legend above the bars
        axis.grid(axis='x', alpha=0.3)
        axis.set_axisbelow(True)
        axis.legend(loc='upper right', ncols=2)
    replace(path, lambda temporary: figure.savefig(temporary, dpi=120, format='png'))


def replace(path, write):
    """Write to a temporary file in the same folder, then move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    os.close(descriptor)
    try:
        write(temporary)
        os.chmod(temporary, 0o644)
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
    parser.add_argument('--threads', type=int, nargs='+', default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument('--repeats', type=int, help='default 5, on a GPU 100')
    parser.add_argument('--warm-up', type=int, help='besides two runs that always come first; default 0, on a GPU 20')
    parser.add_argument('--peer-repeats', type=int, default=3, help='of the slow CPU peers')
    parser.add_argument('--only', default='', help='run cases whose name contains this text; "peers" are the comparisons')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/rasterizer'), help='writes OUT.json and OUT.png')
    parser.add_argument(
        '--readme', type=Path, help='put the tables between the marks "timings on the BACKEND" of this document'
    )
    args = parser.parse_args()
    gpu = args.backend == 'cuda'
    args.repeats = args.repeats or (100 if gpu else 5)
    args.warm_up = (20 if gpu else 0) if args.warm_up is None else args.warm_up
    start, load, rows, peaks, pairs = time.monotonic(), os.getloadavg(), [], {}, {}
    for threads in args.threads:
        torch.set_num_threads(threads)
        peak = peaks[threads] = cuda_peak() if gpu else cpu_peak(threads)
        print(f'peak of {threads} threads: {peak["fma_gflops"]:.0f} GFLOP/s float32, {peak["copy_gbps"]:.1f} GB/s copied')
        for case in CASES:
            if args.only in '{} {} {} 1/{}'.format(*case):
                rows += run_case(case, args, threads, peak, pairs)
        if args.only in 'peers':
            rows += run_peers(args, threads)
    if not rows:
        raise SystemExit(f'no case contains {args.only!r}')
    report = dict(
        build={k: v for k, v in build_config().items() if k not in ('library', 'build_command')},
        processor=processor(),
        processors=os.cpu_count(),
        gpu=torch.cuda.get_device_name() if gpu else None,
        backend=args.backend,
        python=sys.version.split()[0],
        gsplat=peers.gsplat_problem() or '1.5.3',
        limits=LIMITS,
        load=[load, os.getloadavg()],
        minutes=(time.monotonic() - start) / 60,
        peaks={str(k): v for k, v in peaks.items()},
        geometric_means=geometric_means(rows),
        results=rows,
    )
    replace(args.out.with_suffix('.json'), lambda temporary: Path(temporary).write_text(json.dumps(report, indent=1)))
    plot(rows, args.out.with_suffix('.png'))
    if args.readme:
        write_tables(args.readme, f'timings on the {args.backend}', tables(rows))
    print(f'wrote {args.out}.json and {args.out}.png in {report["minutes"]:.1f} minutes')


if __name__ == '__main__':
    main()
