"""The one reader of label files: every format, and what is wrong with files that do not fit."""

import numpy as np
import pytest

from projects.occ.datasets.label_formats import LabelError, read_dense, read_label, read_raw_label, read_rows
from projects.occ.datasets.label_volumes import read_label_volume, read_prediction
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmark_classes import KITTI360_CLASSES
from projects.preparation.check_files import check_label

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
        read_raw_label(raw([0]), (256, 256, 32))


def test_missing_invalid(raw):
    path = raw([0, 10])
    path.with_suffix('.invalid').unlink()
    with pytest.raises(FileNotFoundError, match=r'000005\.invalid'):
        read_raw_label(path, SHAPE)


@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.uint8, np.int64])
def test_labels_of_any_number_type(tmp_path, grid, dtype):
    values = np.resize([0, 18, 255, 1], SHAPE)
    np.save(tmp_path / 'x.npy', values.astype(dtype))
    labels, masks = read_label(str(tmp_path / 'x.npy'), grid)
    assert masks == {}
    assert labels.dtype == np.uint8 and np.array_equal(labels, values)


def kinds(error):
    return [kind for kind, _ in error.value.problems]


@pytest.mark.parametrize(
    ('array', 'kind'),
    [
        (np.zeros((4, 3, 1), np.float32), 'label-shape'),
        (np.zeros((1, *SHAPE), np.float32), 'label-shape'),
        (np.full(SHAPE, 'car'), 'label-type'),
        (np.full(SHAPE, 0.5, np.float32), 'label-class'),
        (np.full(SHAPE, np.nan, np.float32), 'label-class'),
        (np.full(SHAPE, -1, np.float32), 'label-class'),
        (np.full(SHAPE, 256, np.int64), 'label-class'),
        (np.full(SHAPE, 19, np.float32), 'label-class'),
    ],
)
def test_dense_array_that_does_not_fit(tmp_path, grid, array, kind):
    np.save(tmp_path / 'x.npy', array)
    with pytest.raises(LabelError, match=r"label of frame t: '.*x\.npy'") as error:
        read_label(tmp_path / 'x.npy', grid, 'label of frame t')
    assert kinds(error) == [kind]


def test_ignored_voxels_can_be_forbidden(grid):
    values = np.resize([0, 255], SHAPE)
    assert read_dense({'': values}, grid, 'x', '')[0].max() == 255
    with pytest.raises(LabelError, match=r'\b255\b'):
        read_dense({'': values}, grid, 'x', '', ignored=False)


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (dict(semantics=None), ['label-array']),
        (dict(mask_camera=None), ['label-array']),
        (dict(semantics=np.full(SHAPE, 19)), ['label-class']),
        (dict(mask_lidar=np.ones((4, 3), np.uint8)), ['mask-shape']),
        (dict(mask_lidar=np.full(SHAPE, 2, np.uint8)), ['mask-values']),
        (dict(semantics=np.zeros((4, 3, 1)), mask_lidar=np.full(SHAPE, 0.5)), ['label-shape', 'mask-values']),
    ],
)
def test_archive_that_does_not_fit_says_all_that_is_wrong(tmp_path, grid, change, expected):
    arrays = dict(semantics=np.zeros(SHAPE, np.uint8), mask_lidar=np.ones(SHAPE, bool), mask_camera=np.ones(SHAPE, np.uint8))
    arrays.update(change)
    np.savez(tmp_path / 'x.npz', **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(LabelError, match='x.npz') as error:
        read_label(tmp_path / 'x.npz', grid)
    assert kinds(error) == expected


def test_archives_without_masks_are_read_where_none_are_wanted(tmp_path, grid):
    values = np.resize([0, 18], SHAPE)
    np.savez(tmp_path / 'x.npz', semantics=values)
    labels, masks = read_label(tmp_path / 'x.npz', grid, masks=())
    assert np.array_equal(labels, values) and masks == {}
    with pytest.raises(LabelError, match='mask_lidar'):
        read_label(tmp_path / 'x.npz', grid)


@pytest.mark.parametrize(
    ('rows', 'kind'),
    [
        (np.zeros((3, 5), np.int64), 'label-shape'),
        (np.full((3, 4), 0.5), 'label-type'),
        (np.full((3, 4), np.inf), 'label-type'),
        (np.array([['1', '0', '0', 'car']]), 'label-type'),
        (np.array([[0, 3, 0, 1]]), 'label-shape'),
        (np.array([[0, 0, -1, 1]]), 'label-shape'),
        (np.array([[0, 0, 0, 19]]), 'label-class'),
        (np.array([[0, 0, 0, -1]]), 'label-class'),
    ],
)
def test_rows_that_do_not_fit(grid, rows, kind):
    with pytest.raises(LabelError, match='somewhere') as error:
        read_rows(rows, grid, 'somewhere')
    assert kinds(error) == [kind]


@pytest.mark.parametrize('dtype', [np.int64, np.float32, np.uint8])
def test_rows_are_the_voxels_that_are_not_free(grid, dtype):
    rows = np.array([[0, 0, 0, 18], [3, 2, 1, 0]], dtype)
    labels = read_rows(rows, grid, 'x')
    assert labels.dtype == np.uint8 and labels[0, 0, 0] == 18 and labels[3, 2, 1] == 255 and (labels == 0).sum() == 22
    assert read_rows(rows, grid, 'x', noise=False)[3, 2, 1] == 0
    assert not read_rows(rows[:0], grid, 'x').any()


def test_raw_ids_need_the_classes_of_sscbench(raw, grid):
    path = raw([0, 10, 70])
    assert np.array_equal(read_label(path, grid)[0], np.resize([0, 1, 13], SHAPE))
    other = VoxelGrid((0, 0, 0, 4, 3, 2), 1.0, SHAPE, 'lidar', 0, class_names=('free', 'car'))
    with pytest.raises(LabelError, match='label'):
        read_label(path, other)
    path.with_suffix('.invalid').unlink()
    assert read_label(path, grid, invalid=False)[0].max() == 13


@pytest.mark.parametrize('key', ['pred', 'arr_0'])
def test_a_label_beside_a_prediction_is_refused_by_every_reader(tmp_path, key):
    grid = VoxelGrid((0, 0, 0, 4, 3, 2), 1.0, SHAPE, 'lidar', 0, class_names=('empty', 'car'))
    zeros, ones = np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8)
    path = tmp_path / 'two.npz'
    np.savez(path, semantics=zeros, mask_camera=ones, mask_lidar=ones)
    readers = dict(
        label=lambda: read_label(path, grid),
        prediction=lambda: read_prediction(path, grid),
        picture=lambda: read_label_volume(path, dict(small=grid)),
        check=lambda: check_label(path, grid),
    )
    assert [finding.kind for finding in readers['check']()[0]] == ['label-empty']
    np.testing.assert_array_equal(readers['label']()[0], zeros)
    np.savez(path, **{key: ones}, semantics=zeros, mask_camera=ones, mask_lidar=ones)
    for name in ('label', 'prediction', 'picture'):
        with pytest.raises(ValueError, match=rf"two.npz.*'{key}'.*'semantics'"):
            readers[name]()
    (finding,) = readers['check']()[0]
    assert finding.kind == 'label-array' and key in finding.message
