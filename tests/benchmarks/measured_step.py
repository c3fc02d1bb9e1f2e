"""Measures training steps of a config on made-up frames of the right size, in a process of its own.

Used by the scripts beside this file.
"""

import argparse
import inspect
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from projects.occ.structures import VoxelGrid  # noqa: E402
from tools.dev.made_up_frames import made_up_frame  # noqa: E402

# parts that can recompute instead of keep, by the option with_cp; of the necks only that of Symphonies can
CHECKPOINTING = ('img_backbone', 'img_neck', 'view_encoder', 'occ_head', 'aggregator.gaussians')


def resident_bytes() -> int:
    """Memory that this process occupies now."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize()


def run_steps(request: dict) -> dict:
    """Builds the model of a request and trains it for some steps, in this process; see :func:`measure`."""
    from mmdet3d.registry import MODELS
    from mmengine.config import Config
    from mmengine.dataset import pseudo_collate
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope

    from projects.occ.engine.config_options import apply_cfg_options
    from projects.occ.engine.optim_wrapper import enable_amp

    if request['memory_limit'] and request['device'] == 'cpu':
        size = int(request['memory_limit'] * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    torch.manual_seed(0)
    cfg = Config.fromfile(request['config'])
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    apply_cfg_options(cfg, request['options'], allow_new_keys=True)
    if request['checkpointing']:
        for part in CHECKPOINTING:
            block = cfg.model
            for name in part.split('.'):
                block = (block or {}).get(name)
            if block and (part != 'img_neck' or 'with_cp' in inspect.signature(MODELS.get(block.type)).parameters):
                block['with_cp'] = True
    if request['amp']:
        enable_amp(cfg)
    device = torch.device(request['device'])
    batch = pseudo_collate([made_up_frame(cfg, seed) for seed in range(request['batch_size'])])
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.to(device).train()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if device.type == 'cuda' else resident_bytes()
    seconds, logged = [], {}
    for _ in range(request['warmup'] + request['steps']):
        start = time.perf_counter()
        logged = model.train_step(batch, optimizer)
        if device.type == 'cuda':
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    if device.type == 'cuda':
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    losses = {name: value.item() for name, value in logged.items() if 'loss' in name}
    bad = [name for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(f'losses are not finite: {bad}')
    return dict(
        seconds=seconds[request['warmup'] :],
        seconds_warmup=seconds[: request['warmup']],
        peak_gib=peak / 2**30,
        before_gib=before / 2**30,
        threads=torch.get_num_threads(),
        losses=losses,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        images=list(batch['inputs']['img'][0].shape),
        grid=list(VoxelGrid.build(cfg.model.grid).shape),
    )


def measure(
    config: str,
    options: dict[str, Any] | None = None,
    device: str = 'cpu',
    steps: int = 1,
    warmup: int = 0,
    batch_size: int = 1,
    amp: bool = False,
    checkpointing: bool = False,
    memory_limit: float | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Trains the model of a config for a few steps in a process of its own.

    Args:
        config: Config file.
        options: Overrides, dotted key to value.
        device: ``'cpu'`` or ``'cuda'``.
        steps: Steps that are timed.
        warmup: Steps before them.
        batch_size: Frames per step.
        amp: Mixed precision as ``tools/train.py --amp`` sets it.
        checkpointing: Recompute activations in backbone, view encoder, head and opacity decoder.
        memory_limit: GiB of memory the process may allocate (CPU only); more than that ends it instead of the machine.
        threads: Of torch; None leaves its default.

    Returns:
        The request and ``seconds`` (list, one per timed step: forward, losses, backward, optimiser), ``peak_gib`` and, of it,
        ``before_gib`` (CPU: resident memory of the whole process at most, and before the first step; GPU: allocated by torch),
        ``losses``, ``trainable_parameters``, ``images``, ``grid``; ``threads`` are those really used. Or ``error``, one line,
        if it failed.
    """
    request = dict(
        config=str(config),
        options=options or {},
        device=device,
        steps=steps,
        warmup=warmup,
        batch_size=batch_size,
        amp=amp,
        checkpointing=checkpointing,
        memory_limit=memory_limit,
        threads=threads,
    )
    limit = {} if threads is None else {key: str(threads) for key in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')}
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(request)], cwd=ROOT, env={**os.environ, **limit}, capture_output=True, text=True
    )
    if done.returncode == 0:
        return {**request, **json.loads(done.stdout.splitlines()[-1])}
    last = (done.stderr.strip().splitlines() or ['no output'])[-1]
    if memory_limit and ('MemoryError' in last or "can't allocate memory" in last):
        last = f'needs more than the {memory_limit:g} GiB that --memory-limit allows'
    killed = f'killed by signal {-done.returncode}: ' if done.returncode < 0 else ''
    return {**request, 'error': killed + last[:300]}


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """``key=value`` of a command line as mmengine reads it."""
    from projects.occ.engine.command_line import CfgOptionsAction

    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptionsAction, default={})
    return parser.parse_args(['--cfg-options', *pairs] if pairs else []).cfg_options


if __name__ == '__main__':
    print(json.dumps(run_steps(json.loads(sys.argv[1]))))
