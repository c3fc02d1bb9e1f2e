"""Rendering inside what PyTorch wraps around a forward or backward pass: checkpoints, offloading, torch.func, copies."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from test_raster_classic import _settings
from torch.utils.checkpoint import checkpoint

from gaussian_rasterization import GaussianRasterizer, RasterSettings, rasterize

NAMES = ('means', 'quats', 'scales', 'opacities', 'features', 'viewmats')


@pytest.fixture
def leaves(make_scene, to_device, backend):
    """A scene whose tensors want gradients."""
    scene = to_device(make_scene(3), backend)
    return {key: value.requires_grad_() if key in NAMES else value for key, value in scene.items()}


def loss(scene, backend):
    out = rasterize(**scene, backend=backend)
    return out.features.square().sum() + out.depth.sum() + out.alpha.sum()


def gradients(scene, backend, wrap=lambda function, *inputs: function(*inputs)):
    inputs = [scene[name] for name in NAMES]
    value = wrap(lambda *values: loss({**scene, **dict(zip(NAMES, values))}, backend), *inputs)
    return torch.autograd.grad(value, inputs)


def assert_equal(got, want):
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_activation_checkpoints(leaves, backend):
    want = gradients(leaves, backend)
    assert_equal(gradients(leaves, backend, lambda *call: checkpoint(*call, use_reentrant=False)), want)
    # inside each other, as the checkpoint of a model around one of ours
    nested = lambda *call: checkpoint(lambda *values: checkpoint(*values, use_reentrant=False), *call, use_reentrant=False)  # noqa: E731
    assert_equal(gradients(leaves, backend, nested), want)


def test_saved_tensors_are_unpacked_once(leaves, backend):
    want, unpacked = gradients(leaves, backend), []

    def unpack(box):
        unpacked.append(id(box))
        return box[0].clone()

    def hooked(function, *inputs):
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: [tensor], unpack):
            return function(*inputs)

    assert_equal(gradients(leaves, backend, hooked), want)
    assert len(unpacked) == len(set(unpacked)) > 0


def test_offloading(leaves, backend):
    def offloaded(function, *inputs):
        with torch.autograd.graph.save_on_cpu():
            return function(*inputs)

    assert_equal(gradients(leaves, backend, offloaded), gradients(leaves, backend))


def test_function_transforms(leaves, backend):
    function = lambda means: loss({**leaves, 'means': means}, backend)  # noqa: E731
    means = leaves['means'].detach()
    if backend == 'reference':
        assert_equal([torch.func.grad(function)(means)], [torch.autograd.grad(function(leaves['means']), leaves['means'])[0]])
        return
    calls = [
        lambda: torch.func.grad(function)(means),
        lambda: torch.func.jacrev(function)(means),
        lambda: torch.vmap(function)(means[None]),
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match=r"torch\.func and vmap.*\n?.*backend='reference'"):
            call()


def test_threads(leaves, backend):
    """Replicas of a DataParallel module render in threads, forward and backward."""

    def run(shift):
        scene = {k: v.detach().clone().requires_grad_() if k in NAMES else v for k, v in leaves.items()}
        with torch.no_grad():
            scene['means'] += shift
        loss(scene, backend).backward()
        return [scene[name].grad for name in NAMES]

    shifts = (0.0, 0.1, 0.2, 0.3)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(run, shifts))
    for got, shift in zip(together, shifts):
        assert_equal(got, run(shift))


def test_copies_and_pickles(make_scene, backend):
    scene = make_scene(0)
    settings = RasterSettings(near=0.5, tile_compat='rect12')
    module = GaussianRasterizer(_settings(scene), options=settings, backend=backend)
    for duplicate in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert duplicate.options == settings and duplicate.backend == backend
        assert torch.equal(duplicate.raster_settings.viewmatrix, module.raster_settings.viewmatrix)
    out = rasterize(**scene, backend='reference')
    assert torch.equal(pickle.loads(pickle.dumps(out)).features, out.features)
