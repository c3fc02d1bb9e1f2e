"""Learning-rate schedules that are as long as the training."""

from collections.abc import Collection, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from .errors import ConfigOptionError

# entries of a scheduler: points in time, durations, lists of either
_POINTS, _DURATIONS, _POINT_LISTS, _DURATION_LISTS = (
    ('end', 'begin'),
    ('T_max', 'total_steps', 'step_size'),
    ('milestones',),
    ('periods',),
)
TIME_KEYS = (*_POINTS, *_DURATIONS, *_POINT_LISTS, *_DURATION_LISTS)


def fit_schedule(cfg: Config, options: Collection[str] = ()) -> None:
    """Stretches or shortens the schedule of a config to the length of its training, which ``train_cfg`` alone decides.

    A schedule says itself for how long it was written: until the latest ``end`` of its parts (without one: ``begin + T_max``,
    ``total_steps`` or the sum of ``periods``). Where that is not ``train_cfg.max_epochs`` or ``max_iters``, all its times are
    multiplied alike, and milestones stay inside the training. A warm-up, that is a rate which is low or rises linearly from the
    beginning on, keeps its length. In a training limited by iterations, epochs become iterations.

    Schedulers in iterations are left alone where the training counts epochs, whose iterations are not known yet.

    Args:
        cfg: Config of a training, changed in place.
        options: Keys set on the command line: a scheduler whose times are among them is left as it is.

    Raises:
        ConfigOptionError: If milestones lie behind the training and nothing says for how long their schedule was written.
    """
    loop = cfg.get('train_cfg') or {}
    key = 'max_iters' if loop.get('max_epochs') is None else 'max_epochs'
    length = loop.get(key)
    if not isinstance(length, int) or length < 1:  # the loop reports it
        return
    by_epoch = key == 'max_epochs'
    for path, schedulers in _schedules(cfg.get('param_scheduler'), 'param_scheduler'):
        warm_ups = [one for one in schedulers.values() if _is_warm_up(one)]
        for unit in (True, False):
            group = {
                name: one
                for name, one in schedulers.items()
                if one.get('by_epoch', True) == unit and one not in warm_ups and not _is_set(name, options)
            }
            if not group or (by_epoch and not unit):
                continue
            written = max(map(_written_length, group.values()))
            kept = max((one['end'] for one in warm_ups if one.get('by_epoch', True) == unit == by_epoch), default=0)
            if not written:
                _refuse_late_milestones(group, key, length)
            elif (unit, written) != (by_epoch, length):
                for one in group.values():
                    _fit(one, written, length, kept if kept < min(written, length) else 0)
                    if unit != by_epoch:
                        one['by_epoch'] = by_epoch
                        one.pop('convert_to_iter_based', None)
                unit_name = 'epochs' if unit else 'iterations'
                print_log(
                    f'{path}, written for {written} {unit_name}, was fitted to train_cfg.{key}={length}; a part of which '
                    '--cfg-options set the times (end, T_max, milestones) stays as it is',
                    logger='current',
                )


def _schedules(node: Any, path: str) -> list[tuple[str, dict[str, dict]]]:
    """Schedulers that act together, by their paths in the config: one group, or one for each of several optimisers."""
    if isinstance(node, Mapping) and 'type' in node:
        return [(path, {path: node})]
    if isinstance(node, Mapping):
        return [entry for name, child in node.items() for entry in _schedules(child, f'{path}.{name}')]
    if isinstance(node, (list, tuple)):
        return [(path, {f'{path}.{index}': one for index, one in enumerate(node) if isinstance(one, Mapping)})]
    return []


def _is_set(path: str, options: Collection[str]) -> bool:
    times = {f'{path}.{key}' for key in TIME_KEYS}
    return any(
        path == option or path.startswith(f'{option}.') or '.'.join(option.split('.')[: path.count('.') + 2]) in times
        for option in options
    )


def _is_warm_up(scheduler: Mapping) -> bool:
    kind = str(scheduler.get('type')).split('.')[-1]
    if scheduler.get('begin', 0) or 'end' not in scheduler:
        return False
    if kind.startswith('Linear'):
        return scheduler.get('start_factor', 1 / 3) < scheduler.get('end_factor', 1)
    return kind.startswith('Constant') and scheduler.get('factor', 1 / 3) < 1


def _written_length(scheduler: Mapping) -> int:
    """The length that a scheduler was written for; 0 if it follows that of the training by itself."""
    if scheduler.get('end') is not None:
        return scheduler['end']
    if scheduler.get('periods'):
        return scheduler.get('begin', 0) + sum(scheduler['periods'])
    for key in ('T_max', 'total_steps'):
        if scheduler.get(key):
            return scheduler.get('begin', 0) + scheduler[key]
    return 0


def _fit(scheduler: dict, written: int, length: int, kept: int) -> None:
    """Maps the times of a scheduler from ``[kept, written]`` to ``[kept, length]``; what comes before ``kept`` stays."""

    def moved(time: float) -> int:
        if time <= kept:
            return time
        return max(kept + 1, round(kept + (time - kept) * (length - kept) / (written - kept)))

    begin = scheduler.get('begin', 0)
    for name in _DURATIONS:
        if scheduler.get(name):
            scheduler[name] = max(1, moved(begin + scheduler[name]) - moved(begin))
    for name in _DURATION_LISTS:
        if scheduler.get(name):
            ends = [moved(begin + sum(scheduler[name][: count + 1])) for count in range(len(scheduler[name]))]
            scheduler[name] = [max(1, end - start) for start, end in zip([moved(begin), *ends], ends, strict=False)]
    for name in _POINT_LISTS:
        if scheduler.get(name):
            # a milestone at the end would never be seen
            scheduler[name] = [
                max(1, min(moved(time), length - 1)) if time < written else moved(time) for time in scheduler[name]
            ]
    for name in _POINTS:
        if scheduler.get(name):
            scheduler[name] = moved(scheduler[name])


def _refuse_late_milestones(schedulers: Mapping[str, Mapping], key: str, length: int) -> None:
    for path, one in schedulers.items():
        late = [time for time in one.get('milestones', ()) if time >= length]
        if late:
            raise ConfigOptionError(
                f'{path}.milestones {list(one["milestones"])} do not fit train_cfg.{key}={length}: at {late} the training is '
                f'over. Change them, or write end=... beside them, the length that they were chosen for; they follow from it'
            )
