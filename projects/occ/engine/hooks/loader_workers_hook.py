"""Workers of data loaders: enough shared memory for them, and no endless wait for a dead one."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.structures import BaseDataElement
from torch.utils.data import DataLoader

from ..errors import OccError

SHARED_MEMORY = Path('/dev/shm')


@HOOKS.register_module()
class LoaderWorkersHook(Hook):
    """Compares ``/dev/shm`` with the batches that loader workers keep there before they start, and limits the wait for a batch.

    A worker hands over its tensors in shared memory. Containers have 64 MB of it by default, less than one batch of camera
    images; the kernel then kills the worker, and whoever waits for its batch may wait for ever. The size of a batch is that of
    the first sample, loaded here.

    Args:
        timeout: Seconds after which a batch that has not come ends the run, for loaders whose own ``timeout`` is 0.
    """

    priority = 'VERY_HIGH'

    def __init__(self, timeout: float = 900) -> None:
        self.timeout = timeout
        self._seen: set[str] = set()

    def before_train(self, runner) -> None:
        """Prepares the training data."""
        self._prepare(runner.train_dataloader, 'train_dataloader')

    def before_val(self, runner) -> None:
        """Prepares the validation data."""
        self._prepare(runner.val_dataloader, 'val_dataloader')

    def before_test(self, runner) -> None:
        """Prepares the test data."""
        self._prepare(runner.test_dataloader, 'test_dataloader')

    def _prepare(self, loader: DataLoader, name: str) -> None:
        if not loader.num_workers or name in self._seen:
            return
        self._seen.add(name)
        loader.timeout = loader.timeout or self.timeout
        check_shared_memory(loader, name)


def check_shared_memory(loader: DataLoader, name: str) -> None:
    """Raises OccError if the workers of a loader will fill the shared memory.

    Args:
        loader: A data loader with workers that have not started.
        name: Its key in the config.
    """
    if not SHARED_MEMORY.is_dir() or not len(loader.dataset):
        return
    batch = tensor_bytes(loader.dataset[0]) * (loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None) or 1)
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', 1))
    waiting = loader.num_workers * (loader.prefetch_factor or 2) * processes
    free = shutil.disk_usage(SHARED_MEMORY).free
    if batch * waiting > free:
        raise OccError(
            f'{name}: {waiting} batches of {_megabytes(batch)} may wait in shared memory ({loader.num_workers} workers x '
            f'prefetch_factor {loader.prefetch_factor or 2} x {processes} processes), but {SHARED_MEMORY} has '
            f'{_megabytes(free)} free. Give a container more (docker run --shm-size={_gigabytes(batch * waiting)}g, or '
            f'--ipc=host), lower {name}.num_workers, or set it to 0'
        )


def tensor_bytes(value: Any) -> int:
    """Size of all tensors in a nested sample, bytes."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, BaseDataElement):
        return sum(tensor_bytes(item) for _, item in value.items())
    if isinstance(value, Mapping):
        return sum(map(tensor_bytes, value.values()))
    return sum(map(tensor_bytes, value)) if isinstance(value, (list, tuple)) else 0


def _megabytes(size: int) -> str:
    return f'{size / 1e6:.0f} MB'


def _gigabytes(size: int) -> int:
    return 1 + -(-size // 10**9)
