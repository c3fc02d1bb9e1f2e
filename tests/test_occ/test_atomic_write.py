import os
import stat

import pytest

from projects.occ.atomic_write import remove_old_temporaries, write_atomically


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


def test_what_killed_writers_left_is_removed(tmp_path):
    old = tmp_path / f'.epoch_1.pth.{"a" * 32}.tmp'
    young = tmp_path / f'.epoch_2.pth.{"b" * 32}.tmp'
    others = [
        tmp_path / name for name in ('epoch_1.pth', '.hidden', f'.{"a" * 32}.tmp', f'x.{"a" * 32}.tmp', f'.x.{"a" * 31}.tmp')
    ]
    for path in (old, young, *others):
        path.write_bytes(b'1234')
        os.utime(path, (0, 0) if path != young else None)
    (tmp_path / f'.link.{"c" * 32}.tmp').symlink_to(tmp_path / 'epoch_1.pth')
    assert remove_old_temporaries(tmp_path, 3600) == 4
    assert not old.exists() and young.exists() and all(path.exists() for path in others)
    assert remove_old_temporaries(tmp_path, 0) == 4 and not young.exists()
