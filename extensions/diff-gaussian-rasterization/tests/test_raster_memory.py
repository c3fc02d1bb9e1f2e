"""Memory of the largest published grid, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from gaussian_rasterization import backends

RENDER = """
import re, torch
from pathlib import Path
from gaussian_rasterization import rasterize

def status(key):
    return int(re.search(rf'{key}:\\s+(\\d+) kB', Path('/proc/self/status').read_text()).group(1)) / 1024

torch.manual_seed(0)
shape = torch.tensor([256, 256, 32])  # 2.1 M voxels of 0.2 m
index = torch.cartesian_prod(*(torch.arange(n) for n in shape))
means = index * 0.2 + torch.tensor([0.1, -25.5, -1.9])
count = len(means)
quats = torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1)
scales = torch.full((count, 3), 0.1)
opacities = torch.rand(count) ** 8  # most are faint, as after training
features = torch.rand(count, 19)
viewmats = torch.tensor([[[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]])
Ks = torch.tensor([[[552.5, 0, 682], [0, 552.5, 238.8], [0, 0, 1]]])
inputs = [x.requires_grad_() for x in (means, quats, scales, opacities, features)]
before = status('VmRSS')
out = rasterize(*inputs, viewmats, Ks, 1408, 376, torch.zeros(19))
torch.autograd.backward([out.features, out.depth], [torch.ones_like(out.features), torch.ones_like(out.depth)])
assert all(x.grad is not None and x.grad.abs().max() > 0 for x in (means, scales, opacities, features))
print(count, status('VmHWM') - before)
"""


def test_full_kitti_360_grid_with_all_gradients():
    """2.1 M Gaussians, 1408 x 376, 19 channels: images, gradients, state and lists together stay below 768 MiB."""
    if not backends.AVAILABLE['cpu']:
        pytest.skip(f'the cpu backend is not built: {backends.BUILD_COMMAND}')
    if not Path('/proc/self/status').exists():
        pytest.skip('the peak of a process is read from /proc')
    result = subprocess.run([sys.executable, '-c', RENDER], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    count, mebibytes = result.stdout.split()
    assert int(count) == 2097152
    assert float(mebibytes) < 768
