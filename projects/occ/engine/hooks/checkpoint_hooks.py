"""Hooks around checkpoints: how they are written, what they contain, and whether one fits the model."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import HOOKS
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import HistoryBuffer

from ..bare_model import bare_model
from ..checkpoint import compare_keys, misfit, weights_of
from ..errors import CheckpointError
from ..resume_checks import check_resumable

_PLAIN = (str, bytes, bool, int, float, complex, type(None), torch.Tensor)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """``CheckpointHook`` whose files are complete or absent; an old checkpoint goes only when the new one is there.

    Takes the arguments of ``CheckpointHook``. Checkpoints for a remote ``out_dir`` are written by mmengine's own back end.
    """

    def __init__(self, out_dir: str | None = None, backend_args: dict | None = None, **kwargs) -> None:
        if backend_args is None and '://' not in str(out_dir or ''):
            backend_args = dict(backend='atomic')
        super().__init__(out_dir=out_dir, backend_args=backend_args, **kwargs)

    def _save_checkpoint_with_step(self, runner, step: int, meta: dict) -> None:
        if not hasattr(self.file_backend, 'removals_last'):
            return super()._save_checkpoint_with_step(runner, step, meta)
        with self.file_backend.removals_last():
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner, metrics: dict) -> None:
        missing = [key for key in self.save_best or () if key != 'auto' and key not in metrics]
        if missing:
            raise CheckpointError(
                f'default_hooks.checkpoint.save_best asks for {missing}, but the evaluation returned {sorted(metrics)}; '
                'set save_best to one of these, or to None'
            )
        if not hasattr(self.file_backend, 'removals_last'):
            return super()._save_best_checkpoint(runner, metrics)
        with self.file_backend.removals_last():
            super()._save_best_checkpoint(runner, metrics)


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Writes checkpoints that consist of tensors and plain data alone, and undoes this on resuming.

    mmengine stores its log history as Python objects, which torch's weights-only loader refuses; dataset information may carry
    config dicts and numpy values. Weights of such a file load anywhere; *resuming* from it needs this hook.
    """

    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Replaces log histories by tensors and everything else by plain data."""
        scalars = checkpoint['message_hub']['log_scalars']
        for name, buffer in scalars.items():
            if isinstance(buffer, HistoryBuffer):
                log, count = buffer.data
                scalars[name] = dict(
                    max_length=buffer.max_length,
                    log=torch.as_tensor(np.asarray(log, dtype=np.float64)),
                    count=torch.as_tensor(np.asarray(count, dtype=np.int64)),
                )
        for part in ('meta', 'message_hub'):
            checkpoint[part] = to_plain(checkpoint[part])

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Rebuilds the log histories; leaves files of other writers as they are."""
        if not isinstance(checkpoint, dict):
            return
        hub, meta = checkpoint.get('message_hub'), checkpoint.get('meta')
        scalars = hub.get('log_scalars') if isinstance(hub, dict) else None
        for name, value in list(scalars.items()) if isinstance(scalars, dict) else ():
            if isinstance(value, dict) and set(value) == {'max_length', 'log', 'count'}:
                scalars[name] = _history(name, **value)
        if runner.cfg.get('resume') and isinstance(meta, dict) and 'dataset_meta' in meta:
            # the Runner compares pickles: equal information must also have equal types, or it warns of a changed dataset
            current = getattr(runner.train_dataloader.dataset, 'metainfo', None)
            if repr(to_plain(current)) == repr(meta['dataset_meta']):
                meta['dataset_meta'] = current


def _history(name: str, max_length: Any, log: Any, count: Any) -> HistoryBuffer:
    numbers = isinstance(log, torch.Tensor) and log.ndim == 1 and log.is_floating_point()
    counts = isinstance(count, torch.Tensor) and count.dtype == torch.int64
    if not numbers or not counts or log.shape != count.shape or type(max_length) is not int or max_length < 1:
        raise CheckpointError(f'message_hub.log_scalars.{name} of the checkpoint is no history of numbers; use an earlier file')
    return HistoryBuffer(log.tolist(), count.tolist(), max_length)


