import io
import tracemalloc
import warnings
import zipfile

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


def member(dtype, shape, data=b''):
    """An array file that says anything about itself."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, dict(descr=dtype, fortran_order=False, shape=shape))
    return file.getvalue() + data


@pytest.mark.parametrize(
    'content',
    [
        member('<f8', (1 << 29,)),  # 4 GB
        member('<f8', (1 << 40, 1 << 40)),
        member('<f8', (-1, -8)),
        member('<f8', (1 << 40, 0)),
        member('<U0', (1 << 40,)),
        member('|V8', (1,), bytes(8)),
        member([('a', '<i4'), ('b', '<i4')], (1,), bytes(8)),
        member('|O', (1,), bytes(8)),
        member('<M8[s]', (1,), bytes(8)),
        member('<f8', (2,), bytes(8)),
        b'\x93NUMPY\x01\x00' + (9000).to_bytes(2, 'little') + b'(' * 9000,
        b'\x93NUMPY\x02\x00' + (1 << 31).to_bytes(4, 'little') + b'{',
        b'\x93NUMPY\x09\x00' + bytes(100),
    ],
)  # fmt: skip
@pytest.mark.parametrize('suffix', ['.npy', '.npz'])
def test_headers_are_looked_at_before_room_is_made(tmp_path, content, suffix):
    path = tmp_path / f'x{suffix}'
    if suffix == '.npy':
        path.write_bytes(content)
    else:
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            archive.writestr('semantics.npy', content)
    tracemalloc.start()
    with pytest.raises(ValueError, match='map: .*x.np.*draw it again'):
        load_arrays(path, 'map', 'draw it again')
    assert tracemalloc.get_traced_memory()[1] < 50 << 20
    tracemalloc.stop()


def test_arrays_that_nobody_asked_for_are_not_unpacked(tmp_path):
    path = tmp_path / 'bomb.npz'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr('semantics.npy', member('|u1', (2, 3), bytes(6)))
        archive.writestr('other.npy', member('|u1', (200 << 20,), bytes(200 << 20)))
        archive.writestr('broken.npy', b'nothing')
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    arrays = load_arrays(path, 'label', 'x', names=('semantics', 'absent'))
    assert list(arrays) == ['semantics'] and arrays['semantics'].shape == (2, 3)
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()
    with pytest.raises(ValueError, match='broken|magic'):
        load_arrays(path, 'label', 'x')


def test_archives_that_numpy_does_not_write_are_refused(tmp_path):
    path = tmp_path / 'x.npz'
    good = member('|u1', (1,), b'\1')
    for names, packing in (
        (('a.npy', 'a.npy'), 0),
        (('a',), 0),
        (('a.npy',), zipfile.ZIP_LZMA),
        (('a.npy',), zipfile.ZIP_BZIP2),
    ):
        with zipfile.ZipFile(path, 'w', packing) as archive, warnings.catch_warnings():
            warnings.simplefilter('ignore')
            for name in names:
                archive.writestr(name, good)
        with pytest.raises(ValueError, match='x.npz'):
            load_arrays(path, 'map', 'draw it again')


def test_links_in_a_circle_and_names_that_no_disk_takes(tmp_path):
    (tmp_path / 'a.npy').symlink_to(tmp_path / 'b.npy')
    (tmp_path / 'b.npy').symlink_to(tmp_path / 'a.npy')
    for name in ('a.npy', 'x' * 300, 'a\0b', 'a\ud800'):
        with pytest.raises(FileNotFoundError, match='map: .*draw it again'):
            load_arrays(f'{tmp_path}/{name}', 'map', 'draw it again')
