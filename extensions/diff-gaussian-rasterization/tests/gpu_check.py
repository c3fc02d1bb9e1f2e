"""Prove the CUDA backend on a GPU machine, step by step, so that a quarter of an hour tells: right or wrong, how fast, and why.

    python tests/gpu_check.py --out /tmp/result                     # the short steps, in the order of what they tell
    python tests/gpu_check.py compare peers --out /tmp/result       # some of them; `long` stands for the long ones
    python tests/gpu_check.py --rehearse --out /tmp/result          # no GPU: every step with the CPU backend, tiny

Results are added to ``OUT/rasterizer_cuda_check.json`` after every step, timings go to ``OUT/rasterizer_cuda_<part>.json`` and
``.png``, and ``OUT/rasterizer_cuda_page.md`` says in a page what passed. Needs a Python with torch, numpy, pytest and
matplotlib and the CUDA toolkit of that torch; no network. gsplat, if wanted, in a folder on PYTHONPATH; golden cases in
``$OCC_SHARED/golden``.
The library is built into a folder of its own, and a step that finds none builds it first.
"""

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
REPO = ROOT.parents[1]
PROBE = (
    'import torch, gaussian_rasterization as g; c = g.build_config(); '
    'assert c["{backend}"], c; assert "{backend}" == "cpu" or torch.cuda.is_available(), "no GPU"; print(c["library"])'
)
BENCHMARK = [ROOT / 'benchmarks/bm_rasterize.py', '--threads', '1']


class Failure(Exception):
    """A step did not end well; the text says why."""


def run(command, build, limit, **variables):
    """Run a command from the root of the repository, where no folder hides the built package; show and return its output.

    The command has a session of its own, and whatever it has started ends with it when ``limit`` seconds are over.

    Raises:
        Failure: If it took longer.
    """
    environment = dict(
        os.environ, PYTHONPATH=os.pathsep.join(filter(None, [str(build), os.environ.get('PYTHONPATH')])), **variables
    )
    print('$', ' '.join(map(str, command)), flush=True)
    lines, expired = [], threading.Event()
    with subprocess.Popen(
        list(map(str, command)), cwd=REPO, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as process:  # fmt: skip

        def stop():
            expired.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit, stop)
        timer.start()
        try:
            for line in process.stdout:
                print(line, end='', flush=True)
                lines.append(line)
        finally:
            timer.cancel()
    if expired.is_set():
        raise Failure(f'stopped after {limit} s: {" ".join(map(str, command))}')
    return process.returncode, ''.join(lines)


def python(args, *arguments, **variables):
    status, output = run([sys.executable, *arguments], args.build, args.limit, PYTHONUNBUFFERED='1', **variables)
    if status:
        raise Failure(f'exit status {status}: {output[-2000:]}')
    return output


def step_build(args):
    """Compile for the visible GPU (or TORCH_CUDA_ARCH_LIST) and load."""
    folder = args.build / 'objects'
    command = [sys.executable, ROOT / 'setup.py', 'build_ext', '--build-lib', args.build, '--build-temp', folder]
    start = time.monotonic()
    choice = dict(WITH_CUDA='0', FORCE_CUDA='0') if args.rehearse else dict(FORCE_CUDA='1')
    if run(command, '', args.limit, **choice)[0]:
        raise Failure('the build failed, see above')
    for path in (ROOT / 'gaussian_rasterization').glob('*.py'):
        shutil.copy(path, args.build / 'gaussian_rasterization')
    library = python(args, '-c', PROBE.format(backend=args.backend)).strip().splitlines()[-1]
    if not Path(library).is_relative_to(args.build):
        raise Failure(f'{library} was loaded instead of the library in {args.build}')
    return dict(build_seconds=round(time.monotonic() - start, 1))


def step_compare(args):
    """CUDA against the CPU backend at full size; five repeats have to be the same bits."""
    script, saved, out = ROOT / 'tests/full_size.py', args.build / 'cpu.pt', args.out / 'rasterizer_cuda_compare.json'
    small = ['--scale', '8'] if args.rehearse else []
    python(args, script, 'save', saved, *small)
    python(args, script, 'compare', saved, '--backend', args.backend, '--repeats', '5', '--out', out, *small)
    cases = json.loads(out.read_text())['cases']
    return dict(cases={case: {k: v for k, v in row.items() if not isinstance(v, dict)} for case, row in cases.items()})


def step_test(args):
    """Every test that is marked ``cuda``; none may be skipped for want of the backend."""
    options = ['-q', '-p', 'no:cacheprovider', '--import-mode=importlib', '-rs', '-m', 'cuda']
    status, report = run([sys.executable, '-m', 'pytest', *options, ROOT / 'tests'], args.build, args.limit)
    if args.rehearse:
        return dict(skipped='the tests of the CUDA backend need a GPU')
    passed = re.search(r'(\d+) passed', report)
    if status or not passed or 'is not built' in report or 'no GPU' in report:
        raise Failure(f'the tests failed or were skipped: {report[-2000:]}')
    return dict(summary=report.strip().splitlines()[-1])


