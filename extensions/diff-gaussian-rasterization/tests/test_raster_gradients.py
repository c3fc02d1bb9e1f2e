"""Derivatives of the reference against finite differences; other gradient properties of every backend."""

from functools import partial

import pytest
import torch

from gaussian_rasterization import RasterSettings, rasterize

DIFFERENTIABLE = ('means', 'quats', 'scales', 'opacities', 'features', 'viewmats', 'background')


def _smooth_scene(make_scene, seed, views=1):
    """A scene away from the thresholds: wide, soft Gaussians in front of a camera, all pixels inside every ellipse."""
    scene = make_scene(seed, count=6, channels=2, views=views, dtype=torch.float64, width=9, height=7)
    generator = torch.Generator().manual_seed(seed)
    scene['means'] = torch.rand(6, 3, generator=generator, dtype=torch.float64) + torch.tensor([-0.5, -0.5, 2.0])
    scene['scales'] = 1.0 + torch.rand(6, 3, generator=generator, dtype=torch.float64)
    scene['opacities'] = 0.3 + 0.3 * torch.rand(6, generator=generator, dtype=torch.float64)
    scene['Ks'][:] = torch.tensor([[9.0, 0.0, 4.3], [0.0, 10.0, 3.6], [0.0, 0.0, 1.0]])
    return scene


def _probe(out):
    """Four random sums over all images: as telling as the images, and far fewer backward passes for gradcheck."""
    images = torch.cat([out.features.flatten(), out.depth.flatten(), out.alpha.flatten()])
    weights = torch.randn(4, images.numel(), generator=torch.Generator().manual_seed(0), dtype=images.dtype)
    return weights @ images


@pytest.mark.parametrize('clamp', ['symmetric', 'offcentre'])
@pytest.mark.parametrize('name', DIFFERENTIABLE)
def test_finite_differences(make_scene, name, clamp):
    scene = _smooth_scene(make_scene, seed=1, views=2)
    settings = RasterSettings(jacobian_clamp=clamp, alpha_min=1e-6, scale_modifier=0.9)

    def render(value):
        return _probe(rasterize(**dict(scene, **{name: value}), settings=settings))

    value = scene[name].clone().requires_grad_()
    if name == 'viewmats':
        # the last row of a view matrix is a constant
        top, last = value.detach()[:, :3].clone().requires_grad_(), value.detach()[:, 3:]
        assert torch.autograd.gradcheck(lambda m: render(torch.cat([m, last], 1)), top, fast_mode=False)
    else:
        assert torch.autograd.gradcheck(render, value, fast_mode=False)


def test_finite_differences_with_clamped_jacobian(make_scene):
    """Centres outside the limits of the Jacobian: its argument depends on z alone, and differentiates so."""
    scene = _smooth_scene(make_scene, seed=2)
    scene['means'][:3, 0] += 3.0
    scene['means'][3:, 1] -= 4.0
    settings = RasterSettings(alpha_min=1e-9)

    def render(means):
        return _probe(rasterize(**dict(scene, means=means), settings=settings))

    assert torch.autograd.gradcheck(render, scene['means'].clone().requires_grad_())


def test_cap_gradient(backend, to_device, make_scene):
    """A capped Gaussian keeps its opacity gradient with 'straight' and loses it with 'exact'; the images are equal."""
    scene = to_device(make_scene(0, count=1), backend)
    scene['means'][:] = torch.tensor([0.0, 0.0, 3.0])
    scene['scales'][:] = 50.0
    scene['opacities'][:] = 1.0
    grads, images = {}, {}
    for kind in ('straight', 'exact'):
        opacity = scene['opacities'].clone().requires_grad_()
        out = rasterize(**dict(scene, opacities=opacity), settings=RasterSettings(cap_gradient=kind), backend=backend)
        (grads[kind],) = torch.autograd.grad(out.alpha.sum(), opacity)
        images[kind] = out.features.detach()
    assert float(out.alpha.detach().min()) == pytest.approx(0.99)
    torch.testing.assert_close(images['straight'], images['exact'], rtol=0, atol=0)
    assert float(grads['exact']) == 0
    assert float(grads['straight']) == pytest.approx(scene['width'] * scene['height'], rel=0.02)


def test_depth_reaches_means_and_alpha_reaches_opacity(backend, to_device, make_scene):
    scene = to_device(make_scene(0, count=1), backend)
    scene['means'][:] = torch.tensor([0.1, -0.1, 3.0])
    scene['opacities'][:] = 0.5
    means, opacities = scene['means'].clone().requires_grad_(), scene['opacities'].clone().requires_grad_()
    out = rasterize(**dict(scene, means=means, opacities=opacities), backend=backend)
    assert torch.autograd.grad(out.depth.sum(), means, retain_graph=True)[0].abs().max() > 0
    assert torch.autograd.grad(out.alpha.sum(), opacities)[0].abs().max() > 0


