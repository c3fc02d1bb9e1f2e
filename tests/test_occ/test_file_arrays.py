import numpy as np
import pytest

from projects.occ.file_arrays import load_arrays, read_bytes


def test_arrays_of_both_kinds_of_files(tmp_path):
    values = np.arange(6).reshape(2, 3)
    np.save(tmp_path / 'a.npy', values)
    np.savez_compressed(tmp_path / 'b.npz', one=values, two=values > 2)
    assert np.array_equal(load_arrays(tmp_path / 'a.npy', 'file', 'x')[''], values)
    arrays = load_arrays(str(tmp_path / 'b.npz'), 'file', 'x')
    assert sorted(arrays) == ['one', 'two'] and np.array_equal(arrays['two'], values > 2)
    assert read_bytes(tmp_path / 'a.npy', 'file', 'x') == (tmp_path / 'a.npy').read_bytes()


@pytest.mark.parametrize('read', [read_bytes, load_arrays])
def test_what_is_missing_is_named_with_the_remedy(tmp_path, read):
    with pytest.raises(FileNotFoundError, match=r"map of frame 7: '.*gone\.npy'.*; draw it again$"):
        read(tmp_path / 'gone.npy', 'map of frame 7', 'draw it again')
    with pytest.raises(FileNotFoundError, match='map of frame 7'):
        read(tmp_path, 'map of frame 7', 'draw it again')


@pytest.mark.parametrize('suffix', ['.npy', '.npz'])
@pytest.mark.parametrize('share', [0.0, 0.3, 0.7, 0.98])
def test_truncated_files(tmp_path, suffix, share):
    path = tmp_path / f'x{suffix}'
    values = np.random.default_rng(0).integers(0, 256, (20, 20)).astype(np.uint8)
    np.save(path, values) if suffix == '.npy' else np.savez_compressed(path, values=values)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=rf"map: '.*x\{suffix}' \({int(len(data) * share)} bytes\).*; draw it again$"):
        load_arrays(path, 'map', 'draw it again')


def test_any_damage_is_a_named_error_or_harmless(tmp_path):
    values = np.arange(12)
    np.savez_compressed(tmp_path / 'c.npz', values=values)
    content = (tmp_path / 'c.npz').read_bytes()
    # anywhere: headers of the archive, compressed bytes, directory
    for start in range(0, len(content), 7):
        (tmp_path / 'c.npz').write_bytes(content[:start] + bytes(7) + content[start + 7 :])
        try:
            arrays = load_arrays(tmp_path / 'c.npz', 'map', 'draw it again')
        except ValueError as error:
            assert "c.npz'" in str(error)
        else:
            assert all(np.array_equal(array, values) for array in arrays.values())


def test_nothing_is_unpickled(tmp_path):
    np.save(tmp_path / 'x.npy', np.array([{'a': 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match='x.npy'):
        load_arrays(tmp_path / 'x.npy', 'map', 'draw it again')
    (tmp_path / 'text.npz').write_text('nothing')
    with pytest.raises(ValueError, match='text.npz'):
        load_arrays(tmp_path / 'text.npz', 'map', 'draw it again')
