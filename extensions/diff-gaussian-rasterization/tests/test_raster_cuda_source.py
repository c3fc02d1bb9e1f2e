"""The CUDA source without a GPU: it compiles and registers, and its kernels render the right pictures on the processor."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

CHECK_CUDA = """
import torch, gaussian_rasterization as g
config = g.build_config()
assert config['cuda'] and config['cpu'] and config['default']['cuda'] == 'cuda', config
assert config['cuda_archs'] == '8.0 9.0' and config['cuda_obstacle'] is None, config
for name in ('render', 'render_backward'):
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f'gaussian_rasterization::{name}', 'CUDA'), name
"""


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(command, folder, **variables):
    """Run Python with the package of ``folder`` in front of the installed one."""
    environment = dict(os.environ, PYTHONPATH=str(folder), OMP_NUM_THREADS='1', **variables)
    result = subprocess.run([sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    return result.stdout


@pytest.mark.slow
def test_cuda_source_compiles_and_registers(tmp_path):
    """Build in a copy of the sources; the library has to load where there is no GPU."""
    if torch.version.cuda is None:
        pytest.skip('this PyTorch was built without CUDA')
    toolkit = os.environ.get('CUDA_HOME') or '/usr/local/cuda'
    if not (shutil.which('nvcc') or (Path(toolkit) / 'bin/nvcc').exists()):
        pytest.skip('no nvcc')
    source, out = tmp_path / 'source', tmp_path / 'out'
    source.mkdir()
    for name in ('csrc', 'gaussian_rasterization'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('*.so', '__pycache__'))
    for name in ('setup.py', 'pyproject.toml', 'README.md'):
        shutil.copy(ROOT / name, source)
    environment = dict(os.environ, TORCH_CUDA_ARCH_LIST='8.0;9.0', FORCE_CUDA='1')
    environment.pop('WITH_CUDA', None)
    command = [sys.executable, 'setup.py', 'build_ext', '--build-lib', str(out), '--build-temp', str(tmp_path / 'objects')]
    result = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    if 'but PyTorch was built with CUDA' in result.stderr:
        pytest.skip(result.stderr.strip().splitlines()[-1])
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]
    for path in (ROOT / 'gaussian_rasterization').glob('*.py'):
        shutil.copy(path, out / 'gaussian_rasterization')
    _run(['-c', CHECK_CUDA], out)


@pytest.mark.slow
def test_kernels_on_the_host(tmp_path):
    """The tests of the backends against the reference, with the CUDA kernels in the place of the CPU backend.

    Covers indexing, barriers, shuffles and arithmetic; not races between barriers, nor anything of the GPU itself.
    """
    if os.name != 'posix' or not shutil.which(os.environ.get('CXX', 'c++')):
        pytest.skip('no C++ compiler')
    folder = tmp_path / 'copy'
    _load(ROOT / 'tests/cuda_on_host/build.py').build(folder)
    chosen = {
        'test_raster_backends.py': 'random_scenes and cpu-0 or random_scenes and cpu-1 or gradient_rows or opcheck',
        'test_raster_behaviour.py': 'cpu and not huge',
        'test_raster_gradients.py': 'cpu',
    }
    for name, expression in chosen.items():
        test = ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--import-mode=importlib', str(ROOT / 'tests' / name)]
        output = _run([*test, '-k', expression], folder)
        assert ' passed' in output and 'failed' not in output, output
    library = _run(['-c', 'import gaussian_rasterization as g; print(g.build_config()["library"])'], folder)
    assert str(folder) in library
