import os
import time
from collections import namedtuple

import pytest
import torch
from torch.utils.data import DataLoader
from toy_occupancy import train, write_config

from projects.occ.engine.error_report import user_message
from projects.occ.engine.errors import OccError
from projects.occ.engine.hooks import loader_workers_hook
from projects.occ.engine.hooks.loader_workers_hook import LoaderWorkersHook, check_shared_memory, tensor_bytes
from projects.occ.structures import OccDataSample

Usage = namedtuple('Usage', 'total used free')


class Images(torch.utils.data.Dataset):
    """One megabyte of images a sample; ``act`` is done before the second."""

    def __init__(self, act=None):
        self.act = act

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index and self.act:
            self.act()
        return dict(imgs=torch.zeros(250, 1000), data_samples=[0])


@pytest.fixture
def room(monkeypatch):
    """Sets the free shared memory, megabytes."""

    def set_free(megabytes):
        monkeypatch.setattr(loader_workers_hook.shutil, 'disk_usage', lambda _: Usage(0, 0, int(megabytes * 1e6)))

    return set_free


def test_size_of_a_sample():
    sample = OccDataSample(gt_occ=torch.zeros(2, 3, dtype=torch.uint8), metainfo=dict(token='x'))
    assert tensor_bytes(dict(inputs=[torch.zeros(4), torch.zeros(2, dtype=torch.float64)], data_samples=sample)) == 16 + 16 + 6


def test_too_little_shared_memory_is_told_with_what_it_takes(room, monkeypatch):
    monkeypatch.delenv('LOCAL_WORLD_SIZE', raising=False)
    loader = DataLoader(Images(), batch_size=2, num_workers=3)
    room(12.1)
    check_shared_memory(loader, 'train_dataloader')
    room(11.9)
    with pytest.raises(OccError, match=r'train_dataloader: 6 batches of 2 MB .*12 MB free.*--shm-size=2g.*num_workers'):
        check_shared_memory(loader, 'train_dataloader')
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    room(23)
    with pytest.raises(OccError, match='3 workers x prefetch_factor 2 x 2 processes'):
        check_shared_memory(loader, 'train_dataloader')


@pytest.mark.parametrize(('workers', 'code'), [(2, 1), (0, 0)])
def test_a_training_in_a_small_container_stops_at_the_start(tmp_path, room, capfd, workers, code):
    room(0)
    config = write_config(tmp_path, extra=f'train_dataloader.update(num_workers={workers})\n')
    assert train(config, '--cfg-options', 'train_cfg.max_epochs=1') == code
    error = capfd.readouterr().err.strip().split('\n')[-1]
    assert error.startswith('error: train_dataloader: 4 batches') == bool(code)
    assert (tmp_path / 'losses_toy.0').exists() != bool(code)


def test_nobody_waits_for_ever(room):
    room(1e6)
    loader = DataLoader(Images(lambda: time.sleep(60)), num_workers=1)
    hook = LoaderWorkersHook(timeout=1)
    hook._prepare(loader, 'train_dataloader')
    assert loader.timeout == 1
    with pytest.raises(RuntimeError) as info:
        list(loader)
    assert 'timed out after 1 seconds' in user_message(info.value) and '--shm-size' in user_message(info.value)
    own = DataLoader(Images(), num_workers=1, timeout=7)
    hook._prepare(own, 'val_dataloader')
    assert own.timeout == 7


def test_a_killed_worker_is_explained(room):
    loader = DataLoader(Images(lambda: os.kill(os.getpid(), 9)), num_workers=1)
    with pytest.raises(RuntimeError) as info:
        list(loader)
    assert '. A loader worker was killed or hangs' in user_message(info.value)
