"""Whether a checkpoint holds the state of a training, so that resuming does not stop half-way through it."""

import math
from collections.abc import Mapping
from numbers import Integral
from typing import Any

from mmengine.runner import Runner
from torch import Tensor

from .errors import CheckpointError

_TRAINING_PARTS = ('meta', 'message_hub', 'optimizer')
_HUB_PARTS = ('log_scalars', 'runtime_info', 'resumed_keys')
# states of optimisers that have the shape of their parameter
_LIKE_PARAMETERS = ('momentum_buffer', 'exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'square_avg', 'sum')


def check_resumable(checkpoint: Mapping[str, Any], runner: Runner) -> None:
    """Checks what mmengine's Runner takes from a checkpoint besides the weights.

    Args:
        checkpoint: Contents of the file.
        runner: The runner, with its optimiser and schedulers built.

    Raises:
        CheckpointError: If there is no such state, or some of it has another form than a Runner writes.
    """
    missing = [part for part in _TRAINING_PARTS if part not in checkpoint]
    if missing:
        raise CheckpointError(
            f'cannot resume: this file holds weights only (it lacks {", ".join(missing)}). To start a training from them, give '
            'the file as load_from, without --resume'
        )
    for part in _TRAINING_PARTS:
        _demand(isinstance(checkpoint[part], Mapping), part, 'a dict', checkpoint[part])
    meta, hub = checkpoint['meta'], checkpoint['message_hub']
    for key in ('epoch', 'iter'):
        _demand(_is_integer(meta.get(key)) and 0 <= meta[key] < 1 << 48, f'meta.{key}', 'a number from 0', meta.get(key))
    seed = meta.get('seed')
    _demand(seed is None or (_is_integer(seed) and 0 <= seed < 1 << 32), 'meta.seed', 'a number from 0 to 2**32 - 1', seed)
    for key in _HUB_PARTS:
        value = hub.get(key)
        named = isinstance(value, Mapping) and all(isinstance(name, str) for name in value)
        _demand(named, f'message_hub.{key}', 'a dict by names', value)
    _check_optimizer(checkpoint['optimizer'], runner.optim_wrapper)
    _check_schedulers(checkpoint.get('param_schedulers', []), runner.param_schedulers)


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _check_optimizer(state: Mapping[str, Any], optim_wrapper: Any) -> None:
    optimizer = getattr(optim_wrapper, 'optimizer', None)
    if optimizer is None:  # several optimisers, which the Runner matches by name
        return
    groups = state.get('param_groups')
    good = isinstance(groups, (list, tuple)) and all(isinstance(group, Mapping) for group in groups)
    _demand(good, 'optimizer.param_groups', 'a list of dicts', groups)
    for i, group in enumerate(groups):
        numbers = group.get('params')
        good = isinstance(numbers, (list, tuple)) and all(type(number) is int for number in numbers)
        _demand(good, f'optimizer.param_groups.{i}.params', 'a list of numbers', numbers)
        for key in ('lr', 'initial_lr', 'weight_decay', 'momentum', 'eps'):
            value = group.get(key, 0)
            good = type(value) in (int, float) and math.isfinite(value)
            _demand(good or isinstance(value, Tensor), f'optimizer.param_groups.{i}.{key}', 'a finite number', value)
    states = state.get('state')
    good = isinstance(states, Mapping) and all(isinstance(value, Mapping) for value in states.values())
    _demand(good, 'optimizer.state', 'a dict of dicts', states)
    own = [parameter for group in optimizer.param_groups for parameter in group['params']]
    numbers = [number for group in groups for number in group['params']]
    for number, parameter in zip(numbers, own):
        for key in _LIKE_PARAMETERS:
            value = states.get(number, {}).get(key)
            good = value is None or (isinstance(value, Tensor) and value.shape == parameter.shape)
            shape = tuple(parameter.shape)
            _demand(good, f'optimizer.state.{number}.{key}', f'a tensor of the shape {shape} of its parameter', value)


def _check_schedulers(saved: Any, own: Any) -> None:
    if not isinstance(own, (list, tuple)):  # of several optimisers, or none
        return
    good = isinstance(saved, (list, tuple)) and all(isinstance(state, Mapping) for state in saved)
    _demand(good, 'param_schedulers', 'a list of dicts', saved)
    for i, (state, scheduler) in enumerate(zip(saved, own)):
        known = scheduler.state_dict()
        foreign = sorted(str(key) for key in state if key not in known and callable(getattr(scheduler, str(key), None)))
        _demand(not foreign, f'param_schedulers.{i}', 'the numbers of a scheduler', f'the keys {foreign}')


def _demand(good: bool, part: str, expected: str, found: Any) -> None:
    if not good:
        shown = f'a tensor {tuple(found.shape)}' if isinstance(found, Tensor) else repr(found)
        shown = shown if len(shown) <= 60 else f'{shown[:57]}...'
        raise CheckpointError(
            f'cannot resume: {part} of the checkpoint must be {expected}, found {shown}. The file is not of a training '
            'of mmengine, or is damaged; use an earlier checkpoint, or give it as load_from, without --resume'
        )
