"""Prove the CUDA backend on a GPU machine, step by step; every step ends within ten minutes and can be run alone.

    python tests/gpu_check.py build test sanitize fuzz benchmark-nuscenes benchmark-kitti360 benchmark-peers

Results are added to ``OUT/rasterizer_cuda_check.json``, timings go to ``OUT/rasterizer_cuda_<part>.json`` and ``.png``. Needs a
Python with torch, numpy, pytest and matplotlib and the CUDA toolkit of that torch; no network. The library is built into a
folder of its own, and a step that finds none builds it first.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPO = ROOT.parents[1]
LIMIT = 540  # seconds per command
PROBE = (
    'import torch, gaussian_rasterization as g; c = g.build_config(); '
    'assert c["cuda"], c; assert torch.cuda.is_available(), "no GPU"; print(c["library"])'
)


class Failure(Exception):
    """A step did not end well; the text says why."""


def run(command, build, limit=LIMIT, **variables):
    """Run a command from the root of the repository, where no folder hides the built package; show and return its output."""
    environment = dict(
        os.environ, PYTHONPATH=os.pathsep.join(filter(None, [str(build), os.environ.get('PYTHONPATH')])), **variables
    )
    print('$', ' '.join(map(str, command)), flush=True)
    lines = []
    with subprocess.Popen(
        list(map(str, command)), cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        timer = threading.Timer(limit, process.kill)
        timer.start()
        for line in process.stdout:
            print(line, end='', flush=True)
            lines.append(line)
        expired = not timer.is_alive()
        timer.cancel()
    if expired:
        raise Failure(f'stopped after {limit} s: {" ".join(map(str, command))}')
    return process.returncode, ''.join(lines)


def python(build, *arguments, **options):
    status, output = run([sys.executable, *arguments], build, PYTHONUNBUFFERED='1', **options)
    if status:
        raise Failure(f'exit status {status}: {output[-2000:]}')
    return output


def step_build(args):
    """Compile both backends for the visible GPU (or TORCH_CUDA_ARCH_LIST) and load them."""
    folder = args.build / 'objects'
    command = [sys.executable, 'setup.py', 'build_ext', '--build-lib', str(args.build), '--build-temp', str(folder)]
    start = time.monotonic()
    environment = dict(os.environ, FORCE_CUDA='1')
    if subprocess.run(command, cwd=ROOT, env=environment, timeout=LIMIT).returncode:
        raise Failure('the build failed, see above')
    for path in (ROOT / 'gaussian_rasterization').glob('*.py'):
        shutil.copy(path, args.build / 'gaussian_rasterization')
    library = python(args.build, '-c', PROBE).strip().splitlines()[-1]
    if not Path(library).is_relative_to(args.build):
        raise Failure(f'{library} was loaded instead of the library in {args.build}')
    return dict(build_seconds=time.monotonic() - start)


def step_test(args):
    """Every test that is marked ``cuda``; none may be skipped for want of the backend."""
    report = python(
        args.build,
        '-m',
        'pytest',
        '-q',
        '-p',
        'no:cacheprovider',
        '--import-mode=importlib',
        '-rs',
        '-m',
        'cuda',
        ROOT / 'tests',
    )
    passed = re.search(r'(\d+) passed', report)
    if not passed or 'is not built' in report or 'no GPU' in report:
        raise Failure('the tests of the CUDA backend were skipped')
    return dict(summary=report.strip().splitlines()[-1])


def step_sanitize(args):
    """compute-sanitizer over hostile scenes. A machine whose driver does not let it in is noted, not failed."""
    homes = [os.environ.get('CUDA_HOME'), '/usr/local/cuda']
    places = [Path(home) / part for home in filter(None, homes) for part in ('bin', 'compute-sanitizer')]
    tool = shutil.which('compute-sanitizer', path=os.pathsep.join([os.environ.get('PATH', ''), *map(str, places)]))
    if tool is None:
        return dict(skipped='compute-sanitizer is not installed')
    results = {}
    for check in ('memcheck', 'racecheck', 'synccheck'):
        status, output = run(
            [tool, '--tool', check, '--error-exitcode', '1', sys.executable, ROOT / 'tests/fuzz.py', '--backend', 'cuda',
             '--scenes', '1000', '--seconds', '90'],
            args.build, limit=LIMIT // 3,
        )  # fmt: skip
        if 'Device not supported' in output:
            return dict(skipped='compute-sanitizer says: Device not supported')
        if status:
            raise Failure(f'{check}: {output[-2000:]}')
        results[check] = re.findall(r'(\d+) scenes, all fine', output)[-1] + ' scenes'
    return results


def step_fuzz(args):
    """Hostile scenes at full speed."""
    output = python(args.build, ROOT / 'tests/fuzz.py', '--backend', 'cuda', '--seconds', '240')
    return dict(scenes=int(re.findall(r'(\d+) scenes, all fine', output)[-1]))


def benchmark(args, part):
    out = args.out / f'rasterizer_cuda_{part}'
    python(args.build, ROOT / 'benchmarks/bm_rasterize.py', '--backend', 'cuda', '--threads', '1', '--only', part, '--out', out)
    return dict(report=out.with_suffix('.json').name)


STEPS = {
    'build': step_build,
    'test': step_test,
    'sanitize': step_sanitize,
    'fuzz': step_fuzz,
    **{f'benchmark-{part}': (lambda args, part=part: benchmark(args, part)) for part in ('nuscenes', 'kitti360', 'peers')},
}


def built(args):
    library = args.build / 'gaussian_rasterization' / '_C.so'
    sources = [*(ROOT / 'csrc').iterdir(), *(ROOT / 'gaussian_rasterization').glob('*.py'), ROOT / 'setup.py']
    return library.exists() and library.stat().st_mtime >= max(path.stat().st_mtime for path in sources)


def machine():
    command = ['nvidia-smi', '--query-gpu=name,driver_version,clocks.sm,clocks.mem,clocks.max.sm', '--format=csv,noheader']
    smi = subprocess.run(command, capture_output=True, text=True).stdout.strip() if shutil.which('nvidia-smi') else None
    toolkit = os.popen(f'{shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"} --version').read().strip().splitlines()
    import torch

    return dict(gpu=smi, nvcc=toolkit[-1] if toolkit else None, torch=torch.__version__, python=sys.version.split()[0])


def save(path, step, result):
    """Add the result of a step to the report, atomically."""
    report = json.loads(path.read_text()) if path.exists() else {}
    report['machine'] = machine()
    report.setdefault('steps', {})[step] = result
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile('w', dir=path.parent, delete=False) as file:
        json.dump(report, file, indent=1)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('steps', nargs='+', choices=STEPS, metavar='STEP', help=' '.join(STEPS))
    parser.add_argument('--build', type=Path, default=REPO / 'build/gpu-check', help='folder of the library')
    parser.add_argument('--out', type=Path, default=REPO / 'docs/benchmarks', help='folder of the results')
    args = parser.parse_args()
    args.build, args.out = args.build.resolve(), args.out.resolve()
    steps = args.steps if 'build' in args.steps or built(args) else ['build', *args.steps]
    failed = []
    for step in steps:
        start = time.monotonic()
        try:
            result = dict(STEPS[step](args), ok=True)
        except (Failure, subprocess.TimeoutExpired) as error:
            result = dict(ok=False, error=str(error))
            failed.append(step)
        result['seconds'] = round(time.monotonic() - start, 1)
        save(args.out / 'rasterizer_cuda_check.json', step, result)
        print(f'=== {step}: {result}', flush=True)
        if failed and step == 'build':
            break
    if failed:
        raise SystemExit(f'failed: {" ".join(failed)}')


if __name__ == '__main__':
    main()
