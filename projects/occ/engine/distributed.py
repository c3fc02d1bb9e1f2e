"""Several processes, with or without GPUs."""

import gc
import logging
import os
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed.nn.functional  # imported once a group exists, its default arguments would keep that group for ever
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from .errors import LaunchError

_TORCHRUN_VARIABLES = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')


# the Runner looks wrappers up in mmengine's own registry, not in that of the default scope
@MODEL_WRAPPERS.register_module()
class DeviceAwareDistributedDataParallel(MMDistributedDataParallel):
    """``MMDistributedDataParallel`` for models on a GPU or on the CPU, whose parameters have no device index.

    Args:
        module: Model to wrap.
        device_ids: Index of the GPU, ignored on the CPU (the Runner always gives one).
        **kwargs: Passed on.
    """

    def __init__(self, module: nn.Module, device_ids: Sequence[int] | None = None, **kwargs) -> None:
        on_cpu = all(parameter.device.type == 'cpu' for parameter in module.parameters())
        super().__init__(module=module, device_ids=None if on_cpu else device_ids, **kwargs)


def prepare_launch(cfg: Config, launcher: str) -> None:
    """Checks how the processes were started and, without GPUs, joins them and fits the config.

    mmengine's own start-up always selects a GPU. Where there is none, the process group is initialised here with the gloo back
    end, before the Runner looks for one.

    Args:
        cfg: Config of the run, changed in place.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        LaunchError: If the launcher does not fit the environment.
    """
    cfg.launcher = launcher
    if launcher == 'none':
        if int(os.environ.get('WORLD_SIZE', 1)) > 1:
            raise LaunchError(
                f'{os.environ["WORLD_SIZE"]} processes were started, but each would train alone in the same work directory; '
                'add --launcher pytorch'
            )
        return
    if launcher == 'pytorch':
        missing = [name for name in _TORCHRUN_VARIABLES if name not in os.environ]
        if missing:
            raise LaunchError(
                f'--launcher pytorch needs the variables of torchrun, but {", ".join(missing)} are not set; start with '
                'torchrun --nproc_per_node=N tools/... --launcher pytorch, or with tools/dist_train.sh or tools/dist_test.sh'
            )
    if torch.cuda.is_available():
        return
    if launcher != 'pytorch':
        raise LaunchError(f'--launcher {launcher} needs GPUs and none is visible; use torchrun and --launcher pytorch instead')

    timeout = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout', 1800)
    if cfg.get('sync_bn'):
        print_log(
            f'sync_bn={cfg.sync_bn!r} of the config is ignored: synchronised batch normalisation needs GPUs; every process '
            'normalises with its own samples',
            logger='current',
            level=logging.WARNING,
        )
        cfg.sync_bn = None
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo', timeout=timedelta(seconds=timeout))
    wrapper = cfg.get('model_wrapper_cfg') or dict(find_unused_parameters=cfg.get('find_unused_parameters', False))
    if wrapper.get('type', 'MMDistributedDataParallel') == 'MMDistributedDataParallel':
        cfg.model_wrapper_cfg = {'broadcast_buffers': False, **wrapper, 'type': DeviceAwareDistributedDataParallel.__name__}


def set_sync_bn(cfg: Config, kind: str) -> None:
    """Asks for synchronised batch normalisation, which needs GPUs: without them a warning says that nothing changes.

    Args:
        cfg: Config of the run, changed in place.
        kind: ``'none'``, ``'torch'`` or ``'mmcv'``.
    """
    if kind == 'none':
        return
    if torch.cuda.is_available():
        cfg.sync_bn = kind
    else:
        print_log('--sync_bn is ignored: synchronised batch normalisation needs GPUs', logger='current', level=logging.WARNING)


def leave_process_group() -> None:
    """Ends the process group of a finished distributed run, if there is one, and the threads of gloo with it.

    A thread that still drops the tensors of its last work while Python shuts down would abort the process, which then ends with
    an error after all its results are right.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()  # models of finished runs hold the group, and lie in reference cycles
        torch.distributed.destroy_process_group()