def step_profile(args):
    """Where the time of six renders goes, kernel by kernel."""
    out = args.out / 'rasterizer_cuda_profile.txt'
    small = ['--scale', '8'] if args.rehearse else []
    python(args, ROOT / 'tests/full_size.py', 'profile', out, '--backend', args.backend, *small)
    return dict(table=out.name)


def step_figures(args):
    """Registers, spills, shared memory and occupancy of the machine code."""
    if args.rehearse:
        return dict(skipped='a library without CUDA has no kernels')
    out = args.out / 'rasterizer_cuda_kernels.json'
    python(args, ROOT / 'benchmarks/kernel_figures.py', args.build / 'gaussian_rasterization/_C.so', '--out', out)
    rows = json.loads(out.read_text())
    return dict(kernels=len(rows), spilling=[row['kernel'] for row in rows if row['stack'] or row['local']])


def benchmark(args, part):
    out = args.out / f'rasterizer_cuda_{part}'
    small = ['--repeats', '1', '--only', 'gt 1/4'] if args.rehearse else ['--only', part]
    python(args, *BENCHMARK, '--backend', args.backend, *small, '--out', out)
    return dict(report=out.with_suffix('.json').name)


def march(args):
    """The ray marcher on rays and volumes of real size."""
    out = args.out / 'march_cuda'
    small = ['--rays', '640', '--repeats', '1'] if args.rehearse else ['--repeats', '20']
    python(
        args, ROOT / 'benchmarks/bm_march.py', '--backend', args.backend, '--threads', '1', '--no-peers', *small, '--out', out
    )
    return dict(report=out.with_suffix('.json').name)


def sanitize(args, check, scenes, script='fuzz.py'):
    """compute-sanitizer over hostile scenes. A machine whose driver does not let it in is noted, not failed."""
    homes = [os.environ.get('CUDA_HOME'), '/usr/local/cuda']
    places = [Path(home) / part for home in filter(None, homes) for part in ('bin', 'compute-sanitizer')]
    tool = shutil.which('compute-sanitizer', path=os.pathsep.join([os.environ.get('PATH', ''), *map(str, places)]))
    if tool is None or args.rehearse:
        return dict(skipped='compute-sanitizer is not installed' if tool is None else 'compute-sanitizer needs a GPU')
    fuzz = [sys.executable, ROOT / 'tests' / script, '--backend', 'cuda', '--scenes', str(scenes)]
    fuzz += ['--seconds', str(args.limit - 20)]
    # every tensor has an allocation of its own, so that reading behind its end is seen
    command = [tool, '--tool', check, '--error-exitcode', '1', *fuzz]
    status, output = run(command, args.build, args.limit, PYTORCH_NO_CUDA_MEMORY_CACHING='1')
    if 'Device not supported' in output:
        return dict(skipped='compute-sanitizer says: Device not supported')
    if status:
        raise Failure(f'{check}: {output[-2000:]}')
    return dict(scenes=int(re.findall(r'(\d+) scenes, all fine', output)[-1]))


def fuzz(args, seconds, script='fuzz.py'):
    """Hostile scenes at full speed."""
    seconds = 3 if args.rehearse else seconds
    output = python(args, ROOT / 'tests' / script, '--backend', args.backend, '--seconds', str(seconds))
    return dict(scenes=int(re.findall(r'(\d+) scenes, all fine', output)[-1]))


class Step(NamedTuple):
    """What a step does, the seconds planned for it and after how many it is stopped; long ones run only when asked for."""

    run: Callable
    planned: int
    limit: int
    long: bool = False


