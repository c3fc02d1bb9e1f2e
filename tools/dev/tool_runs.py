"""Our tools as steps of a longer run: each in a process of its own, its output in a log."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class ToolError(Exception):
    """A step failed; the message says which and where its log is."""


@dataclass(frozen=True)
class Usage:
    """What a step needed.

    Attributes:
        seconds: From start to end.
        peak_mib: Most memory that its process held at once, MiB.
    """

    seconds: float
    peak_mib: float


def call(log: Path, script: str, *arguments: object, threads: int | None = 1) -> Usage:
    """Runs one of our tools from the root of the repository; its output is appended to ``log``.

    Args:
        log: File, made with its folder if need be.
        script: Path of the tool below the root.
        *arguments: Of its command line.
        threads: Of PyTorch and numpy in it; None: as many as they take.

    Returns:
        Time and memory.

    Raises:
        ToolError: If it ends with another exit status than 0.
    """
    limit = {} if threads is None else {key: str(threads) for key in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')}
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, 'a') as file:
        command = [sys.executable, script, *map(str, arguments)]
        print('$', *command, file=file, flush=True)
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **limit}, stdout=file, stderr=file)
        # unlike wait() it tells the memory of this process alone
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
    if code:
        raise ToolError(f'{script} ended with exit status {code}; its output is in {log}')
    return Usage(time.monotonic() - start, usage.ru_maxrss / 1024)
