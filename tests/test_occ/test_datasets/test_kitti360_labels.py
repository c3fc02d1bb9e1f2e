import numpy as np
import pytest

from projects.occ.datasets import LoadSSCBenchLabels
from projects.occ.datasets.kitti360_labels import (
    RAW_IDS,
    map_raw_labels,
    read_label,
    read_raw_label,
    warn_if_upper_classes_miss,
)
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmark_classes import KITTI360_CLASSES

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


@pytest.mark.parametrize(
    ('name', 'raw_ids'),
    [
        ('car', [10, 252]),
        ('other-vehicle', [13, 16, 20, 256, 257, 259]),
        ('truck', [18, 258]),
        ('person', [30, 254]),
        ('road', [40, 60]),
        ('building', [50]),
        ('other-structure', [52]),
        ('vegetation', [70]),
        ('terrain', [72]),
        ('other-object', [99]),
    ],
)
def test_raw_ids_become_the_class_of_their_name(name, raw_ids):
    labels = map_raw_labels(np.array(raw_ids, np.uint16), np.zeros(len(raw_ids), bool))
    assert labels.dtype == np.uint8
    assert {KITTI360_CLASSES[label - 1] for label in labels.tolist()} == {name}


def test_every_class_has_raw_ids_and_no_raw_id_has_two():
    assert set(RAW_IDS) == {*range(19), 255}
    ids = [raw_id for raw_ids in RAW_IDS.values() for raw_id in raw_ids]
    assert len(ids) == len(set(ids)) == 34


def test_invalid_hides_empty_space_only():
    raw = np.array([0, 0, 10, 10, 1, 255, 253], np.uint16)
    invalid = np.array([0, 1, 0, 1, 0, 1, 0], np.uint8)
    assert map_raw_labels(raw, invalid).tolist() == [0, 255, 1, 1, 255, 255, 255]


def test_files_are_read_z_fastest_with_a_byte_per_voxel(raw):
    labels, invalid = np.zeros(SHAPE, np.uint16), np.zeros(SHAPE, np.uint8)
    labels[3, 1, 0], labels[0, 0, 1], invalid[2, 2, 1], invalid[3, 1, 0] = 259, 70, 1, 1
    expected = np.zeros(SHAPE, np.uint8)
    expected[3, 1, 0], expected[0, 0, 1], expected[2, 2, 1] = 5, 13, 255
    assert np.array_equal(read_raw_label(raw(labels, invalid), SHAPE), expected)


def test_unknown_raw_id_is_named(raw):
    with pytest.raises(ValueError, match=r"'.*000005\.label': raw ids \[7, 300\] are not in the map of SSCBench-KITTI-360"):
        read_raw_label(raw([0, 10, 300, 7]), SHAPE)


@pytest.mark.parametrize('share', [0.0, 0.5, 0.97])
def test_truncated_label(raw, share):
    path = raw([0, 10])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    message = rf"'.*\.label' has {int(48 * share)} bytes instead of the 48 of \(4, 3, 2\) voxels .*cut short"
    with pytest.raises(ValueError, match=message):
        read_raw_label(path, SHAPE)


def test_bit_packed_invalid_is_refused(raw):
    path = raw([0, 10])
    path.with_suffix('.invalid').write_bytes(bytes(3))
    with pytest.raises(ValueError, match=r"\.invalid' has 3 bytes instead of the 24 .*1 per voxel, not bit-packed"):
        read_raw_label(path, SHAPE)


def test_label_of_full_size_does_not_pass_for_another_grid(raw):
    with pytest.raises(ValueError, match=r'has 48 bytes instead of the 4194304 of \(256, 256, 32\) voxels'):
        read_raw_label(raw([0]))


def test_missing_invalid(raw):
    path = raw([0, 10])
    path.with_suffix('.invalid').unlink()
    with pytest.raises(FileNotFoundError, match=r"000005\.invalid' does not exist; conversion needs both"):
        read_raw_label(path, SHAPE)


@pytest.mark.parametrize(('present', 'warned'), [([0, 255], False), ([10], True), ([10, 11], False), ([18], False)])
def test_warning_depends_on_the_classes(present, warned, logged):
    counts = np.zeros(256, np.int64)
    counts[present] = 3
    assert warn_if_upper_classes_miss(counts, 'labels') is warned and len(logged) == warned


@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.uint8, np.int64])
def test_labels_of_any_number_type(tmp_path, grid, dtype):
    values = np.resize([0, 18, 255, 1], SHAPE)
    np.save(tmp_path / 'x.npy', values.astype(dtype))
    labels = read_label(str(tmp_path / 'x.npy'), grid)
    assert labels.dtype == np.uint8 and np.array_equal(labels, values)


@pytest.mark.parametrize(
    ('array', 'text'),
    [
        (np.zeros((4, 3, 1), np.float32), r'expected numbers of shape \(4, 3, 2\) \(grid\.shape\), found float32 \(4, 3, 1\)'),
        (np.zeros((1, *SHAPE), np.float32), r'found float32 \(1, 4, 3, 2\)'),
        (np.full(SHAPE, 'car'), r'expected numbers of shape .* found <U3'),
        (np.full(SHAPE, 0.5, np.float32), r'value 0\.5 is no class id; expected 0\.\.18 or 255'),
        (np.full(SHAPE, np.nan, np.float32), r'value nan is no class id'),
        (np.full(SHAPE, -1, np.float32), r'value -1\.0 is no class id'),
        (np.full(SHAPE, 256, np.int64), r'value 256 is no class id'),
        (np.full(SHAPE, 19, np.float32), r'class id 19 is outside 0\.\.18'),
    ],
)
def test_label_that_does_not_fit(tmp_path, grid, array, text):
    np.save(tmp_path / 'x.npy', array)
    with pytest.raises(ValueError, match=rf"label of frame t: '.*x\.npy': .*{text}"):
        LoadSSCBenchLabels()(dict(token='t', occ_path=str(tmp_path / 'x.npy'), grid=grid))


@pytest.mark.parametrize('share', [0.0, 0.3, 0.7, 0.98])
def test_truncated_converted_label(tmp_path, grid, share):
    path = tmp_path / 'x.npy'
    np.save(path, np.zeros(SHAPE, np.float32))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"label: '.*' \(\d+ bytes\) is damaged or cut short"):
        read_label(str(path), grid)


def test_archives_and_pickles_are_refused(tmp_path, grid):
    np.savez(tmp_path / 'x.npz', a=np.zeros(SHAPE))
    with pytest.raises(ValueError, match=r"found an archive of \['a'\]"):
        read_label(str(tmp_path / 'x.npz'), grid)
    np.save(tmp_path / 'x.npy', np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match='damaged or cut short'):
        read_label(str(tmp_path / 'x.npy'), grid)


def test_missing_converted_label(tmp_path, grid):
    with pytest.raises(FileNotFoundError, match=r"label of frame t: '.*' does not exist; .*data_prefix\['occ'\].*convert_raw"):
        LoadSSCBenchLabels()(dict(token='t', occ_path=str(tmp_path / 'x.npy'), grid=grid))
