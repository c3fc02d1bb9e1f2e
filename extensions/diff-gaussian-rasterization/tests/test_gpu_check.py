"""The script for GPU machines, as far as it goes without one."""

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

# a grandchild that keeps the pipe open, as compute-sanitizer's targets do
FORKS = 'import subprocess, sys; subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).wait()'


@pytest.fixture(scope='module')
def gpu_check():
    spec = importlib.util.spec_from_file_location('gpu_check', HERE / 'gpu_check.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_limit_ends_grandchildren(gpu_check, tmp_path):
    start = time.monotonic()
    with pytest.raises(gpu_check.Failure, match='stopped after 1 s'):
        gpu_check.run([sys.executable, '-c', FORKS], tmp_path, 1)
    assert time.monotonic() - start < 20


def test_the_short_steps_are_planned_within_a_quarter_of_an_hour(gpu_check):
    steps = [gpu_check.STEPS[name] for name in gpu_check.GROUPS['short']]
    assert sum(step.planned for step in steps) < 15 * 60
    assert all(step.planned <= step.limit <= 540 for step in gpu_check.STEPS.values())


def test_the_page_names_failures_and_compares_with_peers(gpu_check, tmp_path):
    times = dict(ours=(1.0, 2.0), gsplat=(3.0, 9.0))
    rows = [
        dict(
            case='peers half',
            gradients='everything',
            method=method,
            milliseconds=dict(forward=dict(median=forward), backward=dict(median=backward)),
        )
        for method, (forward, backward) in times.items()
    ]
    (tmp_path / 'rasterizer_cuda_peers.json').write_text(json.dumps(dict(results=rows)))
    path = tmp_path / 'rasterizer_cuda_check.json'
    gpu_check.save(path, 'compare', dict(ok=True, seconds=3.0))
    gpu_check.save(path, 'test', dict(ok=False, seconds=4.0, error='first\nlast line'))
    assert set(json.loads(path.read_text())['steps']) == {'compare', 'test'}
    page = (tmp_path / 'rasterizer_cuda_page.md').read_text()
    assert 'compare: passed' in page and 'test: FAILED in 4 s. last line' in page
    assert 'gsplat 12.000 | 4.00 |' in page


@pytest.mark.slow
def test_rehearsal(gpu_check, tmp_path):
    """Every step starts and leaves a result on a machine without a GPU."""
    command = [sys.executable, HERE / 'gpu_check.py', '--rehearse', '--build', tmp_path / 'build', '--out', tmp_path / 'out']
    result = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    steps = json.loads((tmp_path / 'out/rasterizer_cuda_check.json').read_text())['steps']
    assert list(steps) == gpu_check.GROUPS['short']
    assert all(step['ok'] for step in steps.values())
    assert 'planned: ' in result.stdout and 'compare: passed' in (tmp_path / 'out/rasterizer_cuda_page.md').read_text()
