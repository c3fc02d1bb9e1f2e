"""A resumed training follows its config, also where that has changed."""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler

from ..errors import CheckpointError

# entries of a parameter group that say how an optimiser computes, not what
_IMPLEMENTATION = frozenset({'params', 'foreach', 'fused', 'capturable', 'differentiable'})
# entries of a scheduler that count, or follow from its optimiser
_RUNNING = frozenset(
    {'last_step', '_global_step', '_last_value', 'base_values', 'verbose', 'best', 'num_bad_epochs', 'cooldown_counter'}
)


@HOOKS.register_module()
class ResumeSettingsHook(Hook):
    """Lets a changed learning rate, weight decay or schedule hold from the resumed iteration on, and says so.

    mmengine goes on with the values of the checkpoint, whatever the config says, and lays the state of one schedule over
    another. Here the config decides: its schedule is brought to the iteration of the checkpoint as if it had been followed from
    the beginning on, and changed options of the optimiser replace the saved ones. Where nothing has changed nothing is touched.
    """

    # after the check that the optimisers fit each other at all
    priority = 'VERY_LOW'

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compares the settings of a checkpoint with those of the run, and replaces those that differ.

        Raises:
            CheckpointError: If the schedule has changed and follows from the validations before, which are not known any more.
        """
        optim_wrapper = runner.optim_wrapper
        if not runner.cfg.get('resume') or not isinstance(optim_wrapper, OptimWrapper) or 'optimizer' not in checkpoint:
            return
        several = isinstance(optim_wrapper, OptimWrapperDict)
        wrappers = dict(optim_wrapper.items()) if several else {'': optim_wrapper}
        optimizers = checkpoint['optimizer'] if several else {'': checkpoint['optimizer']}
        schedules = _by_name(runner.param_schedulers, wrappers)
        saved_schedules = _by_name(checkpoint.get('param_schedulers'), wrappers)
        said = []
        for name, wrapper in wrappers.items():
            prefix = f'{name}.' if name else ''
            groups = list(_groups(wrapper, optimizers[name]))
            values, times = _changed_values(groups), _changed_times(schedules[name], saved_schedules[name])
            said += [f'{prefix}{change}' for change in (*values.values(), *times)]
            replaced = set(values)
            if times or any(f'initial_{key}' in group for key in values for pair in groups for group in pair):
                _fast_forward(schedules[name], checkpoint['meta'], len(runner.train_dataloader))
                saved_schedules[name] = [one.state_dict() for one in schedules[name]]
                replaced |= {one.param_name for one in schedules[name]} | {'lr'}
            for own, saved in groups:
                for key in (*replaced, *(f'initial_{key}' for key in replaced)):
                    if key in own:
                        saved[key] = own[key]
                    else:
                        saved.pop(key, None)
        if not said:
            return
        if 'param_schedulers' in checkpoint:
            checkpoint['param_schedulers'] = saved_schedules if several else saved_schedules['']
        runner.logger.warning(
            f'resuming with settings that the config changed since the checkpoint: {"; ".join(said)}. They hold from iteration '
            f'{checkpoint["meta"]["iter"] + 1} on, where the learning rate is that of the new schedule'
        )


def _by_name(schedules: Any, names: Mapping) -> dict[str, list]:
    """Schedules (built, or their states) of every optimiser."""
    return dict(schedules) if isinstance(schedules, dict) else {name: list(schedules or ()) for name in names}


def _groups(wrapper: OptimWrapper, saved: Mapping) -> Iterator[tuple[dict, dict]]:
    """Pairs of a parameter group of the run and its counterpart in the checkpoint."""
    yield from zip(wrapper.optimizer.param_groups, saved['param_groups'], strict=True)
    own_base, saved_base = wrapper.base_param_settings, saved.get('base_param_settings')
    if own_base is not None and saved_base is not None:
        yield own_base, saved_base


def _changed_values(groups: Sequence[tuple[dict, dict]]) -> dict[str, str]:
    """Options of the optimiser that differ: name to a text of old and new values. A scheduled one is its initial value."""
    changes: dict[str, dict[str, None]] = {}
    for own, saved in groups:
        for key in own.keys() & saved.keys() - _IMPLEMENTATION:
            new, old = (group.get(f'initial_{key}', group[key]) for group in (own, saved))
            if not key.startswith('initial_') and new != old:
                changes.setdefault(key, {})[f'{old} -> {new}'] = None
    return {key: f'{key} {", ".join(texts)}' for key, texts in sorted(changes.items())}


def _changed_times(schedule: Sequence[_ParamScheduler], saved: Sequence[Mapping]) -> list[str]:
    """What differs between the schedulers of the run and those of the checkpoint."""
    if len(schedule) != len(saved):
        return [f'{len(saved)} -> {len(schedule)} schedulers']
    changes = []
    for index, (one, state) in enumerate(zip(schedule, saved, strict=True)):
        own = one.state_dict()
        keys = sorted((own.keys() | state.keys()) - _RUNNING)
        if own.keys() - _RUNNING != state.keys() - _RUNNING:
            changes.append(f'param_scheduler.{index} is now {type(one).__name__}')
            continue
        shown = [f'{key} {_short(state[key])} -> {_short(own[key])}' for key in keys if own[key] != state[key]]
        if shown:
            changes.append(f'param_scheduler.{index} ({type(one).__name__}): {", ".join(shown)}')
    return changes


def _short(value: Any) -> Any:
    # milestones are counters
    return sorted(value.elements()) if isinstance(value, Counter) else value


def _fast_forward(schedule: Sequence[_ParamScheduler], meta: Mapping, epoch_length: int) -> None:
    """Steps fresh schedulers to the iteration and the epoch of a checkpoint, in the order of a training."""
    if any(getattr(one, 'need_val_args', False) for one in schedule):
        raise CheckpointError(
            'cannot resume: the learning rate or its schedule was changed, but the schedule follows from earlier validations; '
            'resume with the old settings, or start anew from its weights with load_from, without --resume'
        )
    by_iter = [one for one in schedule if not one.by_epoch]
    by_epoch = [one for one in schedule if one.by_epoch]
    epochs = 0
    with warnings.catch_warnings():
        # of a step of the schedule before one of the optimiser
        warnings.simplefilter('ignore', UserWarning)
        for done in range(1, meta['iter'] + 1):
            for one in by_iter:
                one.step()
            if by_epoch and done % epoch_length == 0 and epochs < meta['epoch']:
                epochs += 1
                for one in by_epoch:
                    one.step()
        for one in by_epoch * (meta['epoch'] - epochs):
            one.step()
