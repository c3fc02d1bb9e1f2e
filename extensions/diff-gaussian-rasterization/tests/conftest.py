"""Fixtures of the tests; nothing outside this extension is needed, the golden cases are optional."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gaussian_rasterization import backends

REPO = Path(__file__).resolve().parents[3]
sys.path.append(str(Path(__file__).parent))  # march_scenes, which the fuzz script and the benchmark use, too


def pytest_configure(config):
    config.addinivalue_line('markers', 'cuda: needs a GPU and the CUDA backend of the rasteriser')
    config.addinivalue_line('markers', 'slow: takes more than about twenty seconds on two cores')


def _backend(name, mark=()):
    return pytest.param(name, marks=mark, id=name)


def pytest_generate_tests(metafunc):
    """``backend``: every backend; ``compiled``: the compiled ones."""
    compiled = [_backend('cpu'), _backend('cuda', pytest.mark.cuda)]
    if 'backend' in metafunc.fixturenames:
        metafunc.parametrize('backend', [_backend('reference'), *compiled], indirect=True)
    if 'compiled' in metafunc.fixturenames:
        metafunc.parametrize('compiled', compiled, indirect=True)


def _need(name):
    if name == 'cuda' and not torch.cuda.is_available():
        pytest.skip('no GPU')
    if not backends.AVAILABLE[name]:
        pytest.skip(f'the {name} backend is not built: {backends.BUILD_COMMAND}')
    return name


@pytest.fixture
def backend(request):
    return _need(request.param)


@pytest.fixture
def compiled(request):
    return _need(request.param)


@pytest.fixture(scope='session')
def golden_dir():
    """Folder of the golden cases: ``$OCC_SHARED/golden``, by default ``shared`` beside the repository."""
    path = Path(os.environ.get('OCC_SHARED', REPO.parent / 'shared')) / 'golden'
    if not path.is_dir():
        pytest.skip(f'no golden cases in {path}; set OCC_SHARED to the folder that holds golden/')
    return path


@pytest.fixture
def make_scene():
    """Function (seed, count=40, channels=3, views=1, dtype) -> keyword arguments of ``rasterize``, images of 37 x 23 pixels.

    A few Gaussians are behind the camera, off the image, nearly transparent, nearly opaque or very thin.
    """

    def make(seed, count=40, channels=3, views=1, dtype=torch.float32, width=37, height=23):
        rng = np.random.default_rng(seed)
        means = rng.uniform([-4, -3, -1], [4, 3, 9], (count, 3))
        quats = rng.normal(size=(count, 4))
        quats /= np.linalg.norm(quats, axis=1, keepdims=True) * rng.uniform(0.9, 1.1, (count, 1))
        scales = np.exp(rng.uniform(-4, 0.3, (count, 3)))
        opacities = rng.choice([0.002, 0.995, 1.0], count)
        soft = rng.random(count) < 0.8
        opacities[soft] = rng.random(soft.sum())
        viewmats, Ks = [], []
        for _ in range(views):
            angle, shift = rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3, 3)
            c, s = np.cos(angle), np.sin(angle)
            viewmats.append(np.array([[c, 0, s, shift[0]], [0, 1, 0, shift[1]], [-s, 0, c, shift[2] + 1.5], [0, 0, 0, 1]]))
            focal = rng.uniform(20, 40)
            Ks.append(np.array([[focal, 0, width * rng.uniform(0.3, 0.7)], [0, focal * 1.1, height * 0.45], [0, 0, 1]]))
        arrays = dict(
            means=means,
            quats=quats,
            scales=scales,
            opacities=opacities,
            features=rng.normal(size=(count, channels)),
            viewmats=np.stack(viewmats),
            Ks=np.stack(Ks),
            background=rng.normal(size=channels),
        )
        # through float32 first, so that both precisions see the same numbers
        scene = {k: torch.tensor(v, dtype=torch.float32).to(dtype) for k, v in arrays.items()}
        return dict(scene, width=width, height=height)

    return make


@pytest.fixture
def to_device():
    """Function (scene, backend) -> the scene on the device of the backend."""

    def move(scene, backend):
        device = 'cuda' if backend == 'cuda' else 'cpu'
        return {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in scene.items()}

    return move
