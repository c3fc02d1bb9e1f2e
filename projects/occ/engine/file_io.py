"""The folder and the files that a run writes to."""

import contextlib
import fcntl
import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from projects.occ.atomic_write import remove_old_temporaries, write_atomically

from .errors import WorkDirError

PathLike = str | os.PathLike
LOCK = '.training'
_OLD = 24 * 3600  # seconds: no file takes as long to write


def check_writable(directory: PathLike, option: str) -> None:
    """Makes a directory and proves that files can be written to it.

    Args:
        directory: Directory that a run is going to write to.
        option: Command-line option or config key that chooses it, named in the message.

    Raises:
        WorkDirError: If the directory cannot be made or written.
    """
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory):
            pass
        remove_old_temporaries(directory, _OLD)
    except OSError as error:
        raise WorkDirError(
            f'cannot write to {os.fspath(directory)!r} ({error.strerror or error}); choose a writable directory with {option}'
        ) from error


@contextlib.contextmanager
def only_training(work_dir: PathLike) -> Iterator[None]:
    """Holds a work directory while a training runs, and removes the temporary files of killed ones before.

    The lock is one of the operating system, so that it ends with the process, however that ends.

    Args:
        work_dir: The directory; it exists.

    Raises:
        WorkDirError: If another training holds it.
    """
    path = Path(work_dir) / LOCK
    with open(path, 'a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise WorkDirError(
                f'another training is running in {os.fspath(work_dir)!r} ({file.read(200).strip() or "process unknown"}), and '
                'each would overwrite the checkpoints of the other; choose another directory with --work-dir'
            ) from None
        except OSError:  # a file system without locks
            yield
            return
        if not path.is_file() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise WorkDirError(f'another training in {os.fspath(work_dir)!r} ended this very moment; start again')
        file.truncate(0)
        file.write(f'process {os.getpid()} on {platform.node()}')
        file.flush()
        remove_old_temporaries(work_dir, 0)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


class AtomicLocalBackend(LocalBackend):
    """Local files for ``CheckpointHook``: writes are atomic, and removals can wait until the replacement is in place."""

    def __init__(self) -> None:
        self._depth = 0
        self._waiting: list[str] = []

    def put(self, obj: bytes, filepath: PathLike) -> None:
        """Writes bytes atomically."""
        write_atomically(filepath, lambda file: file.write(obj))

    def put_text(self, obj: str, filepath: PathLike, encoding: str = 'utf-8') -> None:
        """Writes text atomically."""
        self.put(obj.encode(encoding), filepath)

    def remove(self, filepath: PathLike) -> None:
        """Removes a file, at once or at the end of the surrounding ``removals_last`` block."""
        if self._depth:
            self._waiting.append(os.fspath(filepath))
        else:
            super().remove(filepath)

    @contextlib.contextmanager
    def removals_last(self) -> Iterator[None]:
        """Postpones removals to the end of the outermost block; after an exception nothing is removed."""
        self._depth += 1
        try:
            yield
            if self._depth == 1:
                for path in self._waiting:
                    if os.path.isfile(path):
                        super().remove(path)
        finally:
            self._depth -= 1
            if not self._depth:
                self._waiting.clear()


register_backend('atomic', AtomicLocalBackend, force=True)
