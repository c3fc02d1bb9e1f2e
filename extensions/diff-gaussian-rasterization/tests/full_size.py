"""Compare a compiled backend at full size with images and gradients that another one has saved; a script.

    python tests/full_size.py save /tmp/cpu.pt --backend cpu --cases nuscenes-front-half
    python tests/full_size.py compare /tmp/cpu.pt --backend cuda --repeats 5 --out /tmp/result.json
    python tests/full_size.py profile /tmp/profile.txt --backend cuda

``compare`` prints a json object. Every case is rendered ``--repeats`` times, and all results have to be the same bits. Against
the saved ones: a pixel may differ by more than rounding only where it hangs on a threshold (``logf`` and ``exp2f`` differ in
their last bits).
"""

import argparse
import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'benchmarks'))
from scenes import GRIDS, make_scene  # noqa: E402

CASES = ('nuscenes-front-half', 'nuscenes-bev-half', 'nuscenes-front-gt')
ROUNDING = 1e-4  # absolute, features in [0, 1]; depth relative to its largest value
FLIPPED = 2e-3  # share of pixels that may hang on a threshold
GRADIENTS = 2e-3  # relative to the largest: one flipped pixel moves a gradient more than rounding


def render(case, backend, scale=1):
    """Images and gradients of one case, on the CPU; only opacities have a gradient where the features are labels."""
    dataset, view, kind = case.split('-')
    scene = make_scene(dataset, view, kind, scale)
    device = 'cuda' if backend == 'cuda' else 'cpu'
    scene = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
    leaves = ['opacities'] if kind == 'gt' else ['means', 'scales', 'opacities', 'features']
    for name in leaves:
        scene[name] = scene[name].clone().requires_grad_()

    from gaussian_rasterization import rasterize

    out = rasterize(**scene, backend=backend, num_classes=GRIDS[dataset]['classes'])
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(image.shape, generator=generator).to(device) for image in out[:2]]
    sum((w * image).mean() for w, image in zip(weights, out[:2], strict=True)).backward()
    results = dict(features=out.features, depth=out.depth, alpha=out.alpha)
    results |= {f'gradient of {name}': scene[name].grad for name in leaves}
    return {k: v.detach().cpu() for k, v in results.items()}


def differences(got, want):
    """How far two results are apart, and whether that is too much."""
    report = {}
    for name, value in got.items():
        scale = float(want[name].abs().max().clamp_min(1e-12))
        error = (value - want[name]).abs()
        if name.startswith('gradient'):
            report[name] = dict(relative=float(error.max()) / scale, ok=float(error.max()) / scale <= GRADIENTS)
            continue
        pixels = error.amax(-1) if error.dim() == 4 else error
        limit = ROUNDING * max(scale, 1.0)
        share = float((pixels > limit).float().mean())
        rounding = float(pixels[pixels <= limit].max()) if share < 1 else None
        report[name] = dict(beyond_rounding=share, rounding=rounding, largest=float(error.max()), ok=share <= FLIPPED)
    return report


def profile(backend, scale):
    """Table of operations of six renders, forward and backward."""
    tables = []
    for case in (f'nuscenes-{view}-{kind}' for view in ('front', 'bev') for kind in ('gt', 'trained', 'half')):
        render(case, backend, scale)
        with torch.profiler.profile() as profiler:
            render(case, backend, scale)
        key = 'self_device_time_total' if backend == 'cuda' else 'self_cpu_time_total'
        tables.append(f'{case}\n{profiler.key_averages().table(sort_by=key, row_limit=25, max_name_column_width=60)}')
    return '\n'.join(tables)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('action', choices=['save', 'compare', 'profile'])
    parser.add_argument('file', type=Path)
    parser.add_argument('--backend', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--cases', nargs='+', default=CASES, choices=CASES, metavar='CASE', help=' '.join(CASES))
    parser.add_argument('--repeats', type=int, default=1)
    parser.add_argument('--scale', type=int, default=1, help='divides the image size')
    parser.add_argument('--out', type=Path, help='write the json there, too')
    args = parser.parse_args()
    if args.action == 'save':
        torch.save({case: render(case, args.backend, args.scale) for case in args.cases}, args.file)
        return
    if args.action == 'profile':
        args.file.write_text(profile(args.backend, args.scale))
        return
    saved = torch.load(args.file, weights_only=True)
    report, ok = {}, True
    for case in args.cases:
        runs = [render(case, args.backend, args.scale) for _ in range(args.repeats)]
        same = all(torch.equal(run[k], runs[0][k]) for run in runs[1:] for k in runs[0])
        report[case] = dict(differences(runs[0], saved[case]), repeats=args.repeats, same_bits=same)
        ok &= same and all(v['ok'] for v in report[case].values() if isinstance(v, dict))
    text = json.dumps(dict(cases=report, ok=ok), indent=1)
    print(text)
    if args.out:
        args.out.write_text(text)
    raise SystemExit(0 if ok else 1)


if __name__ == '__main__':
    main()