STEPS = {
    'build': Step(step_build, 150, 300),
    'figures': Step(step_figures, 5, 60),
    'compare': Step(step_compare, 60, 120),
    'test': Step(step_test, 60, 150),
    'profile': Step(step_profile, 30, 90),
    'nuscenes': Step(lambda args: benchmark(args, 'nuscenes'), 70, 150),
    'march': Step(march, 25, 90),
    'peers': Step(lambda args: benchmark(args, 'peers'), 70, 150),
    'memcheck': Step(lambda args: sanitize(args, 'memcheck', 25), 60, 100),
    'racecheck': Step(lambda args: sanitize(args, 'racecheck', 15), 60, 100),
    'march-memcheck': Step(lambda args: sanitize(args, 'memcheck', 25, 'march_fuzz.py'), 40, 80),
    'march-racecheck': Step(lambda args: sanitize(args, 'racecheck', 15, 'march_fuzz.py'), 40, 80),
    'march-fuzz': Step(lambda args: fuzz(args, 15, 'march_fuzz.py'), 20, 50),
    'kitti360': Step(lambda args: benchmark(args, 'kitti360'), 60, 150),
    'fuzz': Step(lambda args: fuzz(args, 40), 45, 80),
    'long-memcheck': Step(lambda args: sanitize(args, 'memcheck', 1000), 300, 540, True),
    'long-racecheck': Step(lambda args: sanitize(args, 'racecheck', 1000), 300, 540, True),
    'long-synccheck': Step(lambda args: sanitize(args, 'synccheck', 1000), 300, 540, True),
    'long-fuzz': Step(lambda args: fuzz(args, 240), 245, 540, True),
}
GROUPS = {'short': [k for k, s in STEPS.items() if not s.long], 'long': [k for k, s in STEPS.items() if s.long]}


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
    """Add the result of a step to the report and write the page, each atomically."""
    report = json.loads(path.read_text()) if path.exists() else {}
    report['machine'] = machine()
    report.setdefault('steps', {})[step] = result
    write(path, json.dumps(report, indent=1))
    write(path.with_name('rasterizer_cuda_page.md'), page(report, path.parent))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile('w', dir=path.parent, delete=False) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def page(report, folder):
    """What passed, in ten lines or so, and the table against the peer."""
    lines = [
        '# CUDA backend of the rasteriser',
        '',
        f'Machine: {report["machine"]["gpu"] or "no GPU"}, {report["machine"]["nvcc"]}',
        '',
    ]
    for name, result in report['steps'].items():
        details = {k: v for k, v in result.items() if k not in ('ok', 'seconds', 'error', 'skipped')}
        state = 'skipped: ' + result['skipped'] if 'skipped' in result else 'passed' if result['ok'] else 'FAILED'
        text = result.get('error', '').strip().splitlines()[-1:] or [', '.join(f'{k} {v}' for k, v in details.items())]
        lines.append(f'- {name}: {state} in {result["seconds"]:.0f} s. {text[0][:200]}'.rstrip())
    lines += peer_table(folder / 'rasterizer_cuda_peers.json')
    return '\n'.join(lines) + '\n'


def peer_table(path):
    """Milliseconds forward + backward beside every other method of the same case; the ratio is theirs over ours."""
    rows = json.loads(path.read_text())['results'] if path.exists() else []
    totals = {}
    for r in rows:
        milliseconds = sum(v['median'] for v in r['milliseconds'].values())
        totals.setdefault((r['case'], r['gradients']), {})[r['method']] = milliseconds
    lines, ratios = [], {}
    for (case, gradients), methods in totals.items():
        for method, other in methods.items():
            if method != 'ours' and 'ours' in methods:
                ratio = other / methods['ours']
                ratios.setdefault(method, []).append(ratio)
                lines.append(f'| {case}, {gradients} | {methods["ours"]:.3f} | {method} {other:.3f} | {ratio:.2f} |')
    means = [f'| geometric mean | | {m} | {statistics.geometric_mean(r):.2f}, least {min(r):.2f} |' for m, r in ratios.items()]
    return ['', '| case | ours, ms | other, ms | ratio |', '|---|---|---|---|', *means, *lines] if lines else []


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*STEPS, *GROUPS]
    parser.add_argument('steps', nargs='*', default='short', choices=names, metavar='STEP', help=' '.join(names))
    parser.add_argument('--build', type=Path, default=REPO / 'build/gpu-check', help='folder of the library')
    parser.add_argument('--out', type=Path, default=REPO / 'docs/benchmarks', help='folder of the results')
    parser.add_argument('--rehearse', action='store_true', help='without a GPU: the CPU backend in tiny sizes')
    args = parser.parse_args()
    args.steps = [args.steps] if isinstance(args.steps, str) else args.steps  # argparse checks the default like a choice
    args.backend = 'cpu' if args.rehearse else 'cuda'
    args.build, args.out = args.build.resolve(), args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    steps = [step for name in args.steps for step in GROUPS.get(name, [name])]
    if 'build' not in steps and not built(args):
        steps.insert(0, 'build')
    elif 'build' in steps and args.steps == ['short'] and built(args):
        steps.remove('build')
    print(f'planned: {sum(STEPS[step].planned for step in steps)} s for {" ".join(steps)}', flush=True)
    failed = []
    for step in steps:
        start = time.monotonic()
        args.limit = STEPS[step].limit
        try:
            result = dict(STEPS[step].run(args), ok=True)
        except Failure as error:
            result = dict(ok=False, error=str(error))
            failed.append(step)
        result['seconds'] = round(time.monotonic() - start, 1)
        save(args.out / 'rasterizer_cuda_check.json', step, result)
        print(f'=== {step}: {result}', flush=True)
        if failed and step == 'build':
            break
    print((args.out / 'rasterizer_cuda_page.md').read_text(), flush=True)
    if failed:
        raise SystemExit(f'failed: {" ".join(failed)}')


if __name__ == '__main__':
    main()
