import os

import pytest

from projects.preparation.parallel import map_jobs


def square(number):
    if number < 0:
        raise ValueError(f'{number} is negative')
    return number * number, os.getpid()


@pytest.mark.parametrize('workers', [1, 3])
def test_results_keep_their_order(workers, capsys):
    results = map_jobs(square, list(range(50)), workers, 'squaring')
    assert [value for value, _ in results] == [number * number for number in range(50)]
    assert (os.getpid() in {process for _, process in results}) == (workers == 1)
    shown = capsys.readouterr()
    assert 'squaring' in shown.err and shown.out == ''


@pytest.mark.parametrize('workers', [1, 2])
def test_an_error_ends_the_work(workers):
    with pytest.raises(ValueError, match='-5 is negative'):
        map_jobs(square, [1, 2, -5, 3], workers, 'squaring')


def test_few_jobs_and_few_workers():
    assert map_jobs(square, [], 4, 'squaring') == []
    assert map_jobs(square, [3], 4, 'squaring') == [(9, os.getpid())]
    with pytest.raises(ValueError, match='--workers must be at least 1, got 0'):
        map_jobs(square, [1], 0, 'squaring')
