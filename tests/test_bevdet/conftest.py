"""Makes the helper modules of this folder importable under importlib mode, and selects the registry scope."""

import sys
from pathlib import Path

import pytest
from mmengine.registry import init_default_scope

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet3d')
