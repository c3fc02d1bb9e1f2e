"""Throw hostile scenes at a compiled backend; a script, not part of the test suite.

    python tests/fuzz.py --seconds 60               # the installed library
    python tests/fuzz.py --seconds 60 --sanitize    # a copy built with address and undefined-behaviour sanitizers
    compute-sanitizer python tests/fuzz.py --backend cuda --scenes 20

Every scene must neither crash nor leak memory errors nor make a non-finite value out of finite features and gradients.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SANITIZERS = 'address,undefined'
NASTY = (0.0, -0.0, 1.0, -1.0, 1e-38, 1e-20, 1e10, 1e19, 3e38, -3e38, float('nan'), float('inf'), -float('inf'))


def scene(rng):
    """Arguments of ``rasterize`` with every kind of trouble, and whether an entry of a matrix was replaced."""
    import torch

    count = int(rng.choice([0, 1, 2, 7, 60, 700, 5000]))
    channels = int(rng.choice([1, 2, 3, 4, 17, 18, 19, 20, 21, 33, 64, 130]))
    views = int(rng.choice([1, 1, 2, 3]))
    width, height = (int(x) for x in rng.choice([1, 2, 15, 16, 17, 33, 255, 257, 530], 2))
    wild = rng.choice([0.0, 0.0, 0.1, 0.7])

    def noise(*shape, spread=1.0):
        values = rng.normal(size=shape) * spread
        mask = rng.random(shape) < wild
        values[mask] = rng.choice(NASTY, int(mask.sum()))
        return torch.tensor(values, dtype=torch.float32)

    tensors = dict(
        means=noise(count, 3, spread=rng.choice([0.01, 3.0, 1e4])),
        quats=noise(count, 4),
        scales=noise(count, 3, spread=rng.choice([1e-3, 0.3, 1e3])),
        opacities=noise(count) * 0.5 + 0.5,
        features=torch.tensor(rng.normal(size=(count, channels)), dtype=torch.float32),
        background=torch.tensor(rng.normal(size=channels), dtype=torch.float32),
    )
    if rng.random() < 0.2:  # everything in one pixel, equal depths
        tensors['means'][:] = torch.tensor([0.0, 0.0, 3.0])
        tensors['scales'][:] = 1e-4
    viewmats = torch.eye(4).repeat(views, 1, 1)
    viewmats[:, :3, 3] = torch.tensor(rng.normal(size=(views, 3)), dtype=torch.float32)
    Ks = torch.zeros(views, 3, 3)
    Ks[:, 0, 0] = Ks[:, 1, 1] = float(rng.choice([0.1, 30.0, 1e5]))
    Ks[:, 0, 2], Ks[:, 1, 2], Ks[:, 2, 2] = float(rng.choice([0.0, width / 2, -1e6])), height / 2, 1.0
    spoilt = bool(rng.random() < wild / 2)
    if spoilt:
        viewmats.view(-1)[int(rng.integers(viewmats.numel()))] = float(rng.choice(NASTY))
        Ks.view(-1)[int(rng.integers(Ks.numel()))] = float(rng.choice(NASTY))
    return dict(tensors, viewmats=viewmats, Ks=Ks, width=width, height=height), spoilt


def check(seed, backend):
    """Render one scene forward and backward and look at the results."""
    import numpy as np
    import torch

    from gaussian_rasterization import RasterSettings, rasterize

    rng = np.random.default_rng(seed)
    case, spoilt = scene(rng)
    settings = RasterSettings(
        tile_compat=[None, 'rect12'][rng.integers(2)],
        cap_gradient=['straight', 'exact'][rng.integers(2)],
        jacobian_clamp=['symmetric', 'offcentre'][rng.integers(2)],
        dilation=float(rng.choice([0.0, 0.3])),
    )
    case = {k: v.to('cuda') if backend == 'cuda' and isinstance(v, torch.Tensor) else v for k, v in case.items()}
    leaves = {k: case[k].requires_grad_() for k in ('means', 'quats', 'scales', 'opacities', 'features', 'background')}
    options = {}
    if rng.random() < 0.3:
        options['num_classes'] = case['features'].shape[1]
        labels = rng.integers(0, options['num_classes'], len(case['means']))
        case['features'] = torch.tensor(labels, device=case['means'].device)
        del leaves['features']
    if rng.random() < 0.3:
        blocks = (len(case['viewmats']), -(-case['height'] // 16), -(-case['width'] // 16))
        options['tile_mask'] = torch.tensor(rng.random(blocks) < 0.5, device=case['means'].device)
    if rng.random() < 0.3:
        os.environ['GAUSSIAN_RASTERIZATION_ROW_BYTES'] = '5000'
    else:
        os.environ.pop('GAUSSIAN_RASTERIZATION_ROW_BYTES', None)
    os.environ['GAUSSIAN_RASTERIZATION_CULL'] = str(int(rng.random() < 0.9))
    try:
        out = rasterize(**case, settings=settings, backend=backend, **options)
    except ValueError as error:
        # a matrix that is no camera is refused before anything is rendered; one that is must not be
        if spoilt and re.match(r'rasterize: (viewmats|Ks)\[\d\] ', str(error)):
            return
        raise
    weights = [torch.randn_like(image) for image in out[:3]]
    loss = sum((w * image).sum() for w, image in zip(weights, out[:3], strict=True))
    loss.backward()
    for name in ('features', 'depth', 'alpha'):
        if not getattr(out, name).isfinite().all():
            raise SystemExit(f'seed {seed}: {name} is not finite')
    for name, leaf in leaves.items():
        if leaf.grad is not None and not leaf.grad.isfinite().all():
            raise SystemExit(f'seed {seed}: gradient of {name} is not finite')


def sanitized(arguments, script=__file__):
    """Build a sanitized copy in a temporary folder and run a script against it."""
    root = HERE.parent
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(
            os.environ,
            WITH_CUDA='0',
            RASTER_CXXFLAGS=f'-fsanitize={SANITIZERS} -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g',
            RASTER_LDFLAGS=f'-fsanitize={SANITIZERS}',
        )
        command = [sys.executable, 'setup.py', 'build_ext', '--build-lib', folder, '--build-temp', f'{folder}/objects']
        subprocess.run(command, check=True, env=environment, cwd=root, stdout=subprocess.DEVNULL)
        for path in (root / 'gaussian_rasterization').glob('*.py'):
            shutil.copy(path, Path(folder) / 'gaussian_rasterization')
        library = subprocess.run(['c++', '-print-file-name=libasan.so'], capture_output=True, text=True, check=True)
        environment.update(
            PYTHONPATH=folder,
            LD_PRELOAD=library.stdout.strip(),
            # torch and Python leave memory to the system on exit, and torch throws C++ exceptions before ours
            ASAN_OPTIONS='detect_leaks=0:protect_shadow_gap=0',
        )
        return subprocess.run([sys.executable, script, *arguments], env=environment).returncode


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=60.0)
    parser.add_argument('--seed', type=int, default=0, help='first seed')
    parser.add_argument('--scenes', type=int, help='stop after so many')
    parser.add_argument('--backend', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument('--sanitize', action='store_true', help='of the CPU backend')
    args = parser.parse_args()
    if args.sanitize:
        raise SystemExit(sanitized(['--seconds', str(args.seconds), '--seed', str(args.seed)]))
    from gaussian_rasterization import build_config

    config = build_config()
    print(f'{config["library"]} ({config["simd"]})', flush=True)
    end, seed = time.monotonic() + args.seconds, args.seed
    while time.monotonic() < end and seed - args.seed != args.scenes:
        check(seed, args.backend)
        seed += 1
        if (seed - args.seed) % 200 == 0:
            print(f'{seed - args.seed} scenes, {end - time.monotonic():.0f} s left', flush=True)
    print(f'{seed - args.seed} scenes, all fine')


if __name__ == '__main__':
    main()
