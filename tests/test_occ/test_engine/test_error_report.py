import errno
import sys

import pytest
import torch
from mmdet.models import ResNet  # noqa: F401 - registers what is looked for
from mmdet3d.registry import MODELS
from mmengine.registry import OPTIMIZERS
from mmengine.visualization import WandbVisBackend
from torch.utils.data import DataLoader

from projects.occ.atomic_write import write_atomically
from projects.occ.engine.error_report import interrupted, user_message
from projects.occ.engine.errors import OccError
from projects.occ.structures import VoxelGrid

GRID = dict(point_cloud_range=(0, 0, 0, 2, 2, 2), voxel_size=1, shape=(2, 2, 2), frame='ego', free_index=1, class_names='ab')


class BadGrids(torch.utils.data.Dataset):
    """Data set whose samples are grids that cannot be built."""

    def __init__(self, **changes):
        self.changes = changes

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return VoxelGrid.build({**GRID, **self.changes})


def caught(function):
    with pytest.raises(Exception) as info:  # noqa: B017 - whatever the function raises is what is looked at
        function()
    return info.value


@pytest.mark.parametrize('workers', [0, 1])
def test_an_error_raised_on_purpose_is_its_message(workers):
    loader = DataLoader(BadGrids(frame='moon'), num_workers=workers)
    error = caught(lambda: next(iter(loader)))
    assert isinstance(error, ValueError)
    assert user_message(error) == "grid.frame must be one of ('lidar', 'ego'), got 'moon'"


@pytest.mark.parametrize('workers', [0, 1])
def test_an_operation_that_fails_by_itself_needs_its_stack_trace(workers):
    loader = DataLoader(BadGrids(shape='xyz'), num_workers=workers)
    assert user_message(caught(lambda: next(iter(loader)))) is None


def test_errors_of_libraries_need_their_stack_trace():
    assert user_message(caught(lambda: torch.zeros(2) + torch.zeros(3))) is None
    assert user_message(caught(lambda: torch.nn.Linear(1, 1).load_state_dict({}))) is None
    assert user_message(ValueError('never raised')) is None


def test_errors_of_the_tools_are_messages_without_being_raised():
    assert user_message(OccError('use another')) == 'use another'


def test_a_misspelt_type_gets_the_nearest_names():
    error = caught(lambda: MODELS.build(dict(type='mmdet.ResNett')))
    assert user_message(error).startswith("'mmdet.ResNett' is no registered model")
    assert 'nearest: ResNet' in user_message(caught(lambda: MODELS.build(dict(type='ResNett'))))
    assert 'nearest: AdamW' in user_message(caught(lambda: OPTIMIZERS.build(dict(type='AdammW'))))


def test_a_full_disk_names_the_file(tmp_path):
    def fill(file):
        raise OSError(errno.ENOSPC, 'No space left on device')

    error = caught(lambda: write_atomically(tmp_path / 'epoch_1.pth', fill))
    wanted = (
        f'cannot write {tmp_path / "epoch_1.pth"} (No space left on device); make room, then go on (a training with --resume)'
    )
    assert user_message(error) == wanted


def test_a_logging_back_end_that_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    error = caught(lambda: WandbVisBackend(str(tmp_path)).experiment)
    assert isinstance(error, ImportError)
    assert user_message(error).endswith('requirements/optional.txt names what it needs')


def test_control_c_is_found_below_other_errors():
    def chain():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SyntaxError('cannot format') from None

    assert interrupted(KeyboardInterrupt()) and interrupted(caught(chain))
    assert not interrupted(ValueError()) and not interrupted(None)


def test_a_key_error_is_not_quoted():
    from projects.occ.structures.benchmarks import get_benchmark

    error = caught(lambda: get_benchmark('absent'))
    assert user_message(error) == error.args[0]
