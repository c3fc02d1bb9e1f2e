"""Batch normalisation that means the same on all processes when it is judged or saved."""

from typing import Any

import torch
from mmdet3d.registry import HOOKS
from mmengine.dist import all_reduce_params, get_world_size
from mmengine.hooks import CheckpointHook, Hook
from torch.nn.modules.batchnorm import _NormBase


@HOOKS.register_module()
class NormStatisticsHook(Hook):
    """Averages the running means and variances of batch normalisation over the processes, before validation and saving.

    Every process normalises with its own samples and gathers its own statistics. A checkpoint holds those of one process, and
    a validation in several would judge as many different networks. ``SyncBuffersHook`` of mmengine does this at the end of
    epochs alone, and to all buffers.
    """

    # before the checkpoint hook
    priority = 'NORMAL'

    def __init__(self) -> None:
        self._averaged_at = -1

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None) -> None:
        """Averages if a checkpoint follows this iteration."""
        hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]
        if any(
            self.every_n_train_iters(runner, hook.interval, hook.save_begin)
            or (hook.save_last and self.is_last_train_iter(runner))
            for hook in hooks
        ):
            self._average(runner, runner.iter + 1)

    def after_train_epoch(self, runner) -> None:
        """Averages at the end of every epoch."""
        self._average(runner, runner.iter)

    def before_val_epoch(self, runner) -> None:
        """Averages where a validation comes inside an epoch."""
        self._average(runner, runner.iter)

    def _average(self, runner, iteration: int) -> None:
        # a second mean of equal values may round: what is judged would not be what was saved
        if get_world_size() == 1 or self._averaged_at == iteration:
            return
        self._averaged_at = iteration
        norms = [module for module in runner.model.modules() if isinstance(module, _NormBase)]
        statistics = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
        if statistics:
            with torch.no_grad():
                all_reduce_params(statistics, op='mean')
