"""Stops a training whose numbers are no numbers any more."""

import math
from typing import Any

import torch
from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook

from ..bare_model import bare_model
from ..errors import NonFiniteLossError


@HOOKS.register_module()
class LossGuardHook(Hook):
    """Ends the run at the first NaN or infinite loss, gradient norm or weight, before a checkpoint is written from it.

    Judged are the outputs whose name contains ``loss``, as mmengine sums them. The message names the loss terms, the iteration
    and the samples; the checkpoints on disk stay those of healthy weights.
    Gradient norms are not judged under a loss scaler, which skips steps with infinite gradients by design.
    """

    # before the checkpoint hook, after the runtime information (which holds the gradient norm) was updated
    priority = 'NORMAL'

    def after_train_iter(self, runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None) -> None:
        """Checks the losses and the gradient norm of one step.

        Raises:
            NonFiniteLossError: If one of them is NaN or infinite.
        """
        bad = {name: float(value) for name, value in (outputs or {}).items() if 'loss' in name and not _finite(value)}
        # the sum is bad because a term is: name the terms alone
        if len(bad) > 1:
            bad.pop('loss', None)
        if not bad and not hasattr(runner.optim_wrapper, 'loss_scaler'):
            norm = runner.message_hub.log_scalars.get('train/grad_norm')
            if norm is not None and not math.isfinite(norm.current()):
                bad = {'grad_norm': float(norm.current())}
        if bad:
            terms = ', '.join(f'{name} = {value}' for name, value in sorted(bad.items()))
            raise NonFiniteLossError(
                f'training stopped: {terms} in iteration {runner.iter + 1} (epoch {runner.epoch + 1}), samples '
                f'{describe_samples(data_batch)}. {self._last_good(runner)} Look at these samples, lower '
                'optim_wrapper.optimizer.lr or set optim_wrapper.clip_grad, or train without --amp'
            )

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Refuses to write weights that are NaN or infinite.

        Raises:
            NonFiniteLossError: If there are any.
        """
        model = bare_model(runner.model)
        bad = [name for name, value in model.named_parameters() if not torch.isfinite(value).all()]
        if bad:
            raise NonFiniteLossError(
                f'training stopped: {len(bad)} parameters are NaN or infinite after iteration {runner.iter + 1} '
                f'(first: {bad[0]}); no checkpoint was written. {self._last_good(runner)} Lower optim_wrapper.optimizer.lr or '
                'set optim_wrapper.clip_grad'
            )

    @staticmethod
    def _last_good(runner) -> str:
        last = runner.message_hub.runtime_info.get('last_ckpt')
        return f'The last good checkpoint is {last}.' if last else 'No checkpoint had been written yet.'


def describe_samples(data_batch: Any) -> str:
    """Tokens (else indices or image paths) of the samples of a collated batch, for messages."""
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    if not isinstance(samples, (list, tuple)) or not samples:
        return 'of unknown name'
    names = []
    for sample in samples:
        meta = getattr(sample, 'metainfo', {})
        names.append(str(next((meta[key] for key in ('token', 'sample_idx', 'img_path', 'img_paths') if key in meta), '?')))
    return ', '.join(names)


def _finite(value: Any) -> bool:
    return math.isfinite(value.detach() if isinstance(value, torch.Tensor) else value)
