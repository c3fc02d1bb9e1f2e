"""``--cfg-options`` that name what exists."""

import inspect
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from .errors import ConfigOptionError

ALLOW_FLAG = '--allow-new-keys'
# read by mmengine from the config besides the arguments of the Runner
_READ_BY_RUNNER = frozenset(inspect.signature(Runner.__init__).parameters) | {
    'activation_checkpointing',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
}
_MISSING = object()


def apply_cfg_options(cfg: Config, options: Mapping[str, Any], allow_new_keys: bool = False) -> None:
    """Merges command-line options into a config.

    Args:
        cfg: The config, changed in place.
        options: Dotted key to value; list elements by index, ``train_pipeline.0.type``.
        allow_new_keys: Merge without the checks below.

    Raises:
        ConfigOptionError: If a key does not exist (the message proposes the nearest), if it is a helper variable whose value
            was already copied to where it is used, or if the value cannot be meant (text for a number, a number for a dict).
    """
    options = dict(options)
    if not allow_new_keys:
        for key, value in options.items():
            _check(cfg, key, value)
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ConfigOptionError(f'--cfg-options cannot be merged into the config: {error}') from error


def _check(cfg: Config, key: str, value: Any) -> None:
    if key.split('.')[0] == 'custom_imports':
        raise ConfigOptionError(
            f'--cfg-options {key} has no effect: modules are imported while the config file is read; name them in the file'
        )
    old = _lookup(cfg, key)
    if old is _MISSING:
        raise ConfigOptionError(f'--cfg-options {key}: no such key.{_proposal(cfg, key)} To add a new key, use {ALLOW_FLAG}')
    root = key.split('.')[0]
    if root not in _READ_BY_RUNNER:
        copies = [path + key[len(root) :] for path in _copies(cfg, root)]
        advice = f'Set instead {", ".join(copies[:6])}' if copies else 'Change it in a config file that inherits from this one'
        raise ConfigOptionError(
            f'--cfg-options {key} has no effect: {root} is a variable of the config file, used while reading it. {advice}'
        )
    expected = _expected(old, value)
    if expected:
        raise ConfigOptionError(
            f'--cfg-options {key}: expected {expected} (now {_short(old)}), got {_short(value)}. '
            f'If another type is meant, use {ALLOW_FLAG}'
        )


def _lookup(cfg: Any, key: str) -> Any:
    node = cfg
    for part in key.split('.'):
        if isinstance(node, (list, tuple)) and part.lstrip('-').isdigit() and 0 <= int(part) < len(node):
            node = node[int(part)]
        elif isinstance(node, (Mapping, Config)) and part in node:
            node = node[part]
        elif isinstance(node, Mapping) and part == '_delete_':
            return False
        else:
            return _MISSING
    return node


def _copies(cfg: Config, name: str) -> list[str]:
    """Where the Runner will read the value of a variable; numbers are too common to tell."""
    value = cfg[name]
    if not isinstance(value, (str, Mapping, list, tuple)):
        return []
    return [path for path, other in walk_config(cfg) if other == value and path.split('.')[0] in _READ_BY_RUNNER]


def walk_config(node: Any, prefix: str = '') -> Iterator[tuple[str, Any]]:
    """Dotted path and value of everything below a node."""
    if isinstance(node, (Mapping, Config)):
        children = list(node.items())
    elif isinstance(node, (list, tuple)):
        children = [(str(index), item) for index, item in enumerate(node)]
    else:
        return
    for name, child in children:
        path = f'{prefix}.{name}' if prefix else str(name)
        yield path, child
        yield from walk_config(child, path)


def _proposal(cfg: Config, key: str) -> str:
    """A sentence with the nearest existing keys, else with the keys on the deepest level that exists."""
    paths = [path for path, _ in walk_config(cfg)]
    parts = key.split('.')
    depth = next((n for n in range(len(parts) - 1, 0, -1) if _lookup(cfg, '.'.join(parts[:n])) is not _MISSING), 0)
    parent = '.'.join(parts[:depth])
    node = _lookup(cfg, parent) if parent else cfg
    if isinstance(node, (list, tuple)):
        return f' {parent} is a list of {len(node)} elements, 0 to {len(node) - 1}.'
    siblings = [str(name) for name in node] if isinstance(node, (Mapping, Config)) else []
    # the same key elsewhere, a typing error here, the same name elsewhere, anything that looks alike
    near = [path for path in paths if path.endswith(f'.{key}') and path.split('.')[0] in _READ_BY_RUNNER][:3]
    if not near:
        near = [f'{parent}.{name}'.lstrip('.') for name in get_close_matches(parts[depth], siblings, n=1, cutoff=0.5)]
        near = [
            '.'.join([path, *parts[depth + 1 :]]) for path in near if '.'.join([path, *parts[depth + 1 :]]) in paths
        ] or near
    near = near or [path for path in paths if path.split('.')[-1] == parts[-1] and path.split('.')[0] in _READ_BY_RUNNER][:3]
    near = near or [path for path in get_close_matches(key, paths, n=2, cutoff=0.8) if not key.startswith(path)]
    if near:
        return f' Nearest existing: {", ".join(near)}.'
    if not isinstance(node, (Mapping, Config)):
        return f' {parent} is {_short(node)}, not a dict.'
    if not siblings:
        return f' {parent} is an empty dict.'
    return f' {parent or "The config"} has the keys {", ".join(siblings)}.'


def _expected(old: Any, new: Any) -> str:
    """What should have come instead of ``new``, or an empty string if it can be meant."""
    if old is None or new is None:
        return ''
    if isinstance(old, bool):
        return '' if isinstance(new, bool) else 'True or False'
    if isinstance(old, (int, float)):
        return 'a number' if isinstance(new, (str, bool)) else ''
    if isinstance(old, Mapping):
        return '' if isinstance(new, Mapping) else 'a dict, one key at a time (key.name=value), or None to remove it'
    if isinstance(old, (list, tuple)) and any(isinstance(item, Mapping) for item in old):
        return '' if isinstance(new, (list, tuple, Mapping)) else 'a list of dicts, one key at a time (key.0.name=value)'
    return ''


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else f'{type(value).__name__} {value}'
    return text if len(text) <= 80 else f'{text[:77]}...'
