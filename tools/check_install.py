"""Checks an installation: versions, compiled operators, the rasteriser, GPUs. Exit code 0 if everything needed works.

Needs nothing but Python itself, so that it can tell what is missing: ``python tools/check_install.py``.
"""

import argparse
import importlib
import importlib.util
import platform
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

OK, WARNING, FAILED = 'ok', 'warning', 'FAILED'
SETUP = 'make setup, or pip install --no-deps -r requirements/lock.txt'
BUILD_MMCV = (
    'pip cache remove mmcv; MMCV_WITH_OPS=1 pip install --no-deps --no-build-isolation --force-reinstall mmcv==2.1.0 '
    '(eight minutes or more; with FORCE_CUDA=1 and the CUDA toolkit of your torch for operators on the GPU; torch 2.14 needs '
    'CXX, a script that runs: c++ "$@" -std=c++20; make setup TORCH=... does all of this)'
)
BUILD_RASTERISER = 'pip install --no-deps --no-build-isolation -e extensions/diff-gaussian-rasterization'

# distribution, lowest version, first version that is too new, why
PACKAGES = (
    ('torch', '2.6', None, 'checkpoints are loaded as plain data'),
    ('torchvision', None, None, ''),
    ('numpy', '1.23', '2', 'nuscenes-devkit asks for numpy 1'),
    ('setuptools', None, '81', 'building mmcv imports pkg_resources'),
    ('mmengine', '0.8', '1', 'asked for by mmdet3d 1.4'),
    ('mmcv', '2.0', '2.2', 'asked for by mmdet3d 1.4'),
    ('mmdet', '3.0', '3.4', 'asked for by mmdet3d 1.4'),
    ('mmdet3d', '1.4', '1.5', ''),
    ('nuscenes-devkit', None, None, ''),
    ('numba', None, None, ''),
    ('timm', None, None, ''),
    ('einops', None, None, ''),
)


# outside their limits these work mostly
TOLERATED = ('numpy', 'setuptools')


@dataclass(frozen=True)
class Finding:
    """Result of one check: what, how it went, details, and what to do about it."""

    name: str
    state: str
    text: str
    advice: str = ''


def version_key(version: str) -> tuple[int, ...]:
    """Leading numbers of a version, for comparison: ``'2.11.0+cu130'`` -> (2, 11, 0)."""
    numbers = []
    for part in version.split('+')[0].split('.'):
        digits = re.match(r'\d+', part)
        if not digits:
            break
        numbers.append(int(digits[0]))
    return tuple(numbers)


def check_python() -> list[Finding]:
    """The version of Python."""
    version = platform.python_version()
    if (3, 10) <= sys.version_info[:2] <= (3, 12):
        return [Finding('python', OK, version)]
    reason = 'the pinned numpy 1.26 has no wheels for others'
    return [Finding('python', FAILED, f'{version}, expected 3.10 to 3.12: {reason}', 'make a new environment with Python 3.11')]


def check_packages() -> list[Finding]:
    """Versions of the packages that are imported."""
    findings = []
    for name, lowest, above, reason in PACKAGES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            findings.append(Finding(name, FAILED, 'not installed', SETUP))
            continue
        key = version_key(version)
        fits = (not lowest or key >= version_key(lowest)) and (not above or key < version_key(above))
        limits = ' '.join([f'>={lowest}'] * bool(lowest) + [f'<{above}'] * bool(above))
        text = version if fits else f'{version}, expected {limits}: {reason}'
        state = OK if fits else WARNING if name in TOLERATED else FAILED
        findings.append(Finding(name, state, text, '' if fits else SETUP))
    both = [name for name in ('opencv-python', 'opencv-python-headless') if _installed(name)]
    advice = 'pip uninstall opencv-python opencv-python-headless, then ' + SETUP
    if len(both) == 1:
        findings.append(Finding(both[0], OK, metadata.version(both[0])))
    elif both:
        findings.append(Finding('opencv', WARNING, 'two distributions overwrite each other', advice))
    else:
        findings.append(Finding('opencv', FAILED, 'not installed', SETUP))
    return findings


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def check_torch() -> list[Finding]:
    """GPUs that torch sees."""
    import torch

    built = f'torch built for CUDA {torch.version.cuda}' if torch.version.cuda else 'torch built without CUDA'
    if not torch.cuda.is_available():
        return [Finding('GPU', OK, f'none visible ({built}); everything runs on the CPU')]
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    total = torch.ones(1000, device='cuda').sum().item()
    state = OK if total == 1000 else FAILED
    return [Finding('GPU', state, f'{", ".join(names)} ({built})', '' if state == OK else 'reinstall torch for your driver')]


def check_mmcv_ops() -> list[Finding]:
    """Compiled operators of mmcv, on every device."""
    import torch

    if importlib.util.find_spec('mmcv._ext') is None:
        return [Finding('mmcv operators', FAILED, 'mmcv was installed without its compiled operators', BUILD_MMCV)]
    from mmcv.ops import ModulatedDeformConv2dPack

    findings = []
    for device in ('cpu', 'cuda') if torch.cuda.is_available() else ('cpu',):
        try:
            layer = ModulatedDeformConv2dPack(2, 3, 3, padding=1).to(device)
            output = layer(torch.ones(1, 2, 5, 5, device=device))
            output.sum().backward()
            fits = output.shape == (1, 3, 5, 5) and bool(torch.isfinite(layer.weight.grad).all())
            problem = '' if fits else 'deformable convolution gives a wrong result'
        except (ImportError, RuntimeError) as error:
            problem = str(error).splitlines()[0]
        state = FAILED if problem else OK
        text = problem or 'deformable convolution runs forward and backward'
        findings.append(Finding(f'mmcv operators on {device}', state, text, BUILD_MMCV if problem else ''))
    return findings