def test_culled_gaussians_get_zero_gradients(backend, to_device, make_scene):
    scene = to_device(make_scene(3), backend)
    scene['means'][0, 2] = -20.0
    scene['means'][1, 0] = float('nan')
    scene['scales'][2] = float('inf')
    scene['opacities'][3] = 0.0
    leaves = {k: scene[k].clone().requires_grad_() for k in ('means', 'quats', 'scales', 'opacities', 'features')}
    out = rasterize(**dict(scene, **leaves), backend=backend)
    (out.features.square().sum() + out.depth.sum() + out.alpha.sum()).backward()
    for name, leaf in leaves.items():
        assert leaf.grad.isfinite().all(), name
        assert (leaf.grad[:4] == 0).all(), name
        assert (leaf.grad != 0).any(), name


@pytest.mark.parametrize('count', [0, 1])
@pytest.mark.parametrize('image', ['features', 'depth', 'alpha'])
def test_an_image_without_gaussians_has_gradients(backend, to_device, make_scene, image, count):
    scene = to_device(make_scene(3, count=count), backend)
    scene['means'][:] = torch.tensor([0.0, 0.0, -9.0])
    leaves = {k: v.clone().requires_grad_() for k, v in scene.items() if torch.is_tensor(v) and k != 'Ks'}
    out = rasterize(**dict(scene, **leaves), backend=backend)
    getattr(out, image).sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None and leaf.grad.shape == leaf.shape, name
        expected = scene['width'] * scene['height'] if name == 'background' and image == 'features' else 0
        assert (leaf.grad == expected).all(), name


def test_compiled_backends_refuse_other_derivatives(compiled, to_device, make_scene):
    scene = to_device(make_scene(5), compiled)
    opacities = scene.pop('opacities')

    def total(values):
        return rasterize(**scene, opacities=values, backend=compiled).features.square().sum()

    leaf = opacities.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(leaf), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match=r"first derivatives only.*backend='reference'"):
        gradient.square().sum().backward()
    with pytest.raises(RuntimeError, match='no forward-mode derivatives'):
        torch.func.jvp(total, (opacities,), (torch.ones_like(opacities),))


def test_second_derivative_of_the_reference(make_scene):
    scene = make_scene(5, count=4, dtype=torch.float64)
    opacities = scene.pop('opacities').clamp(0.1, 0.9).requires_grad_()
    render = partial(rasterize, **scene)
    assert torch.autograd.gradgradcheck(lambda values: render(opacities=values).features.square().mean(), opacities)


def test_backward_twice_is_equal(backend, to_device, make_scene):
    scene = to_device(make_scene(5, count=200), backend)
    leaves = [scene[k].requires_grad_() for k in ('means', 'opacities', 'features')]
    out = rasterize(**scene, backend=backend)
    first = torch.autograd.grad(out.features.square().sum(), leaves, retain_graph=True)
    second = torch.autograd.grad(out.features.square().sum(), leaves)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_intrinsics(make_scene):
    """Gradient of focal lengths and principal point against finite differences of the reference in float64."""
    scene = make_scene(5, count=60, dtype=torch.float64)
    weights = torch.rand(scene['height'], scene['width'], dtype=torch.float64)

    def value(Ks):
        out = rasterize(**scene | dict(Ks=Ks))
        return ((out.features.mean(-1) + out.depth + out.alpha) * weights).sum()

    Ks = scene['Ks'].clone().requires_grad_()
    exact = torch.autograd.grad(value(Ks), Ks)[0]
    numeric = torch.zeros_like(exact)
    for row, column in ((0, 0), (1, 1), (0, 2), (1, 2)):
        step = torch.zeros_like(numeric)
        step[0, row, column] = 1e-5
        numeric[0, row, column] = (value(scene['Ks'] + step) - value(scene['Ks'] - step)) / 2e-5
    torch.testing.assert_close(
        exact[0, [0, 1, 0, 1], [0, 1, 2, 2]], numeric[0, [0, 1, 0, 1], [0, 1, 2, 2]], rtol=2e-3, atol=1e-3
    )


def test_compiled_backends_refuse_intrinsics_that_want_a_gradient(compiled, to_device, make_scene):
    scene = to_device(make_scene(5), compiled)
    scene['Ks'].requires_grad_()
    with pytest.raises(RuntimeError, match=r"no gradient of Ks.*viewmats.*backend='reference'"):
        rasterize(**scene, backend=compiled)
    with torch.no_grad():
        assert rasterize(**scene, backend=compiled).alpha.any()
