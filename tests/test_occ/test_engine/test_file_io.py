import os

import pytest
from toy_occupancy import train, write_config

from projects.occ.engine.errors import WorkDirError
from projects.occ.engine.file_io import AtomicLocalBackend, check_writable, only_training


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


def test_two_trainings_in_one_folder_are_refused(tmp_path, capfd):
    config = write_config(tmp_path)
    work_dir = tmp_path / 'work_toy'
    work_dir.mkdir()
    left = work_dir / f'.epoch_9.pth.{"0" * 32}.tmp'
    left.write_bytes(bytes(100))
    with only_training(work_dir):
        assert not left.exists()
        left.write_bytes(b'of the running one')
        assert train(config, '--cfg-options', 'train_cfg.max_epochs=1') == 1
        last = capfd.readouterr().err.strip().split('\n')[-1]
        assert last.startswith('error: another training is running in') and f'process {os.getpid()}' in last
        assert left.exists() and not list(work_dir.glob('*.pth'))
    assert train(config, '--cfg-options', 'train_cfg.max_epochs=1') == 0
    assert not list(work_dir.glob('.*')) and list(work_dir.glob('*.pth'))
