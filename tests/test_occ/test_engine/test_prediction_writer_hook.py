from types import SimpleNamespace

import numpy as np
import pytest
import torch

from projects.occ.engine.errors import OccError
from projects.occ.engine.hooks.prediction_writer_hook import PredictionWriterHook
from projects.occ.structures import OccDataSample, VoxelGrid


def sample(token, labels=None):
    return OccDataSample(metainfo=dict(token=token), pred_occ=torch.arange(6).view(1, 2, 3) if labels is None else labels)


def test_one_file_per_token(tmp_path):
    PredictionWriterHook(str(tmp_path)).after_test_iter(None, 0, None, [sample('abc'), sample('drive_0/000010.left')])
    for name in ('abc', 'drive_0/000010.left'):
        with np.load(tmp_path / f'{name}.npz') as file:
            assert file.files == ['pred']
            assert file['pred'].dtype == np.uint8 and file['pred'].tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert len([path for path in tmp_path.rglob('*') if path.is_file()]) == 2


def test_files_tell_the_grid_of_the_test_set(tmp_path):
    grid = VoxelGrid((0, 0, 0, 1, 2, 3), 1.0, (1, 2, 3), 'ego', 0, class_names=tuple('abcdef'))
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(grid=vars(grid)))))
    PredictionWriterHook(str(tmp_path)).after_test_iter(runner, 0, None, [sample('abc')])
    with np.load(tmp_path / 'abc.npz') as file:
        assert VoxelGrid.from_arrays(dict(file)) == grid and file['pred'].shape == grid.shape


@pytest.mark.parametrize('token', ['', '../outside', '/etc/passwd'])
def test_tokens_that_name_no_file_inside_the_folder(tmp_path, token):
    with pytest.raises(OccError, match='the dataset must give every sample a "token"'):
        PredictionWriterHook(str(tmp_path / 'out')).after_test_iter(None, 0, None, [sample(token)])
    assert not (tmp_path / 'out').exists()


def test_predictions_must_be_there(tmp_path):
    with pytest.raises(OccError, match='--out needs data_sample.pred_occ'):
        PredictionWriterHook(str(tmp_path)).after_test_iter(None, 0, None, [OccDataSample(metainfo=dict(token='a'))])
