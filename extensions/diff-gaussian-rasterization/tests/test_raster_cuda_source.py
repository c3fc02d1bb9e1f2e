"""The CUDA source without a GPU: it compiles and registers, and its kernels render the right pictures on the processor."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gaussian_rasterization import backends

ROOT = Path(__file__).resolve().parents[1]

CHECK_CUDA = """
import torch, gaussian_rasterization as g
config = g.build_config()
assert config['cuda'] and config['cpu'] and config['default']['cuda'] == 'cuda', config
assert config['cuda_archs'] == '8.0 9.0' and config['cuda_obstacle'] is None, config
for name in ('render', 'render_backward', 'march', 'march_backward'):
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
    figures = _load(ROOT / 'benchmarks/kernel_figures.py')
    if figures.find_tool() is None:
        pytest.skip('compiled and loaded; no cuobjdump to read figures with')
    rows = figures.read_figures(out / 'gaussian_rasterization/_C.so')
    assert {row['arch'] for row in rows} == {80, 90}
    assert len({row['kernel'] for row in rows}) > 40
    for row in rows:
        assert row['local'] == 0 and row['stack'] == 0, f'{row} spills'
        assert row['shared'] <= 48 << 10 and row['occupancy'] >= 0.25, row


COUNTS = """
import ctypes, json, sys, torch
from gaussian_rasterization import backends, rasterize
library, launches, waits = ctypes.CDLL(backends.LIBRARY), ctypes.c_long(), ctypes.c_long()
def counted():
    library.cuda_on_host_counts(ctypes.byref(launches), ctypes.byref(waits))
    return [launches.value, waits.value]
rows, scene = {}, torch.load(sys.argv[1])
for views in (1, 3, 64):
    case = dict(scene, viewmats=scene['viewmats'].expand(views, 4, 4), Ks=scene['Ks'].expand(views, 3, 3))
    case['opacities'] = scene['opacities'].clone().requires_grad_()
    counted()
    out = rasterize(**case, backend='cpu')
    rows[views] = counted()
    out.features.sum().backward()
    rows[views] += counted()
print(json.dumps(rows))
"""


@pytest.fixture(scope='module')
def kernels_on_the_host(tmp_path_factory):
    """Folder of a package whose 'cpu' backend is the CUDA source."""
    if os.name != 'posix' or not shutil.which(os.environ.get('CXX', 'c++')):
        pytest.skip('no C++ compiler')
    folder = tmp_path_factory.mktemp('emulated') / 'copy'
    _load(ROOT / 'tests/cuda_on_host/build.py').build(folder)
    return folder


@pytest.mark.slow
def test_kernels_on_the_host(kernels_on_the_host):
    """The tests of the backends against the reference, with the CUDA kernels in the place of the CPU backend.

    Covers indexing, barriers, votes, shuffles and arithmetic; not races between barriers, nor anything of the GPU itself.
    """
    chosen = {
        'test_raster_backends.py': 'random_scenes and cpu-0 or random_scenes and cpu-1 or (gradient_rows or opcheck or state '
        'or culling or views_of_one_call or lists_without or compile) and not cuda',
        'test_raster_behaviour.py': 'cpu and not huge',
        'test_raster_gradients.py': 'cpu',
        'test_march_backends.py': 'cpu and not order_of_rays and not large_grid or opcheck or operator_checks',
        'test_march_behaviour.py': 'cpu',
        'test_march_golden.py': 'cpu',
    }
    for name, expression in chosen.items():
        test = ['-m', 'pytest', '-q', '-p', 'no:cacheprovider', '--import-mode=importlib', str(ROOT / 'tests' / name)]
        output = _run([*test, '-k', expression], kernels_on_the_host)
        assert ' passed' in output and 'failed' not in output, output
    library = _run(['-c', 'import gaussian_rasterization as g; print(g.build_config()["library"])'], kernels_on_the_host)
    assert str(kernels_on_the_host) in library


@pytest.mark.slow
def test_one_wait_per_call(kernels_on_the_host, make_scene, tmp_path):
    """The host waits once forward and never backward, for any number of views; launches of the forward pass do not grow."""
    torch.save(make_scene(0, count=60, width=50, height=30), tmp_path / 'scene.pt')
    rows = json.loads(_run(['-c', COUNTS, str(tmp_path / 'scene.pt')], kernels_on_the_host))
    for views, (forward, forward_waits, backward, backward_waits) in rows.items():
        assert (forward_waits, backward_waits) == (1, 0)
        assert forward == 12 and backward == 1 + int(views)  # blending once, then one sum of rows per view


@pytest.mark.slow
def test_full_size_scene_on_the_host(kernels_on_the_host, tmp_path):
    """100 000 Gaussians in 1600 x 900 pixels: near ones that meet thousands of tiles, lists of hundreds of entries."""
    if not backends.AVAILABLE['cpu']:
        pytest.skip(f'the cpu backend is not built: {backends.BUILD_COMMAND}')
    full_size = _load(ROOT / 'tests/full_size.py')
    cases = ('nuscenes-front-gt', 'nuscenes-front-half')
    torch.save({case: full_size.render(case, 'cpu') for case in cases}, tmp_path / 'cpu.pt')
    command = [ROOT / 'tests/full_size.py', 'compare', tmp_path / 'cpu.pt', '--cases', *cases]
    assert '"ok": true' in _run(list(map(str, command)), kernels_on_the_host).rstrip().splitlines()[-2]
