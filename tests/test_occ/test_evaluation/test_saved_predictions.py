import numpy as np
import pytest

from projects.occ.evaluation.saved_predictions import index_predictions, match_predictions, read_prediction
from projects.occ.structures import VoxelGrid

GRID = VoxelGrid((0, 0, 0, 3, 2, 2), 1.0, (3, 2, 2), 'lidar', 0, class_names=('free', 'car', 'road'))
LABELS = np.arange(12).reshape(3, 2, 2) % 3


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'')


def test_names_of_files(tmp_path):
    touch(
        tmp_path,
        *('abc.npz', 'scene-1/def.npz', 'scene-1/ghi/labels.npz', 'n015__LIDAR_TOP__1.pcd.bin.npy', 'notes.txt'),
        *('sequences/09/predictions/000005.label', 'drive/000010_1_1.npy', 'drive/voxels/000015.label', 'labels.npz'),
    )
    found = index_predictions(tmp_path)
    assert sorted(found) == [
        '09/000005',
        'abc',
        'drive/000010',
        'drive/000015',
        'labels',
        'n015__LIDAR_TOP__1.pcd.bin',
        'scene-1/def',
        'scene-1/ghi',
    ]
    assert found['scene-1/ghi'] == tmp_path / 'scene-1' / 'ghi' / 'labels.npz'


def test_index_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match='folder of predictions .*absent. does not exist'):
        index_predictions(tmp_path / 'absent')
    with pytest.raises(FileNotFoundError, match='has no .npz, .npy, .label file'):
        index_predictions(tmp_path)
    touch(tmp_path, 'a.npz', 'a.npy')
    with pytest.raises(ValueError, match="two predictions are named 'a': .*a.npy.* and .*a.npz"):
        index_predictions(tmp_path)


@pytest.mark.parametrize('key', ['pred', 'arr_0', 'semantics'])
def test_npz(tmp_path, key):
    np.savez_compressed(tmp_path / 'a.npz', other=np.zeros(1), **{key: LABELS.astype(np.int64)})
    found = read_prediction(tmp_path / 'a.npz', GRID)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, LABELS)


def test_npy_dense_and_sparse(tmp_path):
    np.save(tmp_path / 'float.npy', LABELS.astype(np.float32))
    index = np.argwhere(LABELS != 0)
    rows = np.column_stack([index, LABELS[tuple(index.T)]])
    np.save(tmp_path / 'sparse.npy', rows)
    np.save(tmp_path / 'sparse_float.npy', rows.astype(np.float32))
    for name in ('float', 'sparse', 'sparse_float'):
        np.testing.assert_array_equal(read_prediction(tmp_path / f'{name}.npy', GRID), LABELS)


def test_raw_ids(tmp_path):
    (10 * LABELS).astype('<u2').tofile(tmp_path / 'a.label')
    np.testing.assert_array_equal(read_prediction(tmp_path / 'a.label', GRID, lambda raw, origin: raw // 10), LABELS)
    with pytest.raises(ValueError, match='.label files belong to SSCBench'):
        read_prediction(tmp_path / 'a.label', GRID)
    (tmp_path / 'b.label').write_bytes(b'123')
    with pytest.raises(ValueError, match=r'3 bytes instead of the 24 of \(3, 2, 2\) voxels'):
        read_prediction(tmp_path / 'b.label', GRID, lambda raw, origin: raw)


@pytest.mark.parametrize(
    ('array', 'message'),
    [
        (np.zeros((3, 2, 3), np.uint8), r'expected class ids of shape \(3, 2, 2\), found uint8 \(3, 2, 3\)'),
        (np.full((3, 2, 2), 0.5), r'found float64 \(3, 2, 2\); .* holds logits'),
        (np.full((3, 2, 2), 3), r'class id 3 is outside 0..2; the prediction belongs to another benchmark'),
        (np.full((3, 2, 2), -1), r'class id -1 is outside 0..2'),
        (np.array([[3, 0, 0, 1]]), r'a voxel index lies outside the grid \(3, 2, 2\)'),
        (np.array([[1.5, 0, 0, 1]]), r'expected rows of whole numbers ix, iy, iz, class, found float64 \(1, 4\)'),
        (np.array([[1, 0, 0, 0.7]]), 'expected rows of whole numbers'),
        (np.array([[np.nan, 0, 0, 1]]), 'expected rows of whole numbers'),
        (np.array([[1, 0, 0, np.inf]]), 'expected rows of whole numbers'),
        (np.array([['1', '0', '0', 'car']]), r'expected rows of whole numbers ix, iy, iz, class, found <U3 \(1, 4\)'),
    ],
)
def test_what_does_not_fit(tmp_path, array, message):
    np.save(tmp_path / 'a.npy', array)
    with pytest.raises(ValueError, match=message):
        read_prediction(tmp_path / 'a.npy', GRID)


def test_damaged_files(tmp_path):
    (tmp_path / 'a.npz').write_bytes(b'PK\x03\x04 cut')
    with pytest.raises(ValueError, match='damaged or cut short'):
        read_prediction(tmp_path / 'a.npz', GRID)
    np.savez_compressed(tmp_path / 'c.npz', pred=LABELS)
    content = bytearray((tmp_path / 'c.npz').read_bytes())
    # anywhere: headers of the archive, compressed bytes, directory
    for start in range(0, len(content), 7):
        (tmp_path / 'c.npz').write_bytes(content[:start] + bytes(7) + content[start + 7 :])
        try:
            found = read_prediction(tmp_path / 'c.npz', GRID)
        except ValueError as error:
            assert "c.npz': " in str(error)
        else:
            np.testing.assert_array_equal(found, LABELS)
    np.savez(tmp_path / 'b.npz', logits=LABELS)
    with pytest.raises(ValueError, match=r"expected one of the keys \('pred', 'arr_0', 'semantics'\), found \['logits'\]"):
        read_prediction(tmp_path / 'b.npz', GRID)


def test_matching(tmp_path):
    predictions = {name: tmp_path / name for name in ('t1', 's/t2', 'x')}
    names = {'t2': ('t2', 's/t2'), 't1': ('t1', 's/t1', 't1'), 't3': ('t3',)}
    matched, extra = match_predictions(names, predictions)
    assert list(matched.items()) == [('t2', tmp_path / 's/t2'), ('t1', tmp_path / 't1')] and extra == ['x']
    with pytest.raises(ValueError, match='frame t1 has several predictions'):
        match_predictions({'t1': ('t1', 'x')}, predictions)
