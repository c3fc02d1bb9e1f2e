"""Build of the rasteriser and the ray marcher. Nothing here runs at import time of the package.

Environment:
    BUILD_EXT=0            install the PyTorch reference only; needs neither compiler nor torch at build time.
    WITH_CUDA=0            leave the CUDA backend out.
    FORCE_CUDA=1           fail instead of leaving the CUDA backend out.
    TORCH_CUDA_ARCH_LIST   GPU architectures, for instance "8.0;9.0"; needed where no GPU is visible.
    MAX_JOBS               parallel compilers, default from processors and free memory.
"""

import glob
import importlib.util
import os
import shutil
import sys
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
PACKAGE = 'gaussian_rasterization'


def say(text):
    print(f'[{PACKAGE}] {text}', file=sys.stderr)


def find_cuda_home():
    """First candidate with both a compiler and the run-time library; ``which nvcc`` alone may be a wrapper script."""
    nvcc = shutil.which('nvcc')
    candidates = [os.environ.get('CUDA_HOME'), os.environ.get('CUDA_PATH')]
    if nvcc:
        candidates.append(str(Path(nvcc).resolve().parents[1]))
    for root in filter(None, [*candidates, '/usr/local/cuda']):
        libraries = [Path(root) / part / 'libcudart.so' for part in ('lib64', 'lib', 'targets/x86_64-linux/lib')]
        if (Path(root) / 'bin' / 'nvcc').exists() and any(path.exists() for path in libraries):
            return root
    return None


def cuda_obstacle(cuda_home):
    """Why the CUDA backend cannot be built here, or None."""
    import torch

    if not (HERE / 'csrc' / 'rasterize_cuda.cu').exists():
        return 'this version has no CUDA source'
    if os.environ.get('WITH_CUDA') == '0':
        return 'WITH_CUDA=0'
    if torch.version.cuda is None:
        return 'this PyTorch was built without CUDA'
    if cuda_home is None:
        return 'no CUDA toolkit with bin/nvcc and libcudart.so was found (set CUDA_HOME)'
    text = os.popen(f'"{cuda_home}/bin/nvcc" --version').read()
    toolkit = text.split('release ')[-1].split(',')[0] if 'release ' in text else 'unknown'
    if toolkit.split('.')[0] != torch.version.cuda.split('.')[0]:
        return f'the toolkit is CUDA {toolkit} but PyTorch was built with CUDA {torch.version.cuda}'
    if not (torch.cuda.is_available() or os.environ.get('TORCH_CUDA_ARCH_LIST') or os.environ.get('FORCE_CUDA') == '1'):
        return 'no GPU is visible and TORCH_CUDA_ARCH_LIST does not say what to build for'
    return None


def default_jobs():
    """One compiler per processor, but no more than one per 2 GiB of free memory."""
    jobs = os.cpu_count() or 1
    try:
        free = os.sysconf('SC_AVPHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
        jobs = min(jobs, max(1, free >> 31))
    except (ValueError, OSError):
        pass
    return str(jobs)


def extension():
    """Keyword arguments of ``setup`` for the compiled library."""
    if importlib.util.find_spec('torch') is None:
        raise SystemExit(
            'Building gaussian_rasterization needs the PyTorch that will load it, but torch cannot be imported here. Install '
            'torch first and use:\n    pip install --no-deps --no-build-isolation -e extensions/diff-gaussian-rasterization\n'
            'or set BUILD_EXT=0 for the PyTorch reference only.'
        )
    cuda_home = find_cuda_home()
    if cuda_home:
        # torch guesses from `which nvcc` without checking, and reads this on import
        os.environ['CUDA_HOME'] = cuda_home
    os.environ.setdefault('MAX_JOBS', default_jobs())
    os.environ.setdefault('CC', os.environ.get('CXX', 'c++'))

    from torch.utils.cpp_extension import BuildExtension, CppExtension, CUDAExtension

    obstacle = cuda_obstacle(cuda_home)
    if obstacle and os.environ.get('FORCE_CUDA') == '1':
        raise SystemExit(f'FORCE_CUDA=1, but the CUDA backend cannot be built: {obstacle}')
    say('building the CPU backend' + ('' if obstacle else ' and the CUDA backend'))
    if obstacle:
        say(f'no CUDA backend: {obstacle}')

    sources = sorted(glob.glob('csrc/*.cpp', root_dir=HERE))
    compiler = os.popen(f'{os.environ.get("CXX", "c++")} --version').readline().strip().replace(';', ',') or 'unknown'
    flags = ['-O3', '-fno-math-errno', '-fno-trapping-math', '-ffp-contract=off', '-fvisibility=hidden', '-g0', '-fopenmp']
    flags += os.environ.get('RASTER_CXXFLAGS', '').split()
    macros = [('RASTER_COMPILER', f'"{compiler}"')]
    if obstacle:
        macros.append(('RASTER_CUDA_OBSTACLE', f'"{obstacle}"'))
    arguments = dict(cxx=flags)
    kind = CppExtension
    if not obstacle:
        kind = CUDAExtension
        sources += sorted(glob.glob('csrc/*.cu', root_dir=HERE))
        macros.append(('RASTER_CUDA_ARCHS', f'"{os.environ.get("TORCH_CUDA_ARCH_LIST", "of this machine").replace(";", " ")}"'))
        arguments['nvcc'] = [
            '-O3',
            '--threads',
            '2',
            '-lineinfo',
            '--expt-relaxed-constexpr',
            # the same bits as the CPU backend; the inner loops ask for fused products by name
            '-fmad=false',
            '-Xcompiler',
            '-fvisibility=hidden',
        ]
    nvidia = importlib.util.find_spec('nvidia')
    includes = [
        path
        for root in (nvidia.submodule_search_locations if nvidia else [])
        for path in (*glob.glob(f'{root}/cu[0-9]*/include'), *glob.glob(f'{root}/*/include'))
    ]
    module = kind(
        name=f'{PACKAGE}._C',
        sources=sources,
        include_dirs=includes if not obstacle else [],
        define_macros=macros,
        extra_compile_args=arguments,
        extra_link_args=os.environ.get('RASTER_LDFLAGS', '').split(),
        py_limited_api=True,
        depends=sorted(glob.glob('csrc/*', root_dir=HERE)),
    )
    return dict(
        ext_modules=[module],
        cmdclass=dict(build_ext=BuildExtension.with_options(no_python_abi_suffix=True)),
        options=dict(bdist_wheel=dict(py_limited_api='cp310')),
    )


os.chdir(HERE)
setup(
    name='diff-gaussian-rasterization-occ',
    version='0.1.0',
    description='Differentiable Gaussian rasteriser with any number of channels',
    license='Apache-2.0',
    packages=find_packages(include=[PACKAGE]),
    python_requires='>=3.10',
    install_requires=['torch>=2.4'],
    **({} if os.environ.get('BUILD_EXT') == '0' else extension()),
)
