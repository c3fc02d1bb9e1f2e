"""Tells what a model costs and where: parameters, arithmetic, memory, frames per second, the share of every part.

    python tools/profile_model.py CONFIG                          # prediction
    python tools/profile_model.py CONFIG --train --device cuda    # a training step: losses, backward pass, optimiser too

Weights are random and frames are made up in the size of the config, so no checkpoint and no data set is needed. Reading files
is not counted.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from mmdet3d.registry import MODELS  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.dataset import pseudo_collate  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402
from mmengine.optim import build_optim_wrapper  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402

from projects.occ.engine.command_line import CfgOptionsAction, read_config, run_tool  # noqa: E402
from projects.occ.engine.config_options import ALLOW_FLAG  # noqa: E402
from projects.occ.engine.errors import OccError  # noqa: E402
from projects.occ.engine.model_profile import ModelProfile, profile_steps  # noqa: E402
from projects.occ.engine.optim_wrapper import enable_amp  # noqa: E402
from tools.dev.benchmark_report import describe_machine, markdown_table, write_report  # noqa: E402
from tools.dev.made_up_frames import made_up_frame  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--train', action='store_true', help='a training step instead of a prediction')
    parser.add_argument('--device', help="'cpu' or 'cuda' (default: a GPU if there is one)")
    parser.add_argument('--batch-size', type=int, default=1, help='frames per step [%(default)s]')
    parser.add_argument('--steps', type=int, default=5, help='timed steps; medians count [%(default)s]')
    parser.add_argument('--warmup', type=int, default=2, help='steps before them [%(default)s]')
    parser.add_argument('--depth', type=int, default=1, help='2: look into the parts too [%(default)s]')
    parser.add_argument('--amp', action='store_true', help='mixed precision, as tools/train.py --amp')
    parser.add_argument('--json', metavar='FILE', help='write the numbers too, with machine and versions')
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptionsAction, default={}, metavar='KEY=VALUE', help='change values of the config'
    )
    parser.add_argument(ALLOW_FLAG, action='store_true', help='let --cfg-options add keys that the config does not have')
    parser.set_defaults(trust_checkpoint=False)
    args = parser.parse_args(argv)
    for name, least in (('batch_size', 1), ('steps', 1), ('warmup', 0), ('depth', 1)):
        if getattr(args, name) < least:
            parser.error(f'--{name.replace("_", "-")} must be at least {least}, got {getattr(args, name)}')
    return args


def build(cfg: Config, args: argparse.Namespace) -> tuple[torch.nn.Module, Callable[[], Any], Any]:
    """Model, a function that does one step, and the optimiser's wrapper of a training."""
    device = torch.device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    init_default_scope(cfg.get('default_scope') or 'mmdet3d')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).to(device)
    split = 'train' if args.train else 'test'
    try:
        batch = pseudo_collate([made_up_frame(cfg, seed, split) for seed in range(args.batch_size)])
    except ValueError as error:
        raise OccError(f'no frame can be made up for this config: {error}') from error
    if not args.train:
        model.eval()
        precision = dict(device_type=device.type, enabled=args.amp)

        def predict() -> None:
            with torch.no_grad(), torch.autocast(**precision, dtype=None if device.type == 'cuda' else torch.bfloat16):
                model.test_step(batch)

        return model, predict, None
    if args.amp:
        enable_amp(cfg)
    model.train()
    # one line for every parameter with a rate of its own is no part of the report
    MMLogger.get_current_instance().setLevel(logging.WARNING)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    return model, lambda: model.train_step(batch, wrapper), wrapper


def report(profile: ModelProfile, args: argparse.Namespace) -> str:
    """The numbers as text."""
    what = 'training step' if args.train else 'prediction'
    lines = [
        f'{what} of {args.batch_size} frame{"s" if args.batch_size > 1 else ""}: {1e3 * profile.seconds:.1f} ms, '
        f'{args.batch_size / profile.seconds:.2f} frames per second (files not read)',
        f'parameters: {profile.parameters / 1e6:.2f} M, {profile.trainable / 1e6:.2f} M of them trained',
        f'arithmetic: {profile.flops / 1e9:.1f} GFLOPs (a multiply-add is two; convolutions and matrix products alone, no '
        'sampling, norms or rasteriser)',
    ]
    if profile.peak_bytes is not None:
        owner = 'allocated by torch' if torch.cuda.is_available() and args.device != 'cpu' else 'of the whole process'
        lines.append(
            f'memory: {profile.peak_bytes / 2**30:.2f} GiB at most, {(profile.before_bytes or 0) / 2**30:.2f} GiB before the '
            f'first step, {owner}'
        )
    rows = [
        [
            part.name,
            f'{part.parameters / 1e6:.2f}',
            f'{part.flops / 1e9:.2f}',
            f'{1e3 * part.seconds:.1f}',
            f'{100 * part.seconds / profile.seconds:.1f} %',
        ]
        for part in profile.parts
    ]
    return '\n'.join(lines) + '\n\n' + markdown_table(['part', 'M parameters', 'GFLOPs', 'ms', 'share of time'], rows)


def profile_model(args: argparse.Namespace) -> None:
    """Profiles as the arguments say.

    Raises:
        OccError: If the config does not exist, or no frame can be made up for it.
    """
    if not Path(args.config).is_file():
        raise OccError(f'config {args.config!r} does not exist; the configs lie in configs/<model>/')
    cfg = read_config(args)
    model, step, wrapper = build(cfg, args)
    profile = profile_steps(model, step, args.steps, args.warmup, args.depth, wrapper)
    print(report(profile, args))
    if args.json:
        machine = describe_machine(Path(__file__).resolve().parents[1])
        settings = {key: getattr(args, key) for key in ('config', 'train', 'batch_size', 'steps', 'warmup', 'amp')}
        write_report(args.json, dict(**settings, threads=torch.get_num_threads(), machine=machine, **profile.to_dict()))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    return run_tool(profile_model, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
