import importlib.util
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / 'tools' / 'check_install.py'


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location('occ_check_install', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def versions(tool, monkeypatch):
    """Installed versions as the tool sees them; None is not installed."""
    known = {name: lowest or '1.0' for name, lowest, _, _ in tool.PACKAGES} | {'opencv-python-headless': '4.11'}

    def version(name):
        if known.get(name) is None:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(tool.metadata, 'version', version)
    return known


def states(findings):
    return {finding.name: finding.state for finding in findings}


def test_this_installation_passes():
    run = subprocess.run(
        [sys.executable, str(SCRIPT)],
        cwd='/',
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stdout + run.stderr[-2000:]
    assert f'torch                          {metadata.version("torch")}' in run.stdout
    assert 'rasteriser, backend reference  forward and backward agree' in run.stdout
    assert run.stdout.endswith('checks passed\n')


def test_versions_compare_as_numbers(tool):
    assert tool.version_key('2.11.0+cu130') == (2, 11, 0)
    assert tool.version_key('2.0.0rc4') == (2, 0, 0) and tool.version_key('1.dev0') == (1,)
    assert tool.version_key('2.11') > tool.version_key('2.6') > tool.version_key('1.99')


def test_missing_and_unfitting_packages(tool, versions):
    assert set(states(tool.check_packages()).values()) == {'ok'}
    versions.update({'mmcv': '2.2.0', 'mmdet3d': None, 'numpy': '2.1.0', 'torch': '2.1.0+cpu'})
    findings = tool.check_packages()
    wrong = {name: state for name, state in states(findings).items() if state != 'ok'}
    assert wrong == {'torch': 'FAILED', 'mmcv': 'FAILED', 'mmdet3d': 'FAILED', 'numpy': 'warning'}
    texts = {finding.name: finding.text for finding in findings}
    assert texts['mmcv'] == '2.2.0, expected >=2.0 <2.2: asked for by mmdet3d 1.4'
    assert texts['mmdet3d'] == 'not installed'
    assert all(finding.advice.startswith('make setup') for finding in findings if finding.state != 'ok')


def test_opencv_once(tool, versions):
    versions['opencv-python'] = '4.9'
    assert states(tool.check_packages())['opencv'] == 'warning'
    versions.update({'opencv-python': None, 'opencv-python-headless': None})
    assert states(tool.check_packages())['opencv'] == 'FAILED'


def test_mmcv_without_operators(tool, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(tool.importlib.util, 'find_spec', lambda name: None if name == 'mmcv._ext' else find_spec(name))
    (finding,) = tool.check_mmcv_ops()
    assert finding.state == 'FAILED' and 'MMCV_WITH_OPS=1' in finding.advice


def test_rasteriser_absent_unbuilt_or_wrong(tool, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with monkeypatch.context() as patch:
        patch.setattr(tool.importlib.util, 'find_spec', lambda name: None)
        (finding,) = tool.check_rasteriser()
        assert finding.state == 'FAILED' and 'cannot train with rendering' in finding.text
        assert finding.advice.endswith('extensions/diff-gaussian-rasterization')

    import gaussian_rasterization

    built = dict(cpu=False, cuda=False, reference=True, reason='it was not built', build_command='pip install X')
    monkeypatch.setattr(gaussian_rasterization, 'build_config', lambda: built)
    assert states(tool.check_rasteriser()) == {
        'rasteriser, backend reference': 'ok',
        'rasteriser, backend cpu': 'FAILED',
        'rasteriser, backend cuda': 'ok',
    }
    assert [finding.advice for finding in tool.check_rasteriser()] == ['', 'pip install X', '']

    built['cpu'] = True
    scene = tool.render_scene('reference', 'cpu')
    # the first two calls are of the reference
    pictures = [scene, scene, [value + 0.01 for value in scene]]
    monkeypatch.setattr(tool, 'render_scene', lambda backend, device: pictures.pop(0))
    finding = tool.check_rasteriser()[1]
    assert finding.state == 'FAILED' and finding.text.startswith('differs from the reference by 1.0e-02')


def test_problems_are_listed_with_advice_and_give_the_exit_code(tool, monkeypatch, capsys):
    def check_broken_thing():
        raise ImportError('libX.so not found')

    def check_rest():
        return [tool.Finding('a', 'ok', 'fine'), tool.Finding('b', 'warning', 'odd', 'look at b')]

    run_checks = tool.run_checks
    monkeypatch.setattr(tool, 'run_checks', lambda: run_checks([check_broken_thing, check_rest]))
    assert tool.main([]) == 1
    printed = capsys.readouterr().out
    assert 'broken thing' in printed and 'ImportError: libX.so not found' in printed
    assert 'b: look at b' in printed and printed.endswith('1 of 3 checks failed\n')
    monkeypatch.setattr(tool, 'run_checks', lambda: run_checks([check_rest]))
    assert tool.main([]) == 0


def test_the_makefile_runs_an_operator_and_takes_another_torch(repo_root):
    def recipe(*arguments):
        command = ['make', '-n', '-C', str(repo_root), 'setup', 'VENV=/nonexistent/venv', *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    pinned, other = recipe(), recipe('TORCH=2.14.1')
    assert 'install -q --no-deps -r requirements/lock.txt' in pinned and 'torch==' not in pinned
    assert 'install -q torch==2.14.1 torchvision' in other and 'r requirements/lock.txt' not in other
    code = re.search(r'/nonexistent/venv/bin/python -c "(import torch; from mmcv.*?)"', pinned, re.DOTALL)[1]
    # what an mmcv that was built for another torch does: it imports, and fails when it computes
    broken = 'import mmcv.ops.modulated_deform_conv as m; m.ext_module.modulated_deform_conv_forward = None; '
    for start, expected in (('', 0), (broken, 1)):
        done = subprocess.run([sys.executable, '-c', start + code.replace('\\\n', '')], capture_output=True, text=True)
        assert done.returncode == expected, done.stderr
