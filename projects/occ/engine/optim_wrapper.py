"""Automatic mixed precision on machines without a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmdet3d.registry import OPTIM_WRAPPERS
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from torch import nn

from .errors import ConfigOptionError


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Runs the forward pass under bfloat16 autocast on the CPU, where mmengine's ``AmpOptimWrapper`` refuses to work.

    bfloat16 has the exponent range of float32: no loss scaler is needed.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Context of the forward pass.

        Args:
            model: The model in training.
        """
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


def enable_amp(cfg: Config) -> None:
    """Switches the optimiser wrapper of a config to mixed precision: float16 with loss scaling on a GPU, bfloat16 on a CPU.

    Raises:
        ConfigOptionError: If the config uses an optimiser wrapper that has no mixed-precision counterpart.
    """
    kind = cfg.optim_wrapper.setdefault('type', 'OptimWrapper')
    gpu = torch.cuda.is_available()
    wanted = 'AmpOptimWrapper' if gpu else 'CPUAmpOptimWrapper'
    if kind == wanted:
        print_log('--amp: mixed precision is already enabled in the config', logger='current')
        return
    if kind not in ('OptimWrapper', 'AmpOptimWrapper', 'CPUAmpOptimWrapper'):
        raise ConfigOptionError(
            f'--amp works with optim_wrapper.type OptimWrapper, got {kind}; remove --amp or change the type'
        )
    cfg.optim_wrapper.type = wanted
    if gpu:
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            cfg.optim_wrapper.pop(key, None)
