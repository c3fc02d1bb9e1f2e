import logging
import re

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, pseudo_collate
from torch.utils.data import DataLoader

from projects.occ.datasets import Occ3DNuScenesDataset, SSCBenchKITTI360Dataset, frame_dataset
from projects.occ.datasets.frame_dataset import FrameDataset

PIPELINE = [dict(type='LoadMultiViewImages'), dict(type='LoadOccLabels'), dict(type='PackOccInputs')]


@pytest.fixture
def dataset(tiny_root, formats):
    def build(**kwargs):
        args = dict(
            ann_file='infos.pkl',
            data_root=str(tiny_root.path),
            data_prefix=dict(img='nuscenes', pts='nuscenes', occ='gts'),
            grid=formats.tiny_grid('occ3d'),
            pipeline=PIPELINE,
        )
        return Occ3DNuScenesDataset(**{**args, **kwargs})

    return build


def _image(tiny_root, index):
    return tiny_root.path / 'nuscenes' / tiny_root.frames[index].sensors['CAM_BACK']['filename']


def test_every_benchmark_has_the_option():
    assert issubclass(Occ3DNuScenesDataset, FrameDataset) and issubclass(SSCBenchKITTI360Dataset, FrameDataset)


def test_a_damaged_file_stops_by_default_and_is_named(dataset, tiny_root):
    path = _image(tiny_root, 2)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"image of CAM_BACK, frame token02: '{re.escape(str(path))}' \(100 bytes\)"):
        dataset()[2]


def test_any_other_error_names_the_frame(dataset):
    def broken(results):
        return results['no such key']

    with pytest.raises(RuntimeError, match=r"frame token01 \(item 1 of .*infos\.pkl\): KeyError: 'no such key'"):
        dataset(pipeline=[broken])[1]


def test_skipped_frames_are_replaced_counted_and_reported_once(dataset, tiny_root, monkeypatch):
    _image(tiny_root, 2).unlink()
    data = dataset(skip_corrupt=True)
    reports = []
    monkeypatch.setattr(frame_dataset, 'print_log', lambda message, logger, level: reports.append((level, message)))
    tokens = [data[index]['data_samples'].token for index in (0, 1, 2, 3, 2, 2)]
    assert tokens[:2] == ['token00', 'token01'] and tokens[3] == 'token03' and 'token02' not in tokens
    assert data.num_skipped == 1
    (level, message), *others = reports
    assert not others and level == logging.ERROR and message.startswith('skip_corrupt: skipped frame token02 (item 2 of ')
    assert '1 of 4 frames so far: image of CAM_BACK, frame token02' in message and 'does not exist' in message


def test_workers_count_together(dataset, tiny_root):
    _image(tiny_root, 1).unlink()
    data = dataset(skip_corrupt=True)
    loader = torch.utils.data.DataLoader(data, batch_size=1, num_workers=2, collate_fn=pseudo_collate)
    assert len([item for item in loader]) == 4
    assert data.num_skipped == 1


def test_too_many_damaged_frames_stop_the_training(dataset, tiny_root):
    for index in (0, 3):
        folder = tiny_root.path / 'gts' / tiny_root.frames[index].scene_name / tiny_root.frames[index].token
        (folder / 'labels.npz').write_bytes(b'')
    data = dataset(skip_corrupt=True)
    with pytest.raises(RuntimeError, match=r'skipped 2 of 4 frames, more than 10%, .* check the paths in the config.*token'):
        for index in (0, 3):
            data[index]


def test_refused_for_testing(dataset):
    with pytest.raises(ValueError, match='skip_corrupt is for training only: a metric over fewer frames is not comparable'):
        dataset(skip_corrupt=True, test_mode=True)
    assert len(dataset(test_mode=True)) == 4


def tokens_of(data, seed, epoch, skip=0):
    """Tokens of an epoch of a shuffled loader, after the first batches were passed over as in a resumed training."""
    sampler = DefaultSampler(data, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    np.random.seed(0)  # noqa: NPY002 - mmengine draws the frame that replaces a damaged one from numpy's global state
    return [data[index]['data_samples'].token for index in list(sampler)[skip:]]


def test_epochs_are_the_same_after_resuming_with_frames_and_skipped_ones(dataset, tiny_root):
    alone, several = dataset(), dataset(frames=(-1, 0, 1))
    for epoch in range(3):
        order = tokens_of(alone, 5, epoch)
        assert sorted(order) == [f'token0{index}' for index in range(4)]
        # neighbours change no order, and a resumed epoch goes on where it stopped
        assert tokens_of(several, 5, epoch) == order
        assert tokens_of(dataset(frames=(-1, 0, 1)), 5, epoch, skip=2) == order[2:]
    assert len({tuple(tokens_of(several, 5, epoch)) for epoch in range(6)}) > 1


def test_a_damaged_neighbour_is_skipped_like_a_damaged_frame(dataset, tiny_root):
    _image(tiny_root, 2).unlink()
    # frames 2 and 3 are a scene: both need the image
    with pytest.raises(FileNotFoundError, match='image of CAM_BACK, frame token03'):
        dataset(frames=(0, -1))[3]
    data = dataset(frames=(0, -1), skip_corrupt=True)
    data._rand_another = lambda: 1
    assert [data[index]['data_samples'].token for index in (0, 1, 2)] == ['token00', 'token01', 'token01']
    assert data.num_skipped == 1
    # more than one frame of four is too many
    with pytest.raises(RuntimeError, match='skipped 2 of 4 frames.*frame token03.*CAM_BACK'):
        data[3]


def test_workers_share_the_table_of_frames(dataset):
    loader = DataLoader(dataset(frames=(0, -1)), batch_size=2, num_workers=2, collate_fn=pseudo_collate)
    views = [img.shape[0] for batch in loader for img in batch['inputs']['img']]
    assert views == [12] * 4
