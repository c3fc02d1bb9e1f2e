"""The folder and the files that a run writes to."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from projects.occ.atomic_write import write_atomically

from .errors import WorkDirError

PathLike = str | os.PathLike


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
    except OSError as error:
        raise WorkDirError(
            f'cannot write to {os.fspath(directory)!r} ({error.strerror or error}); choose a writable directory with {option}'
        ) from error


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