def check_rasteriser() -> list[Finding]:
    """Backends of the rasteriser: which are built, and whether they agree with the reference."""
    import torch

    if importlib.util.find_spec('gaussian_rasterization') is None:
        return [
            Finding('rasteriser', FAILED, 'not installed; without it models predict, but cannot train with rendering',
                    BUILD_RASTERISER)
        ]  # fmt: skip
    from gaussian_rasterization import build_config

    built = build_config()
    build = built.get('build_command', BUILD_RASTERISER)
    expected = render_scene('reference', 'cpu')
    findings = []
    for backend, device in (('reference', 'cpu'), ('cpu', 'cpu'), ('cuda', 'cuda')):
        name = f'rasteriser, backend {backend}'
        visible = device == 'cpu' or torch.cuda.is_available()
        if not built[backend]:
            reason = built.get('reason') or 'not built'
            command = f'FORCE_CUDA=1 {build}' if backend == 'cuda' else build
            state = FAILED if visible else OK
            text = reason if visible else f'{reason}; not needed without a GPU'
            findings.append(Finding(name, state, text, command if visible else ''))
        elif not visible:
            findings.append(Finding(name, OK, 'built; no GPU to run it on'))
        else:
            try:
                error = max(float((a - b).abs().max()) for a, b in zip(render_scene(backend, device), expected, strict=True))
                problem = '' if error < 1e-4 else f'differs from the reference by {error:.1e}'
            except RuntimeError as failure:
                problem = str(failure).splitlines()[0]
            text = problem or 'forward and backward agree with the reference'
            findings.append(Finding(name, FAILED if problem else OK, text, build if problem else ''))
    return findings


def render_scene(backend: str, device: str) -> list:
    """Image, alpha and the gradient of the means of two Gaussians in front of one camera, on the CPU."""
    import torch

    from gaussian_rasterization import rasterize

    def tensor(values: list) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    means = tensor([[0.1, -0.2, 3.0], [-0.3, 0.2, 4.0]]).requires_grad_()
    out = rasterize(
        means,
        tensor([[1, 0, 0, 0], [1, 0, 0, 0]]),
        tensor([[0.4, 0.3, 0.2], [0.5, 0.5, 0.5]]),
        tensor([0.9, 0.6]),
        tensor([[1, 0, 2], [0, 1, 3]]),
        torch.eye(4, device=device)[None],
        tensor([[[12, 0, 8], [0, 12, 6], [0, 0, 1]]]),
        16,
        12,
        backend=backend,
    )
    (out.features.square().sum() + out.depth.sum()).backward()
    if not float(out.alpha.detach().max()) > 0.5 or not float(means.grad.abs().max()) > 0:
        raise RuntimeError('the picture of two Gaussians is empty or has no gradient')
    return [value.detach().cpu() for value in (out.features, out.alpha, means.grad)]


def check_project() -> list[Finding]:
    """Whether the packages that every config names can be imported."""
    findings = []
    config = importlib.import_module('mmengine.config').Config.fromfile(
        ROOT / 'configs' / '_base_' / 'default_runtime.py', import_custom_modules=False
    )
    for name in config.custom_imports.imports:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever happens at import is the finding
            findings.append(Finding(name, FAILED, f'{type(error).__name__}: {error}', SETUP))
    if not findings:
        findings.append(Finding('projects', OK, f'{len(config.custom_imports.imports)} packages import'))
    return findings


CHECKS: tuple[Callable[[], list[Finding]], ...] = (
    check_python,
    check_packages,
    check_torch,
    check_mmcv_ops,
    check_rasteriser,
    check_project,
)


def run_checks(checks: Sequence[Callable[[], list[Finding]]] = CHECKS) -> list[Finding]:
    """Runs checks one after the other, prints every finding, and returns all of them."""
    findings = []
    for check in checks:
        try:
            found = check()
        except Exception as error:  # a broken installation may raise anything; the next check may still tell why
            name = check.__name__.removeprefix('check_').replace('_', ' ')
            found = [Finding(name, FAILED, f'{type(error).__name__}: {str(error).strip()}', SETUP)]
        for finding in found:
            print(f'{finding.state:8s} {finding.name:30s} {finding.text}', flush=True)
        findings += found
    return findings


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all checks; returns 0 if none failed."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    findings = run_checks()
    problems = [finding for finding in findings if finding.state != OK]
    if problems:
        print('\nWhat to do:')
        for finding in problems:
            print(f'  {finding.name}: {finding.advice}')
    failed = sum(finding.state == FAILED for finding in findings)
    print(f'\n{failed} of {len(findings)} checks failed' if failed else f'\nAll {len(findings)} checks passed')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
