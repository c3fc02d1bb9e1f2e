import os
import stat

import pytest

from projects.occ.engine.errors import WorkDirError
from projects.occ.engine.file_io import AtomicLocalBackend, check_writable, write_atomically


def test_a_file_appears_complete_or_not_at_all(tmp_path):
    path = tmp_path / 'sub' / 'file.bin'
    write_atomically(path, lambda file: file.write(b'first'))
    assert path.read_bytes() == b'first'

    def fail(file):
        file.write(b'half')
        raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        write_atomically(path, fail)
    assert path.read_bytes() == b'first'
    assert os.listdir(path.parent) == ['file.bin']


def test_a_file_has_the_usual_permissions(tmp_path):
    (tmp_path / 'plain').write_text('')
    write_atomically(tmp_path / 'ours', lambda file: file.write(b''))
    assert stat.S_IMODE((tmp_path / 'ours').stat().st_mode) == stat.S_IMODE((tmp_path / 'plain').stat().st_mode)


def test_backend_removes_at_the_end_of_the_outermost_block_and_never_after_an_error(tmp_path):
    backend = AtomicLocalBackend()
    old = [tmp_path / name for name in 'abc']
    for path in old:
        backend.put_text('x', path)
    with backend.removals_last():
        backend.remove(old[0])
        with backend.removals_last():
            backend.remove(old[1])
        assert old[0].exists() and old[1].exists()
        backend.put(b'new', tmp_path / 'd')
    assert [path.exists() for path in old] == [False, False, True]
    with pytest.raises(OSError, match='full'), backend.removals_last():
        backend.remove(old[2])
        raise OSError('full')
    assert old[2].exists()
    with backend.removals_last():
        pass
    assert old[2].exists()
    backend.remove(old[2])
    assert not old[2].exists()


def test_a_folder_below_a_file_is_reported_in_one_sentence(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(WorkDirError, match=r"cannot write to '.*file/work' \(.*\); choose .* with --work-dir"):
        check_writable(tmp_path / 'file' / 'work', '--work-dir')
    check_writable(tmp_path / 'new' / 'deep', '--work-dir')
    assert os.listdir(tmp_path / 'new' / 'deep') == []