def to_plain(value: Any) -> Any:
    """Copies nested data, turning mappings into dicts, numpy arrays into tensors, numpy scalars into Python's.

    Other objects become their ``repr``: a checkpoint is no place for them, and losing a description beats losing the training.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy()) if value.dtype.kind in 'biuf' else to_plain(value.tolist())
    if isinstance(value, Mapping):
        return {to_plain(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [to_plain(item) for item in value]
        return items if isinstance(value, list) else tuple(items) if isinstance(value, tuple) else set(items)
    return repr(value)


@HOOKS.register_module()
class CheckpointKeyHook(Hook):
    """Compares a loaded checkpoint with the model, so that a wrong one cannot pass unnoticed.

    Args:
        strict: Stop unless all entries fit. If False (initialising a training from other weights), differences are logged and
            only a checkpoint without any fitting entry stops the run. Resuming is always strict.
        interchangeable: Prefixes of entries that may be absent on either side; None asks the model for the parts that only
            training uses, so that checkpoints trained with and without rendering supervision interchange.
    """

    # after hooks that exchange weights (EMA)
    priority = 'LOW'

    def __init__(self, strict: bool = False, interchangeable: tuple[str, ...] | None = None) -> None:
        self.strict = strict
        self.interchangeable = interchangeable

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Checks the keys and removes the entries that the model has no use for.

        Raises:
            CheckpointError: If the checkpoint does not fit.
        """
        weights = weights_of(checkpoint)
        model = bare_model(runner.model)
        prefixes = self.interchangeable
        if prefixes is None:
            prefixes = getattr(model, 'training_only_prefixes', ())
        report = compare_keys(weights, model.state_dict(), prefixes)

        if report.skipped:
            runner.logger.info(f'Skipped entries that only training uses ({self._one_side(report.skipped, weights)})')
            state = checkpoint.get('state_dict', checkpoint)
            for key in [key for key in state if key.removeprefix('module.') in report.skipped]:
                del state[key]
        if runner.cfg.get('resume') and report.exact:
            check_resumable(checkpoint, runner)
            self._check_optimizer(checkpoint, runner.optim_wrapper)
        if report.exact:
            return
        if self.strict or runner.cfg.get('resume') or not report.matched:
            raise misfit(report)
        runner.logger.warning(f'The checkpoint fits the model in part: {report.describe()}. Other entries keep initial values')

    @staticmethod
    def _check_optimizer(checkpoint: dict, optim_wrapper: Any) -> None:
        saved = checkpoint.get('optimizer', {}).get('param_groups')
        # optim_wrapper.param_groups has one more, which belongs to no parameter, where there are several
        own = getattr(getattr(optim_wrapper, 'optimizer', None), 'param_groups', None)
        if not saved or not own:
            return
        sizes = [[len(group['params']) for group in groups] for groups in (saved, own)]
        # other versions of torch know more or fewer options, other optimisers both
        lost, gained = set(saved[0]) - set(own[0]), set(own[0]) - set(saved[0]) - {'initial_lr'}
        if sizes[0] != sizes[1]:
            counts = [f'{sum(groups)} parameters in {len(groups)} groups' for groups in sizes]
            reason = f'the optimiser of the checkpoint holds {counts[0]}, the one of this config {counts[1]}'
        elif lost and gained:
            kinds = ', '.join(sorted(lost)), ', '.join(sorted(gained))
            reason = f'the optimiser of the checkpoint has {kinds[0]}, the one of this config {kinds[1]}'
        else:
            return
        raise CheckpointError(
            f'cannot resume: {reason}. Resuming needs the same optim_wrapper and the same trained parts, model.aggregator '
            'included; to start anew from the weights alone, give the file as load_from, without --resume'
        )

    @staticmethod
    def _one_side(skipped: list[str], weights: Mapping[str, Any]) -> str:
        in_file = sum(key in weights for key in skipped)
        return f'{in_file} in the checkpoint, {len(skipped) - in_file} in the model; first: {skipped[0]}'
