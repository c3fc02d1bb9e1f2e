"""What a whole config must satisfy before anything is built from it."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches

from mmengine.config import Config
from mmengine.registry import OPTIMIZERS, DefaultScope, Registry

from projects.occ.structures import VoxelGrid

from .config_options import walk_config
from .errors import ConfigOptionError

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
_GRID_USERS = (*_LOADERS, 'val_evaluator', 'test_evaluator')


def check_config(cfg: Config) -> None:
    """Checks what the parts of a config cannot see: other parts.

    Without workers, ``persistent_workers`` and ``prefetch_factor`` mean nothing and are switched off, so that one option
    (``train_dataloader.num_workers=0``) is enough to load data in the main process.

    Args:
        cfg: The config, changed in place.

    Raises:
        ConfigOptionError: If a batch is empty, the grid of the model is not that of the data or the metrics, or the optimiser
            does not exist.
    """
    for name in _LOADERS:
        if cfg.get(name):
            _check_loader(cfg[name], name)
    _check_grids(cfg)
    kind = (cfg.get('optim_wrapper') or {}).get('optimizer', {}).get('type')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        if isinstance(kind, str) and OPTIMIZERS.get(kind) is None:
            raise ConfigOptionError(f'optim_wrapper.optimizer.type: {unknown_type(kind, OPTIMIZERS)}')


def unknown_type(name: str, registry: Registry) -> str:
    """A sentence about a name that a registry lacks, with the nearest names that it has."""
    near = get_close_matches(name, _names(registry.root), n=3, cutoff=0.7)
    hint = f'; nearest: {", ".join(near)}' if near else ''
    return (
        f'{name!r} is no registered {registry.name}{hint}. A class of your own is registered once its module is named in '
        'custom_imports of the config'
    )


def _names(registry: Registry) -> set[str]:
    names = set(registry.module_dict)
    for child in registry.children.values():
        names |= _names(child)
    return names


def _check_loader(loader: Mapping, name: str) -> None:
    size = loader.get('batch_size', 1)
    if not isinstance(size, int) or size < 1:
        raise ConfigOptionError(f'{name}.batch_size must be a positive integer, got {size!r}')
    if loader.get('num_workers', 0) == 0:
        loader['persistent_workers'] = False
        loader.pop('prefetch_factor', None)


def _check_grids(cfg: Config) -> None:
    model = cfg.get('model') or {}
    if not isinstance(model.get('grid'), Mapping):
        return
    own = VoxelGrid.build(model['grid'])
    for path, node in walk_config(cfg):
        if path.split('.')[0] not in _GRID_USERS or path.split('.')[-1] != 'grid' or not isinstance(node, Mapping):
            continue
        other = VoxelGrid.build(node)
        different = [f.name for f in fields(VoxelGrid) if getattr(own, f.name) != getattr(other, f.name)]
        if different:
            shown = '; '.join(f'{name} {getattr(own, name)} against {getattr(other, name)}' for name in different[:2])
            raise ConfigOptionError(
                f'model.grid and {path} differ ({shown}): data, network and metrics must mean the same voxels. Change all of '
                'them, or the variable grid in a config file that inherits from this one'
            )
