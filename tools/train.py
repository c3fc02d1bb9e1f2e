"""Trains a model: ``python tools/train.py CONFIG``; see ``--help``."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.logging import print_log  # noqa: E402
from mmengine.registry import RUNNERS  # noqa: E402

from projects.occ.engine.checkpoint import check_checkpoint_file, find_latest_checkpoint  # noqa: E402
from projects.occ.engine.command_line import add_common_arguments, load_config, run_tool  # noqa: E402
from projects.occ.engine.distributed import prepare_launch, set_sync_bn  # noqa: E402
from projects.occ.engine.errors import CheckpointError, ConfigOptionError, OccError  # noqa: E402
from projects.occ.engine.file_io import only_training  # noqa: E402
from projects.occ.engine.optim_wrapper import enable_amp  # noqa: E402
from projects.occ.engine.runner import OccRunner  # noqa: E402
from projects.occ.engine.schedule import fit_schedule  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description='Train a model')
    parser.add_argument('config', help='config file')
    add_common_arguments(parser)
    parser.add_argument('--amp', action='store_true', help='mixed precision: float16 on a GPU, bfloat16 on a CPU')
    parser.add_argument(
        '--sync_bn',
        choices=['none', 'torch', 'mmcv'],
        default='none',
        help='convert BatchNorm layers to SyncBatchNorm (SyncBN) or mmcv.ops.sync_bn.SyncBatchNorm (MMSyncBN)',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate from auto_scale_lr.base_batch_size to the real batch',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from a checkpoint; without a path, from the latest one in the work directory, if there is any',
    )
    return parser.parse_args(argv)


def set_auto_scale_lr(cfg: Config) -> None:
    """Turns on learning-rate scaling, which the config must prepare.

    Raises:
        ConfigOptionError: If the config does not say for which batch size its learning rate is meant.
    """
    if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
        raise ConfigOptionError(
            '--auto-scale-lr needs auto_scale_lr = dict(enable=False, base_batch_size=...) in the config: '
            'the total batch size that optim_wrapper.optimizer.lr was chosen for'
        )
    cfg.auto_scale_lr.enable = True


def set_resume(cfg: Config, resume: str | None) -> None:
    """Fills ``resume`` and ``load_from`` from the argument ``--resume``.

    With nothing to resume from, the training starts as the config says, from the weights of its ``load_from`` if there are any.

    Raises:
        CheckpointError: If the file to load does not exist.
    """
    if resume == 'auto':
        resume = find_latest_checkpoint(cfg.work_dir)
        if resume is None:
            print_log(f'--resume: no checkpoint in {cfg.work_dir}, the training starts from the beginning', logger='current')
    if resume is not None:
        cfg.load_from, cfg.resume = resume, True
    elif cfg.get('load_from') is not None:
        try:
            check_checkpoint_file(cfg.load_from)
        except CheckpointError as error:
            raise CheckpointError(
                f'load_from of the config: {error}. The README of the config says where the file comes from; '
                '--cfg-options load_from=None trains from scratch'
            ) from error


def check_rasteriser(cfg: Config) -> None:
    """Looks for the rasteriser if the config renders: before anything else is built.

    Raises:
        OccError: If it is not installed or broken, or was built without the backend that will be used.
    """
    aggregator = cfg.model.get('aggregator')
    if not aggregator:
        return
    try:
        from gaussian_rasterization import require_backend
    except ImportError as error:
        raise OccError(
            f'model.aggregator renders, but the rasteriser cannot be imported ({error}); install it with pip install --no-deps '
            '--no-build-isolation -e extensions/diff-gaussian-rasterization, or train the baseline with '
            '--cfg-options model.aggregator=None'
        ) from error

    renderer = aggregator.get('renderer') if isinstance(aggregator, dict) else None
    chosen = (renderer or {}).get('backend')
    try:
        require_backend(chosen or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except (RuntimeError, ValueError) as error:
        raise OccError(
            f'model.aggregator renders, but {error} In a config the latter is model.aggregator.renderer.backend.'
        ) from error


def train(args: argparse.Namespace) -> None:
    """Trains as the arguments say."""
    if args.resume not in (None, 'auto'):
        check_checkpoint_file(args.resume)
    cfg = load_config(args)
    fit_schedule(cfg, args.cfg_options)
    if args.amp:
        enable_amp(cfg)
    if args.auto_scale_lr:
        set_auto_scale_lr(cfg)
    set_sync_bn(cfg, args.sync_bn)
    set_resume(cfg, args.resume)
    check_rasteriser(cfg)
    prepare_launch(cfg, args.launcher)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else OccRunner.from_cfg(cfg)
    # one process stands for all of the training
    with only_training(cfg.work_dir) if runner.rank == 0 else contextlib.nullcontext():
        runner.train()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    return run_tool(train, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
