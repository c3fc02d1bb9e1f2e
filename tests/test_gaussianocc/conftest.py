"""The parity case of this folder and the part of its network that is built from it."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope='session')
def case(golden_dir):
    case = torch.load(golden_dir / 'gaussianocc_small.pt', weights_only=True)
    return {**case, 'config': json.loads(case['config_json'])}
