import os
import stat

import pytest

from projects.occ.atomic_write import write_atomically


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
