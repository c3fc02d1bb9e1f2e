"""Label files of other projects open without a data set around them."""

import numpy as np
import pytest

from projects.occ.datasets.label_volumes import read_label_volume, read_prediction
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmarks import BENCHMARKS
from projects.preparation.label_files import write_occ3d_label, write_surroundocc_label

GRIDS = {name: preset.grid for name, preset in BENCHMARKS.items()}
SMALL = VoxelGrid((-4, -4, -1, 4, 4, 1), 1.0, (8, 8, 2), 'ego', 2, class_names=('car', 'road', 'free'))
TINY = VoxelGrid((0, 0, 0, 3, 2, 2), 1.0, (3, 2, 2), 'lidar', 0, class_names=('free', 'car', 'road'))
IDS = np.arange(12).reshape(3, 2, 2) % 3


@pytest.fixture
def labels():
    volume = np.full((200, 200, 16), 17, np.uint8)
    volume[:, 90:110, 0], volume[120:130, 95:99, 1:4] = 11, 4
    return volume


def test_occ3d(labels, tmp_path):
    mask = np.zeros_like(labels)
    mask[50:] = 1
    write_occ3d_label(tmp_path / 'labels.npz', labels, mask, mask)
    volume = read_label_volume(tmp_path / 'labels.npz', GRIDS)
    np.testing.assert_array_equal(volume.labels, labels)
    assert volume.grid_name == 'occ3d' and volume.grid == GRIDS['occ3d'] and not volume.is_prediction
    assert volume.labels.dtype == np.uint8 and volume.mask_camera.dtype == bool and volume.mask_camera.sum() == mask.sum()


@pytest.mark.parametrize(
    'key, prediction', [('pred', True), (None, True), ('semantics', False), ('somebody_elses_name', False)]
)
def test_keys(key, prediction, labels, tmp_path):
    arrays = dict(arr_0=labels) if key is None else {key: labels.astype(np.int64)}
    np.savez_compressed(tmp_path / 'a.npz', **arrays)
    volume = read_label_volume(tmp_path / 'a.npz', GRIDS)
    np.testing.assert_array_equal(volume.labels, labels)
    assert volume.is_prediction is prediction and volume.mask_camera is None


def test_surroundocc_rows(tmp_path):
    grid = GRIDS['surroundocc']
    labels = np.zeros(grid.shape, np.uint8)
    labels[:, 90:110, 8], labels[3, 4, 5], labels[10, 10, 10] = 11, 4, 255
    write_surroundocc_label(tmp_path / 'a.npy', labels, grid)
    volume = read_label_volume(tmp_path / 'a.npy', GRIDS)
    assert volume.grid_name == 'surroundocc'
    np.testing.assert_array_equal(volume.labels, labels)


def test_dense_arrays_of_floats(tmp_path):
    grid = GRIDS['sscbench-kitti360']
    labels = np.zeros(grid.shape, np.float32)
    labels[:, :, 3], labels[0] = 18, 255
    np.save(tmp_path / '000010_1_1.npy', labels)
    volume = read_label_volume(tmp_path / '000010_1_1.npy', GRIDS)
    assert volume.grid_name == 'sscbench-kitti360'
    np.testing.assert_array_equal(volume.labels, labels)


def test_raw_sscbench(tmp_path):
    raw = np.zeros((256, 256, 32), '<u2')
    raw[1, 2, 3], raw[4, 5, 6], raw[7, 8, 9] = 10, 252, 1  # car, moving car, of no class
    invalid = np.zeros(raw.shape, 'u1')
    invalid[9] = 1
    (tmp_path / '000010.label').write_bytes(raw.tobytes())
    without = read_label_volume(tmp_path / '000010.label', GRIDS)
    assert without.grid_name == 'sscbench-kitti360' and (without.labels == 255).sum() == 1
    assert without.labels[1, 2, 3] == without.labels[4, 5, 6] == 1 and without.labels[7, 8, 9] == 255
    (tmp_path / '000010.invalid').write_bytes(invalid.tobytes())
    assert (read_label_volume(tmp_path / '000010.label', GRIDS).labels == 255).sum() == 1 + 256 * 32
    (tmp_path / '000010.invalid').write_bytes(b'12')
    with pytest.raises(ValueError, match='000010.invalid. has 2 bytes'):
        read_label_volume(tmp_path / '000010.label', GRIDS)
    (tmp_path / 'short.label').write_bytes(b'1234')
    with pytest.raises(ValueError, match='short.label. has 4 bytes'):
        read_label_volume(tmp_path / 'short.label', GRIDS)


