"""Tells errors that explain themselves to a user from those that only a stack trace explains."""

import errno
import linecache
import re
import traceback
from pathlib import Path

import mmengine.registry
from mmengine.registry import Registry

from .config_checks import unknown_type
from .errors import OccError

_ROOT = Path(__file__).resolve().parents[3]
_WORKER = re.compile(r'Caught (\w+) in DataLoader worker process \d+\.\nOriginal Traceback')
_UNREGISTERED = re.compile(r'(\S+) is not in the (?:[^:\s]+::)?(.+?) registry\.')
_LOADER = re.compile(r'DataLoader (worker .*(killed by signal|exited unexpectedly)|timed out)')
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_FRAME = re.compile(r'^  File "(.+?)", line \d+.*\n    (.*)$', re.MULTILINE)


def user_message(error: BaseException) -> str | None:
    """The message of an error that this code base raised on purpose, wherever it was on the way.

    Such errors name what was expected, what came and what to do; their stack trace adds nothing. They are known by the
    ``raise`` statement that they come from. Errors of libraries, and of operations that fail by themselves, need the trace, but
    for four that everybody meets: a full disk, a misspelt ``type``, a logging back end that is not installed, a dead worker.

    Args:
        error: A caught exception, also one that a data loader brings from a worker process.

    Returns:
        The message, or None if the stack trace is needed.
    """
    if isinstance(error, OccError):
        return str(error)
    from_worker = _WORKER.match(str(error))
    if from_worker:
        return _message_from_worker(str(error), from_worker[1])
    frames = traceback.extract_tb(error.__traceback__)
    known = _message_of_library(error, frames)
    if known:
        return known
    if not frames or not _raised_here(frames[-1].filename, linecache.getline(frames[-1].filename, frames[-1].lineno or 0)):
        return None
    # str() of a KeyError adds quotes
    return str(error.args[0]) if len(error.args) == 1 else str(error)


def interrupted(error: BaseException | None) -> bool:
    """Whether an error is Ctrl-C, or what a library made of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


def _message_of_library(error: BaseException, frames: traceback.StackSummary) -> str | None:
    if isinstance(error, OSError) and error.errno in _DISK:
        return f'cannot write {error.filename or "a file"} ({error.strerror}); make room, then go on (a training with --resume)'
    unregistered = _UNREGISTERED.search(str(error)) if isinstance(error, KeyError) else None
    if unregistered:
        name, kind = unregistered.groups()
        found = [r for r in vars(mmengine.registry).values() if isinstance(r, Registry) and r.name == kind]
        return unknown_type(name.strip('\'"'), found[0]) if found else None
    if isinstance(error, RuntimeError) and _LOADER.search(str(error)):
        reason = str(error).split('. ')[0].rstrip('.')
        return (
            f'{reason}. A loader worker was killed or hangs: mostly it lacked memory, or shared memory (/dev/shm; for a '
            'container docker run --shm-size=16g or --ipc=host), or a disk does not answer. num_workers=0 of the data loader '
            'loads in the main process; its timeout (seconds) is a key beside it'
        )
    if isinstance(error, ImportError) and frames and Path(frames[-1].filename).name == 'vis_backend.py':
        return f'{error}. The back end is one of visualizer.vis_backends; requirements/optional.txt names what it needs'
    return None


def _message_from_worker(text: str, kind: str) -> str | None:
    frames = list(_FRAME.finditer(text))
    if not frames or not _raised_here(frames[-1][1], frames[-1][2]):
        return None
    message = re.search(rf'^(?:\w+\.)*{kind}: (.*)', text[frames[-1].end() :], re.MULTILINE | re.DOTALL)
    return message[1].strip() if message else None


def _raised_here(filename: str, line: str) -> bool:
    path = Path(filename)
    ours = any(path.is_relative_to(_ROOT / folder) for folder in ('projects', 'tools', 'extensions'))
    return (ours or 'gaussian_rasterization' in path.parts) and line.strip().startswith('raise ')
