"""Build a copy of the package whose 'cpu' backend is the CUDA source, run on the processor by ``cuda_on_host.h``.

    python tests/cuda_on_host/build.py /tmp/copy      # then PYTHONPATH=/tmp/copy
    RASTER_CXXFLAGS=... adds flags, sanitizers for instance.

Only the launches, the names of the device and the includes of CUDA are replaced; kernels and host code stay as they are.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]

# the schemas ask the CPU backend for its name
KERNELS = """
#include "cpu_kernels.h"
namespace gaussian_rasterization {
const Kernels& kernels() {
  static const Kernels host = {"baseline", nullptr, nullptr, nullptr};
  return host;
}
}
"""


def closing(text, start):
    """Position of the parenthesis that closes the one at ``start``."""
    depth = 0
    for position in range(start, len(text)):
        depth += {'(': 1, ')': -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise ValueError('unbalanced parentheses')


def translate(text):
    """CUDA source -> C++ for ``cuda_on_host.h``."""
    text = re.sub(r'extern __shared__ (\w+) (\w+)\[\];', r'\1* \2 = reinterpret_cast<\1*>(host::dynamic);', text)
    text = re.sub(r'#include <(c10/cuda|cub)/.*', '', text)
    text = text.replace('.pinned_memory(true)', '')
    text = text.replace('at::kCUDA', 'at::kCPU').replace('gaussian_rasterization, CUDA, m', 'gaussian_rasterization, CPU, m')
    while (launch := re.search(r'([\w()., :?]+)<<<(.*?)>>>\(', text, re.S)) is not None:
        end = closing(text, launch.end() - 1)
        call = f'{launch[1].strip()}({text[launch.end() : end]})'
        text = f'{text[: launch.start()]} host::launch({launch[2]}, [&] {{ {call}; }}){text[end + 1 :]}'
    return '#include "cuda_on_host.h"\n' + text


def build(folder):
    """Write the package into ``folder``; takes about half a minute."""
    package, sources = Path(folder) / 'gaussian_rasterization', Path(folder) / 'csrc'
    shutil.copytree(ROOT / 'gaussian_rasterization', package, ignore=shutil.ignore_patterns('*.so', '__pycache__'))
    shutil.copytree(ROOT / 'csrc', sources)
    for path in (*sources.glob('*.cuh'), *sources.glob('*.cu')):
        path.write_text(translate(path.read_text()))
    (sources / 'kernels.cpp').write_text(KERNELS)
    torch_root = Path(torch.__file__).parent
    flags = ['-std=c++17', '-O1', '-fPIC', '-shared', '-ffp-contract=off', '-w', *os.environ.get('RASTER_CXXFLAGS', '').split()]
    flags += [f'-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}']
    flags += [f'-I{path}' for path in (HERE, torch_root / 'include', torch_root / 'include/torch/csrc/api/include')]
    files = ['-x', 'c++', *sorted(sources.glob('*.cu')), sources / 'kernels.cpp', sources / 'bindings.cpp', '-x', 'none']
    command = [os.environ.get('CXX', 'c++'), *flags, *files, f'-L{torch_root / "lib"}', '-lc10', '-ltorch', '-ltorch_cpu']
    subprocess.run([*command, '-o', package / '_C.so'], check=True)


if __name__ == '__main__':
    build(sys.argv[1])