def test_errors(labels, tmp_path):
    with pytest.raises(FileNotFoundError, match='absent.npz'):
        read_label_volume(tmp_path / 'absent.npz', GRIDS)
    (tmp_path / 'text.npz').write_text('nothing')
    with pytest.raises(ValueError, match='text.npz'):
        read_label_volume(tmp_path / 'text.npz', GRIDS)
    np.savez(tmp_path / 'keys.npz', a=np.zeros(3), b=np.zeros((2, 2, 2)), c=np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match=r"keys.npz.*\['a', 'b', 'c'\]"):
        read_label_volume(tmp_path / 'keys.npz', GRIDS)
    np.savez(tmp_path / 'logits.npz', pred=np.full((200, 200, 16), 0.5, np.float32))
    with pytest.raises(ValueError, match='logits.npz.*0.5'):
        read_label_volume(tmp_path / 'logits.npz', GRIDS)
    np.savez(tmp_path / 'small.npz', pred=np.zeros((8, 8, 2), np.uint8))
    with pytest.raises(ValueError, match=r'small.npz.*\(8, 8, 2\).*--preset'):
        read_label_volume(tmp_path / 'small.npz', GRIDS)
    assert read_label_volume(tmp_path / 'small.npz', {'mine': SMALL}).grid_name == 'mine'
    np.savez(tmp_path / 'ids.npz', semantics=np.full((8, 8, 2), 9, np.uint8))
    with pytest.raises(ValueError, match=r"ids.npz.*'mine'.*\b9\b"):
        read_label_volume(tmp_path / 'ids.npz', {'mine': SMALL})
    np.savez(tmp_path / 'mask.npz', semantics=np.zeros((8, 8, 2), np.uint8), mask_camera=np.zeros((4, 4, 2)))
    with pytest.raises(ValueError, match=r'mask_camera.*\(4, 4, 2\)'):
        read_label_volume(tmp_path / 'mask.npz', {'mine': SMALL})


@pytest.mark.parametrize('key', ['pred', 'arr_0'])
def test_a_file_with_label_and_prediction_is_neither(tmp_path, key):
    np.savez_compressed(tmp_path / 'a.npz', semantics=IDS, **{key: IDS})
    with pytest.raises(ValueError, match=f'a.npz.*{key}|a.npz.*semantics'):
        read_prediction(tmp_path / 'a.npz', TINY)
    with pytest.raises(ValueError, match=f'a.npz.*{key}|a.npz.*semantics'):
        read_label_volume(tmp_path / 'a.npz', {'tiny': TINY})


@pytest.mark.parametrize('key', ['pred', 'arr_0', 'semantics'])
def test_prediction_as_npz(tmp_path, key):
    np.savez_compressed(tmp_path / 'a.npz', other=np.zeros(1), **{key: IDS.astype(np.int64)})
    found = read_prediction(tmp_path / 'a.npz', TINY)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, IDS)


def test_the_grid_that_a_file_tells_is_taken(tmp_path):
    surround = GRIDS['surroundocc']
    np.savez(tmp_path / 'a.npz', pred=np.zeros(surround.shape, np.uint8), **surround.to_arrays())
    volume = read_label_volume(tmp_path / 'a.npz', GRIDS)  # the shape alone would fit Occ3D's, which comes first
    assert volume.grid_name == 'surroundocc' and volume.tells_grid
    with pytest.raises(ValueError, match=r"a.npz.*'occ3d'.*free_index 0 instead of 17"):
        read_label_volume(tmp_path / 'a.npz', {'occ3d': GRIDS['occ3d']})
    with pytest.raises(ValueError, match=r'a.npz.*free_index 0 instead of 17'):
        read_prediction(tmp_path / 'a.npz', GRIDS['occ3d'])
    assert read_prediction(tmp_path / 'a.npz', surround).shape == surround.shape
    np.savez(tmp_path / 'own.npz', pred=np.zeros(SMALL.shape, np.uint8), **SMALL.to_arrays())
    volume = read_label_volume(tmp_path / 'own.npz', GRIDS, others=True)
    assert volume.grid == SMALL and volume.is_prediction
    with pytest.raises(ValueError, match='own.npz'):
        read_label_volume(tmp_path / 'own.npz', GRIDS)


