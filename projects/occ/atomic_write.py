"""Files that appear under their name only when they are complete."""

import os
import re
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import IO


def write_atomically(path: str | os.PathLike, write: Callable[[IO[bytes]], object]) -> None:
    """Writes a file through a temporary neighbour that takes its name when it is complete.

    Args:
        path: File to write; its folder is made if missing.
        write: Gets the open binary file and writes the contents.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # opened by name rather than by mkstemp, which would make a file that only its owner may read
    temporary = path.with_name(f'.{path.name}.{uuid.uuid4().hex}.tmp')
    try:
        with open(temporary, 'xb') as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(path)  # a full disk does not say whose bytes had no room
        raise


def remove_old_temporaries(folder: str | os.PathLike, seconds: float) -> int:
    """Removes what writers left behind that were killed: temporary files of :func:`write_atomically` in a folder.

    Args:
        folder: The folder, without those in it.
        seconds: Only files that nobody has written to for so long; 0 where no other process writes.

    Returns:
        Number of bytes that became free.
    """
    freed, oldest = 0, time.time() - seconds
    for entry in os.scandir(folder):
        if re.fullmatch(r'\..+\.[0-9a-f]{32}\.tmp', entry.name) and entry.is_file(follow_symlinks=False):
            found = entry.stat(follow_symlinks=False)
            if found.st_mtime <= oldest:
                os.unlink(entry.path)
                freed += found.st_size
    return freed
