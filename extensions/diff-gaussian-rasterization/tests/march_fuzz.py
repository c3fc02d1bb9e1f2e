"""Throw hostile volumes and rays at a compiled ray marcher; a script, not part of the test suite.

    python tests/march_fuzz.py --seconds 60               # the installed library
    python tests/march_fuzz.py --seconds 60 --sanitize    # a copy built with address and undefined-behaviour sanitizers
    compute-sanitizer python tests/march_fuzz.py --backend cuda --scenes 20

Every scene must neither crash nor leak memory errors nor make a non-finite value out of a finite volume, whatever the rays are.
"""

import argparse
import time

import fuzz
import numpy as np
import torch

from gaussian_rasterization import MarchSettings, MipContraction, build_config, march_rays

SHAPES = (1, 2, 3, 8, 9, 17, 40)


def check(seed, backend):
    """March one scene forward and backward and look at the results."""
    rng = np.random.default_rng(seed)
    batch, shape = int(rng.choice([0, 1, 1, 2])), tuple(int(n) for n in rng.choice(SHAPES, 3))
    channels = int(rng.choice([0, 1, 2, 4, 8, 15, 16, 17, 18, 33, 64, 130]))
    rays, samples = int(rng.choice([0, 1, 3, 63, 64, 65, 700])), int(rng.choice([1, 2, 15, 16, 17, 33, 120]))
    wild = rng.choice([0.0, 0.0, 0.1, 0.7])

    def noise(*size, spread=1.0, trouble=wild):
        values = rng.normal(size=size) * spread
        mask = rng.random(size) < trouble
        values[mask] = rng.choice(fuzz.NASTY, int(mask.sum()))
        return torch.tensor(values, dtype=torch.float32)

    volume_trouble = rng.choice([0.0, 0.0, 0.2])
    density = noise(batch, *shape, spread=rng.choice([0.1, 3.0, 30.0]), trouble=volume_trouble)
    features = noise(batch, *shape, channels, trouble=volume_trouble)
    options = dict(
        form=str(rng.choice(['nerf', 'dvgo', 'prob'])),
        last_step=str(rng.choice(['repeat', 'inf'])),
        align_corners=bool(rng.integers(2)),
        depth_mode=str(rng.choice(['range', 'contracted'])),
        distortion=[None, 'width', 'count', 0.1][rng.integers(4)],
        weights=bool(rng.integers(2)),
        alpha_min=float(rng.choice([0.0, 1e-7, 0.5])),
        transmittance_min=float(rng.choice([0.0, 1e-3, 0.9])),
        weight_min=float(rng.choice([0.0, 1e-7, 0.3])),
    )
    if rng.random() < 0.4:
        radius = float(rng.choice([1e-3, 2.0, 50.0]))
        options['contraction'] = MipContraction((0.5, -0.5, 0.0), radius, radius * 1.3, float(rng.choice([0.0, 0.1, 10.0])))
    elif rng.random() < 0.3:
        options['distance_scale'] = 7.0
    if rng.random() < 0.5:
        t = torch.linspace(0.0, float(rng.choice([0.1, 8.0, 1e6])), samples)
        if samples == 1:
            options['last_step'] = 'inf'
    else:
        full = (batch, rays) if batch and rng.random() < 0.5 else (1, 1)
        t = noise(*full, samples + 1)
        t = t.sort(-1).values if rng.random() < 0.7 else t
    directions = noise(batch, rays, 3, spread=rng.choice([1e-3, 1.0, 1e4]))
    directions[torch.tensor(rng.random(directions.shape[:2]) < wild / 3)] = 0.0
    scene = dict(
        density=density,
        features=features,
        lower=tuple(rng.uniform(-5, 0, 3)),
        voxel_size=tuple(rng.choice([1e-3, 0.4, 30.0], 3)),
        origins=noise(batch, rays, 3, spread=rng.choice([0.1, 5.0, 1e5])),
        directions=directions,
        t=t,
    )
    scene = {k: v.to('cuda') if backend == 'cuda' and isinstance(v, torch.Tensor) else v for k, v in scene.items()}
    leaves = [scene[name].requires_grad_(rng.random() < 0.9) for name in ('density', 'features')]
    if channels == 0 and rng.random() < 0.5:
        scene['features'] = None
    out = march_rays(**scene, settings=MarchSettings(**options), backend=backend)
    images = [x for x in out if x is not None and x.is_floating_point()]
    loss = sum((torch.randn_like(image) * image).sum() for image in images if rng.random() < 0.8)
    if isinstance(loss, torch.Tensor) and loss.requires_grad:
        loss.backward()
    if volume_trouble:
        return
    # positions that are not finite make depths that are not, too
    finite_t = bool(t.isfinite().all()) and float(t.abs().max() if t.numel() else 0) < 1e15
    for name in ('features', 'alpha', 'transmittance', 'weights'):
        value = getattr(out, name)
        if value is not None and not value.isfinite().all():
            raise SystemExit(f'seed {seed}: {name} is not finite')
    if finite_t and not out.depth.isfinite().all():
        raise SystemExit(f'seed {seed}: depth is not finite')
    for leaf in leaves:
        if finite_t and leaf.grad is not None and not leaf.grad.isfinite().all():
            raise SystemExit(f'seed {seed}: a gradient is not finite')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=60.0)
    parser.add_argument('--seed', type=int, default=0, help='first seed')
    parser.add_argument('--scenes', type=int, help='stop after so many')
    parser.add_argument('--backend', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--sanitize', action='store_true', help='of the CPU backend')
    args = parser.parse_args()
    if args.sanitize:
        raise SystemExit(fuzz.sanitized(['--seconds', str(args.seconds), '--seed', str(args.seed)], script=__file__))
    config = build_config()
    print(f'{config["library"]} ({config["simd"]})', flush=True)
    end, seed = time.monotonic() + args.seconds, args.seed
    while time.monotonic() < end and seed - args.seed != args.scenes:
        check(seed, args.backend)
        seed += 1
        if (seed - args.seed) % 500 == 0:
            print(f'{seed - args.seed} scenes, {end - time.monotonic():.0f} s left', flush=True)
    print(f'{seed - args.seed} scenes, all fine')


if __name__ == '__main__':
    main()