def test_pictures_and_scores_take_the_same_keys(tmp_path):
    grids = {'tiny': TINY}
    np.savez(tmp_path / 'named.npz', occupancy=IDS.astype(np.uint8), mask_camera=np.ones(IDS.shape, bool), time=np.zeros(3))
    np.testing.assert_array_equal(read_prediction(tmp_path / 'named.npz', TINY), IDS)
    np.testing.assert_array_equal(read_label_volume(tmp_path / 'named.npz', grids).labels, IDS)
    np.savez(tmp_path / 'two.npz', a=IDS, b=IDS)
    np.savez(tmp_path / 'mask.npz', pred=IDS > 0)
    for name, text in (('two', r"\['a', 'b'\]"), ('mask', 'bool')):
        for read in (lambda path: read_prediction(path, TINY), lambda path: read_label_volume(path, grids)):
            with pytest.raises(ValueError, match=text):
                read(tmp_path / f'{name}.npz')


def test_prediction_as_npy(tmp_path):
    np.save(tmp_path / 'float.npy', IDS.astype(np.float32))
    index = np.argwhere(IDS != 0)
    rows = np.column_stack([index, IDS[tuple(index.T)]])
    np.save(tmp_path / 'sparse.npy', rows)
    np.save(tmp_path / 'sparse_float.npy', rows.astype(np.float32))
    for name in ('float', 'sparse', 'sparse_float'):
        np.testing.assert_array_equal(read_prediction(tmp_path / f'{name}.npy', TINY), IDS)


def test_prediction_as_raw_ids(tmp_path):
    grid = GRIDS['sscbench-kitti360']
    raw = np.zeros(grid.shape, '<u2')
    raw[1, 2, 3], raw[4, 5, 6] = 10, 252  # car, moving car
    raw.tofile(tmp_path / 'a.label')
    found = read_prediction(tmp_path / 'a.label', grid)
    assert found[1, 2, 3] == found[4, 5, 6] == 1 and found.sum() == 2
    with pytest.raises(ValueError, match='a.label'):
        read_prediction(tmp_path / 'a.label', TINY)
    raw[7, 8, 9] = 1  # of no class
    raw.tofile(tmp_path / 'b.label')
    with pytest.raises(ValueError, match=r'b.label.*\b255\b'):
        read_prediction(tmp_path / 'b.label', grid)


@pytest.mark.parametrize(
    'array',
    [
        np.zeros((3, 2, 3), np.uint8),
        np.full((3, 2, 2), 0.5),
        np.full((3, 2, 2), 3),
        np.full((3, 2, 2), -1),
        np.full((3, 2, 2), 255),
        np.array([[3, 0, 0, 1]]),
        np.array([[1.5, 0, 0, 1]]),
        np.array([[1, 0, 0, 0.7]]),
        np.array([[np.nan, 0, 0, 1]]),
        np.array([['1', '0', '0', 'car']]),
    ],
)
def test_prediction_that_does_not_fit(tmp_path, array):
    np.save(tmp_path / 'a.npy', array)
    with pytest.raises(ValueError, match="prediction: '.*a.npy'.*another benchmark.*arg-max"):
        read_prediction(tmp_path / 'a.npy', TINY)


def test_damaged_prediction(tmp_path):
    (tmp_path / 'a.npz').write_bytes(b'PK\x03\x04 cut')
    with pytest.raises(ValueError, match="prediction: '.*a.npz'"):
        read_prediction(tmp_path / 'a.npz', TINY)
    np.savez(tmp_path / 'b.npz', logits=IDS[None])
    with pytest.raises(ValueError, match=r"b.npz.*\['logits'\]"):
        read_prediction(tmp_path / 'b.npz', TINY)
