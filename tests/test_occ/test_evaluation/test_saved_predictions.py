import pytest

from projects.occ.evaluation.saved_predictions import index_predictions, match_predictions


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


def test_matching(tmp_path):
    predictions = {name: tmp_path / name for name in ('t1', 's/t2', 'x')}
    names = {'t2': ('t2', 's/t2'), 't1': ('t1', 's/t1', 't1'), 't3': ('t3',)}
    matched, extra = match_predictions(names, predictions)
    assert list(matched.items()) == [('t2', tmp_path / 's/t2'), ('t1', tmp_path / 't1')] and extra == ['x']
    with pytest.raises(ValueError, match='frame t1 has several predictions'):
        match_predictions({'t1': ('t1', 'x')}, predictions)
