"""Work on many files in several processes, with a progress bar on stderr."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Job = TypeVar('Job')
Result = TypeVar('Result')


def map_jobs(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int, description: str, unit: str = 'frame'
) -> list[Result]:
    """``[work(job) for job in jobs]`` with a bar that shows the remaining time (none for a single job).

    Args:
        work: Function of a module, so that processes can call it. What it raises ends the work.
        jobs: Its arguments.
        workers: Number of processes; 1 works in this one.
        description: Name of the bar.
        unit: What a job is.

    Raises:
        ValueError: If ``workers`` is less than 1.
    """
    if workers < 1:
        raise ValueError(f'--workers must be at least 1, got {workers}')
    if len(jobs) < 2:
        return [work(job) for job in jobs]
    bar = {'total': len(jobs), 'desc': description, 'unit': unit, 'leave': False}
    if workers == 1:
        return [work(job) for job in tqdm(jobs, **bar)]
    with ProcessPoolExecutor(max_workers=min(workers, len(jobs))) as pool:
        # enough chunks that the bar moves and no process runs dry
        chunk = max(1, min(16, len(jobs) // (8 * workers)))
        try:
            return list(tqdm(pool.map(work, jobs, chunksize=chunk), **bar))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
