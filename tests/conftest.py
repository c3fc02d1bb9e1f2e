"""Fixtures shared by all tests: where the parity cases and the real samples lie, quiet logging, small thread counts."""

import os
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope, init_default_scope

REPO_ROOT = Path(__file__).resolve().parents[1]
# helper modules of the tests, and the modules of tools/ that are imported by name
sys.path[:0] = [str(REPO_ROOT), str(REPO_ROOT / 'tests' / 'fixtures')]


def _existing(path: Path, what: str, variable: str) -> Path:
    if not path.is_dir():
        pytest.skip(f'{what} not found at {path}; set {variable} to the folder that holds them')
    return path


@pytest.fixture(scope='session')
def repo_root() -> Path:
    """Root of the checkout."""
    return REPO_ROOT


@pytest.fixture(scope='session')
def shared_root() -> Path:
    """Folder with ``golden``, ``reference`` and ``data`` (environment variable ``OCC_SHARED``)."""
    return _existing(Path(os.environ.get('OCC_SHARED', REPO_ROOT.parent / 'shared')), 'parity cases', 'OCC_SHARED')


@pytest.fixture(scope='session')
def golden_dir(shared_root: Path) -> Path:
    """Folder with the parity cases made by the official implementations."""
    return _existing(shared_root / 'golden', 'parity cases', 'OCC_SHARED')


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Folder with real nuScenes, Occ3D and KITTI-360 samples (environment variable ``OCC_SHARED_DATA``)."""
    shared = Path(os.environ.get('OCC_SHARED', REPO_ROOT.parent / 'shared'))
    return _existing(Path(os.environ.get('OCC_SHARED_DATA', shared / 'data')), 'real data samples', 'OCC_SHARED_DATA')


@pytest.fixture(scope='session', autouse=True)
def _default_scope() -> None:
    # before fixtures of modules, which come before those of functions and may build models too
    if DefaultScope.get_current_instance() is None:
        init_default_scope('mmdet3d')


@pytest.fixture(autouse=True)
def _fresh_state() -> None:
    torch.manual_seed(0)
    if DefaultScope.get_current_instance() is None:
        init_default_scope('mmdet3d')
