"""Registers, spills, shared memory and occupancy of every CUDA kernel of a built library; needs no GPU, only ``cuobjdump``.

    python benchmarks/kernel_figures.py build/gpu-check/gaussian_rasterization/_C.so --out work_dirs/kernels.json

A kernel whose registers spill has a stack frame or local memory; both are reported in bytes. Occupancy: blocks that fit on a
multiprocessor by registers, shared memory and warps, times their warps, over 64.
"""

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

THREADS = 256  # of a block, see cuda_common.cuh
SUM_THREADS = 384  # of view_sum_kernel
# registers, warps, blocks and shared memory of a multiprocessor (CUDA C++ Programming Guide, compute capabilities)
LIMITS = {
    80: dict(registers=65536, warps=64, blocks=32, shared=164 << 10),
    90: dict(registers=65536, warps=64, blocks=32, shared=228 << 10),
}


def find_tool(name='cuobjdump'):
    """Path of a tool of the CUDA toolkit, or None. Triton, which torch for CUDA brings along, has one of its own."""
    homes = [Path(home) / 'bin' for home in filter(None, [os.environ.get('CUDA_HOME'), '/usr/local/cuda'])]
    triton = importlib.util.find_spec('triton')
    homes += [Path(root) / 'backends/nvidia/bin' for root in (triton.submodule_search_locations if triton else [])]
    return shutil.which(name, path=os.pathsep.join([os.environ.get('PATH', ''), *map(str, homes)]))


def occupancy(arch, registers, shared, threads):
    """Share of the warps of a multiprocessor that can be resident. Registers are given to warps in pieces of 256, shared memory
    in pieces of 128 bytes with 1 KiB more for every block."""
    limit, warps = LIMITS[arch], threads // 32
    per_warp = -(-registers * 32 // 256) * 256
    by_registers = limit['registers'] // per_warp // warps if per_warp else limit['blocks']
    by_shared = limit['shared'] // (-(-shared // 128) * 128 + 1024)
    return min(by_registers, by_shared, limit['warps'] // warps, limit['blocks']) * warps / limit['warps']


def short_name(demangled):
    """``blend_kernel<20>`` of a demangled signature."""
    match = re.search(r'([a-z_]+_kernel)(<.*?>)?\(', demangled)
    if match is None:
        return None
    arguments = re.sub(r'\(\w+( \w+)*\)|\s', '', match[2] or '').replace('true', '1').replace('false', '0')
    return match[1] + arguments


def read_figures(library):
    """Rows of figures, one per kernel of ours and architecture, from the machine code in a library.

    Raises:
        RuntimeError: If ``cuobjdump`` is missing or finds no machine code.
    """
    tool = find_tool()
    if tool is None:
        raise RuntimeError('cuobjdump is missing: it comes with the CUDA toolkit; put its bin folder on PATH or set CUDA_HOME')
    text = subprocess.run([tool, '--dump-resource-usage', str(library)], capture_output=True, text=True, check=True).stdout
    rows, arch, mangled = [], None, []
    for line in text.splitlines():
        if found := re.search(r'arch = sm_(\d+)', line):
            arch = int(found[1])
        elif found := re.search(r'Function (\S+):', line):
            mangled.append(found[1])
        elif found := re.search(r'REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)', line):
            rows.append((arch, *map(int, found.groups())))
    names = subprocess.run(
        ['c++filt'], input='\n'.join(mangled), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    figures = []
    for name, (arch, registers, stack, shared, local) in zip(names, rows, strict=True):
        kernel = short_name(name) if 'gaussian_rasterization' in name else None
        if kernel is None or arch not in LIMITS or 'cub::' in name.split('(')[0]:
            continue
        threads = SUM_THREADS if kernel.startswith('view_sum') else THREADS
        # the C runtime keeps 1 KiB of shared memory for itself from sm_90 on; cuobjdump counts it
        static = shared - 1024 if arch >= 90 and shared >= 1024 else shared
        figures.append(
            dict(kernel=kernel, arch=arch, registers=registers, stack=stack, local=local, shared=static,
                 occupancy=occupancy(arch, registers, static, threads))
        )  # fmt: skip
    if not figures:
        raise RuntimeError(f'{library} holds no kernel for sm_80 or sm_90: build it with TORCH_CUDA_ARCH_LIST="8.0;9.0"')
    return sorted(figures, key=lambda row: (row['arch'], row['kernel']))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('library', type=Path)
    parser.add_argument('--out', type=Path)
    args = parser.parse_args()
    figures = read_figures(args.library)
    for row in figures:
        print(
            'sm_{arch} {kernel:42} {registers:4} registers {stack:4} B stack {shared:6} B shared {occupancy:5.0%}'.format(**row)
        )
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile('w', dir=args.out.parent, delete=False) as file:
            json.dump(figures, file, indent=1)
        os.chmod(file.name, 0o644)
        os.replace(file.name, args.out)


if __name__ == '__main__':
    main()
