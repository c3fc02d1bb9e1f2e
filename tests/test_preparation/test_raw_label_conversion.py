import re

import numpy as np
import pytest

from projects.occ.datasets import LoadSSCBenchLabels
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmark_classes import KITTI360_CLASSES
from projects.preparation.raw_label_conversion import convert_raw_labels

SHAPE = (4, 3, 2)
SEQUENCE = '2013_05_28_drive_0004_sync'


@pytest.fixture
def grid():
    names = ('empty', *KITTI360_CLASSES)
    return VoxelGrid((0, 0, 0, 4, 3, 2), 1.0, SHAPE, 'lidar', 0, class_names=names)


@pytest.fixture
def raw(tmp_path):
    """Writes one raw frame below ``tmp_path`` and returns the path of its .label file."""

    def write(labels, invalid=None, frame='000005', sequence=SEQUENCE):
        folder = tmp_path / 'data_2d_raw' / sequence / 'voxels'
        folder.mkdir(parents=True, exist_ok=True)
        labels = np.resize(np.asarray(labels), SHAPE).astype('<u2')
        invalid = np.zeros(SHAPE, np.uint8) if invalid is None else np.resize(np.asarray(invalid, np.uint8), SHAPE)
        (folder / f'{frame}.label').write_bytes(labels.tobytes())
        (folder / f'{frame}.invalid').write_bytes(invalid.tobytes())
        return folder / f'{frame}.label'

    return write


@pytest.fixture
def logged(monkeypatch):
    messages = []
    monkeypatch.setattr(
        'projects.occ.datasets.kitti360_labels.print_log', lambda message, logger, level: messages.append((level, message))
    )
    return messages


def test_converted_set_is_that_of_the_release(raw, tmp_path, grid, logged):
    raw([0, 10, 70, 1], [1, 0, 0, 0], frame='000000')
    raw([0, 40], frame='000005')
    raw([50], frame='000010', sequence='2013_05_28_drive_0006_sync')
    counts = convert_raw_labels(tmp_path, shape=SHAPE)
    assert {i: n for i, n in enumerate(counts.tolist()) if n} == {0: 12, 1: 6, 7: 12, 11: 24, 13: 6, 255: 12}
    folder = tmp_path / 'preprocess' / 'labels'
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())
    assert files == [f'{SEQUENCE}/000000_1_1.npy', f'{SEQUENCE}/000005_1_1.npy', '2013_05_28_drive_0006_sync/000010_1_1.npy']
    saved = np.load(folder / files[0])
    assert saved.dtype == np.float32 and saved.shape == SHAPE and saved.reshape(-1)[:4].tolist() == [255, 1, 13, 255]
    loaded = LoadSSCBenchLabels()(dict(token='t', occ_path=str(folder / files[0]), grid=grid))['gt_occ']
    assert loaded.dtype == np.uint8 and np.array_equal(loaded, saved)
    assert logged == []


def test_conversion_continues_and_overwrites_on_request(raw, tmp_path):
    target = tmp_path / 'out' / SEQUENCE / '000005_1_1.npy'
    raw([50])
    convert_raw_labels(tmp_path, [SEQUENCE], tmp_path / 'out', SHAPE)
    raw([70])
    raw([0, 80], frame='000010')
    counts = convert_raw_labels(tmp_path, [SEQUENCE], tmp_path / 'out', SHAPE)
    assert np.load(target).max() == 11 and counts[13] == 0 and counts[15] == 12
    counts = convert_raw_labels(tmp_path, [SEQUENCE], tmp_path / 'out', SHAPE, overwrite=True)
    assert np.load(target).max() == 13 and counts[13] == 24


def test_nothing_to_convert(tmp_path, raw):
    with pytest.raises(FileNotFoundError, match=r'has no <sequence>/voxels folder with raw labels'):
        convert_raw_labels(tmp_path, shape=SHAPE)
    with pytest.raises(FileNotFoundError, match=r"0009_sync/voxels' has no \*\.label file to convert"):
        convert_raw_labels(tmp_path, ['2013_05_28_drive_0009_sync'], shape=SHAPE)


def test_labels_without_upper_classes_are_warned_about(raw, tmp_path, logged):
    raw([0, 10, 48, 1])
    convert_raw_labels(tmp_path, shape=SHAPE)
    ((level, message),) = logged
    assert level == 30 and re.search(r"no voxel has a class above 10.*another data set's map.*overwrite=True", message)
