"""Seconds per training step without rendering, with it, and with the PyTorch reference of the rasteriser; writes JSON.

python tests/benchmarks/bm_training_step.py [--config CONFIG --data-root DIR] [--out docs/benchmarks/training_step.json]

A step is data preprocessing, losses, backward pass and optimiser on batches that are already loaded. The variants take turns,
so that a change of the machine's load meets all of them. Without --data-root a few street scenes are generated, as in the demo.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.registry import MODELS, init_default_scope  # noqa: E402
from mmengine.runner import Runner, set_random_seed  # noqa: E402
from tqdm import tqdm  # noqa: E402

from tools.dev.benchmark_report import describe_machine, write_report  # noqa: E402

CONFIG = 'configs/debug/tpvformer_tiny_synthetic-occ3d_gaussrender.py'
GENERATE = 'synthetic --format occ3d --preset tiny --image-size 200x112 --seed 0 --scenes-train 1 --scenes-val 1 --frames 4'


def load_batches(cfg: Config, count: int) -> list:
    """The first batches of the training data, loaded in this process."""
    settings = dict(cfg.train_dataloader, num_workers=0, persistent_workers=False)
    return list(islice(Runner.build_dataloader(settings, seed=0), count))


def build(cfg: Config, variant: str, device: str) -> tuple:
    """Model and optimiser of a variant: ``'none'`` has no aggregator, the others name the backend of the rasteriser."""
    set_random_seed(0)
    settings = dict(cfg.model)
    if variant == 'none':
        settings['aggregator'] = None
    else:
        renderer = {**cfg.model.aggregator.renderer, 'backend': variant}
        settings['aggregator'] = {**cfg.model.aggregator, 'renderer': renderer}
    model = MODELS.build(settings)
    model.init_weights()
    model.to(device).train()
    return model, build_optim_wrapper(model, cfg.optim_wrapper)


def measure(cfg: Config, batches: list, variants: list[str], steps: int, warm_up: int, device: str) -> dict[str, dict]:
    """Variant -> median, best and worst seconds per step."""
    built = {variant: build(cfg, variant, device) for variant in variants}
    seconds = {variant: [] for variant in variants}
    for step in tqdm(range(warm_up + steps), desc='steps'):
        for variant, (model, optimizer) in built.items():
            start = time.perf_counter()
            model.train_step(batches[step % len(batches)], optimizer)
            if device == 'cuda':
                torch.cuda.synchronize()
            if step >= warm_up:
                seconds[variant].append(time.perf_counter() - start)
    return {k: dict(median=statistics.median(v), best=min(v), worst=max(v), steps=steps) for k, v in seconds.items()}


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default=CONFIG, help='a config with model.aggregator')
    parser.add_argument('--data-root', type=Path, help='data of the config; default: generated scenes')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/benchmarks/training_step.json')
    parser.add_argument('--steps', type=int, default=30)
    parser.add_argument('--warm-up', type=int, default=3)
    parser.add_argument('--threads', type=int, default=os.cpu_count())
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    args = parser.parse_args(argv)
    os.chdir(ROOT)
    torch.set_num_threads(args.threads)
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.default_scope)
    with tempfile.TemporaryDirectory() as folder:
        if args.data_root is None:
            subprocess.run([sys.executable, 'tools/create_data.py', *GENERATE.split(), '--out', folder], check=True)
        cfg.train_dataloader.dataset.data_root = str(args.data_root or folder)
        batches = load_batches(cfg, 4)
    seconds = measure(cfg, batches, ['none', args.device, 'reference'], args.steps, args.warm_up, args.device)
    medians = {variant: value['median'] for variant, value in seconds.items()}
    report = dict(
        config=args.config,
        seconds_per_step=seconds,
        cost_of_rendering={k: medians[k] / medians['none'] - 1 for k in medians if k != 'none'},
        machine=dict(describe_machine(ROOT), device=args.device, threads=args.threads, load=os.getloadavg()),
    )
    write_report(args.out, report)
    print(json.dumps(report, indent=2))
    return 0


if __name__ == '__main__':
    sys.exit(main())
