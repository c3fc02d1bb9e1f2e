import numpy as np
import pytest

from projects.occ.evaluation.ray_origin_files import read_ray_origins, write_ray_origins

ORIGINS = {'b': np.array([[1.0, 2, 3], [4, 5, 6]]), 'a': np.array([[0.1, 0.2, 0.3]])}


def test_round_trip(tmp_path):
    path = tmp_path / 'deep' / 'ray_origins_val.npz'
    write_ray_origins(path, ORIGINS)
    found = read_ray_origins(path)
    assert list(found) == ['b', 'a']
    for token, points in ORIGINS.items():
        np.testing.assert_array_equal(found[token], points)
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file) == ['frame', 'offsets', 'origins', 'tokens']
        assert file['offsets'].tolist() == [0, 2, 3] and str(file['frame']) == 'ego'


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match='RayIoU origins.*absent.npz.*docs/evaluation.md, "RayIoU"'):
        read_ray_origins(tmp_path / 'absent.npz')
    write_ray_origins(tmp_path / 'lidar.npz', ORIGINS, 'lidar')
    with pytest.raises(ValueError, match='these origins are in the lidar frame, but the voxel grid is in the ego frame'):
        read_ray_origins(tmp_path / 'lidar.npz')
    assert len(read_ray_origins(tmp_path / 'lidar.npz', 'lidar')) == 2
    (tmp_path / 'text.npz').write_text('hello')
    np.savez(tmp_path / 'other.npz', pred=np.zeros(3))
    for name in ('text', 'other'):
        with pytest.raises(ValueError, match=rf'{name}\.npz'):
            read_ray_origins(tmp_path / f'{name}.npz')
    content = bytearray((tmp_path / 'lidar.npz').read_bytes())
    for start in range(0, len(content), 11):
        (tmp_path / 'damaged.npz').write_bytes(content[:start] + bytes(11) + content[start + 11 :])
        try:
            assert len(read_ray_origins(tmp_path / 'damaged.npz', 'lidar')) == 2
        except ValueError as error:
            assert 'damaged.npz' in str(error)
    arrays = dict(np.load(tmp_path / 'lidar.npz'))
    np.savez(tmp_path / 'short.npz', **{**arrays, 'origins': arrays['origins'][:2]})
    with pytest.raises(ValueError, match='tokens, origins and offsets do not fit together'):
        read_ray_origins(tmp_path / 'short.npz', 'lidar')
