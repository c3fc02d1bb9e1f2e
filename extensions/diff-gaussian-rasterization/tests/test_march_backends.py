"""Compiled ray marchers against the reference, and what PyTorch expects of their operators."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from march_scenes import OUTPUTS, make_march_scene, probe, street, unstable_rays

from gaussian_rasterization import MarchSettings, MipContraction, backends, march_rays
from gaussian_rasterization.march_native import _options
from gaussian_rasterization.march_settings import INFINITE_STEP


def _need_cpu():
    if not backends.AVAILABLE['cpu']:
        pytest.skip(f'the cpu backend is not built: {backends.BUILD_COMMAND}')


def _march(scene, backend, mask):
    """Outputs and the gradients of density and features of a random function of the rays in ``mask``."""
    leaves = {k: scene[k].clone().requires_grad_() for k in ('density', 'features')}
    out = march_rays(**dict(scene, **leaves), backend=backend)
    probe(out, mask).backward()
    return out, {k: leaf.grad for k, leaf in leaves.items()}


@pytest.mark.parametrize('part', range(8))
def test_random_scenes_agree_with_the_reference(compiled, to_device, part):
    """25 scenes per part: outputs within 2e-5, gradients within 1e-4 of the largest, off the thresholds."""
    for seed in range(25 * part, 25 * part + 25):
        scene = make_march_scene(seed)
        stable = ~unstable_rays(march_rays, scene)
        want, want_grads = _march(scene, 'reference', stable)
        got, got_grads = _march(to_device(scene, compiled), compiled, stable)
        assert stable.float().mean() > 0.5, seed
        for name in OUTPUTS:
            reference, value = getattr(want, name), getattr(got, name)
            assert (reference is None) == (value is None), (seed, name)
            if reference is None or reference.numel() == 0:
                continue
            assert value.shape == reference.shape, (seed, name)
            error = (value.cpu() - reference).abs()[stable]
            assert error.max() < 2e-5 * max(1.0, float(reference.detach().abs().max())), (seed, name)
        assert torch.equal(got.count.cpu()[stable], want.count[stable]), seed
        for name, grad in got_grads.items():
            reference = want_grads[name]
            if reference is None or reference.numel() == 0:  # no channels
                continue
            error = (grad.cpu() - reference).abs().max() / reference.abs().max().clamp_min(1e-3)
            assert error < 1e-4, (seed, name, float(error))


@pytest.mark.parametrize('channels', [0, 1, 16, 17, 18, 33, 64, 130, 256])
def test_any_number_of_channels(compiled, to_device, channels):
    scene = make_march_scene(30, channels=channels, rays=70)
    stable = ~unstable_rays(march_rays, scene)
    want, want_grads = _march(scene, 'reference', stable)
    got, got_grads = _march(to_device(scene, compiled), compiled, stable)
    assert got.features.shape[-1] == channels
    torch.testing.assert_close(got.features.cpu()[stable], want.features[stable], rtol=0, atol=3e-5)
    for name in ('density', 'features')[: 1 + (channels > 0)]:
        scale = float(want_grads[name].abs().max())
        torch.testing.assert_close(got_grads[name].cpu(), want_grads[name], rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize('form', ['nerf', 'dvgo', 'prob'])
def test_density_alone(compiled, to_device, form):
    """Without features, and with a gradient to one of the volumes only."""
    scene = to_device(make_march_scene(31, channels=5, rays=50), compiled)
    scene['settings'] = MarchSettings(form=form, distortion='count')
    density = scene['density'].clone().requires_grad_()
    both = march_rays(**dict(scene, density=density), backend=compiled)
    alone = march_rays(**dict(scene, density=density, features=None), backend=compiled)
    assert alone.features is None
    for name in ('depth', 'alpha', 'transmittance', 'distortion'):
        assert torch.equal(getattr(both, name), getattr(alone, name)), name
    grads = [torch.autograd.grad(out.depth.sum() + out.distortion.sum(), density)[0] for out in (both, alone)]
    assert torch.equal(*grads)
    features = scene['features'].clone().requires_grad_()
    loss = march_rays(**dict(scene, features=features), backend=compiled).features.sum()
    want = march_rays(**dict(scene, density=density, features=features), backend=compiled).features.sum()
    torch.testing.assert_close(
        torch.autograd.grad(loss, features)[0], torch.autograd.grad(want, (density, features))[1], rtol=1e-5, atol=1e-6
    )


def test_bitwise_equal_for_any_number_of_threads():
    _need_cpu()
    scene = make_march_scene(4, channels=17, rays=3000)
    mask = torch.ones(scene['origins'].shape[:2])
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8, 8):
            torch.set_num_threads(threads)
            out, grads = _march(scene, 'cpu', mask)
            results.append([x for x in (*out, *grads.values()) if x is not None])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_order_of_rays_does_not_matter(compiled, to_device):
    """Outputs belong to their rays; gradients are added up in an order that follows from the rays, on the CPU to the bit."""
    scene = to_device(make_march_scene(8, channels=6, rays=700), compiled)
    scene['settings'] = MarchSettings(form='nerf', distortion='width')
    scene['t'] = torch.linspace(0.1, 9, 60, device=scene['density'].device)
    order = torch.randperm(700, generator=torch.Generator().manual_seed(0))
    upstream = torch.randn(*scene['origins'].shape[:2], 6, generator=torch.Generator().manual_seed(1)).to(scene['density'])
    results = []
    for rows in (torch.arange(700), order):
        leaves = {k: scene[k].clone().requires_grad_() for k in ('density', 'features')}
        mixed = {k: scene[k][:, rows] for k in ('origins', 'directions')}
        out = march_rays(**dict(scene, **leaves, **mixed), backend=compiled)
        back = rows.argsort()
        grads = torch.autograd.grad((out.features * upstream[:, rows]).sum() + out.depth.sum(), list(leaves.values()))
        results.append([*(x[:, back] for x in (out.features, out.depth, out.distortion)), *grads])
    for a, b in zip(*results, strict=True):
        if compiled == 'cpu':
            assert torch.equal(a, b)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * float(b.detach().abs().max()))


def test_large_grid_and_many_rays(compiled, to_device):
    """Sizes of real use, against float64 of a few hundred of the rays."""
    scene, contraction = street()
    scene['settings'] = MarchSettings(form='dvgo', contraction=contraction)
    some = torch.arange(0, 38400, 128)
    leaves = {k: scene[k].to('cuda' if compiled == 'cuda' else 'cpu').requires_grad_() for k in ('density', 'features')}
    out = march_rays(**dict(to_device(scene, compiled), **leaves), backend=compiled)
    weight = torch.zeros(38400, 1)
    weight[some] = 1
    ((out.features * weight.to(out.features)).sum() + (out.depth * weight[:, 0].to(out.depth)).sum()).backward()
    few = {k: v[:, some].double() for k, v in scene.items() if k in ('origins', 'directions')}
    exact = {k: scene[k].detach().double().requires_grad_() for k in ('density', 'features')}
    want = march_rays(**dict(scene, **few, **exact), backend='reference')
    (want.features.sum() + want.depth.sum()).backward()
    # the rule that skips close samples may decide otherwise in float32
    for name, atol in (('depth', 1e-2), ('alpha', 1e-4), ('features', 2e-3)):
        error = (getattr(out, name).detach().cpu()[:, some] - getattr(want, name).detach()).abs()
        assert error.max() < atol, (name, float(error.max()))
    for name, leaf in exact.items():
        grad = leaves[name].grad.cpu()
        assert (grad - leaf.grad).abs().max() < 2e-3 * leaf.grad.abs().max(), name


@pytest.mark.parametrize('simd', ['baseline', 'avx2', 'avx512'])
def test_every_instruction_set_agrees(simd, tmp_path):
    """A smaller instruction set than the best can be asked for and gives the same numbers."""
    _need_cpu()
    code = (
        'import sys, torch; from gaussian_rasterization import march_rays, build_config\n'
        'from test_march_backends import _march, make_march_scene\n'
        'results = []\n'
        'for seed in range(18):\n'
        '    scene = make_march_scene(seed, rays=65); mask = torch.ones(scene["origins"].shape[:2])\n'
        '    out, grads = _march(scene, "cpu", mask); results += [out.depth.detach(), out.alpha.detach(), *grads.values()]\n'
        'torch.save([build_config()["simd"], *results], sys.argv[1])'
    )
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    env = dict(os.environ, GAUSSIAN_RASTERIZATION_SIMD=simd, PYTHONPATH=path)
    subprocess.run([sys.executable, '-c', code, tmp_path / 'out.pt'], check=True, env=env)
    used, *got = torch.load(tmp_path / 'out.pt', weights_only=True)
    if used != simd:
        pytest.skip(f'this machine has no {simd}')
    want = []
    for seed in range(18):
        scene = make_march_scene(seed, rays=65)
        out, grads = _march(scene, 'cpu', torch.ones(scene['origins'].shape[:2]))
        want += [out.depth.detach(), out.alpha.detach(), *grads.values()]
    for a, b in zip(got, want, strict=True):
        close = torch.isclose(a, b, rtol=1e-3, atol=1e-4 * max(1.0, float(b.abs().max()) if b.numel() else 1.0))
        assert close.float().mean() > 0.995 or close.numel() == 0  # a threshold may fall to the other side


def _arguments(scene, requires_grad=True):
    settings = scene['settings']
    leaves = [scene[k].clone().requires_grad_(requires_grad) for k in ('density', 'features')]
    transform = torch.stack([1 / scene['voxel_size'], -scene['lower'] / scene['voxel_size'] - 0.5])
    return (*leaves, scene['origins'], scene['directions'], scene['t'], transform, *_options(settings))


@pytest.mark.parametrize('seed', [0, 6, 10])
def test_opcheck(seed):
    _need_cpu()
    scene = make_march_scene(seed, channels=3, rays=9)
    args = _arguments(scene)
    torch.library.opcheck(torch.ops.gaussian_rasterization.march.default, args)
    with torch.no_grad():
        outputs = torch.ops.gaussian_rasterization.march(*args)
        plain = [x.detach() if isinstance(x, torch.Tensor) else x for x in args]
        grads = [torch.randn_like(x) for x in outputs[:6]]
        for given, needs in ((grads, (True, True)), ([None, grads[1], *[None] * 4], (True, False))):
            torch.library.opcheck(torch.ops.gaussian_rasterization.march_backward.default, (*given, *plain, *needs))


def test_compile_and_autocast(compiled, to_device):
    scene = to_device(make_march_scene(3, channels=4), compiled)

    def loss(density, features):
        out = march_rays(**dict(scene, density=density.exp(), features=features.softmax(-1)), backend=compiled)
        return out.features.square().sum() + out.depth.mean()

    leaves = [scene[k].clone().requires_grad_() for k in ('density', 'features')]
    want = loss(*leaves)
    want_grads = torch.autograd.grad(want, leaves)
    got = torch.compile(loss, backend='aot_eager')(*leaves)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, leaves), want_grads, strict=True):
        torch.testing.assert_close(a, b)
    half = dict(scene, density=scene['density'].half(), features=scene['features'].bfloat16())
    with torch.autocast(scene['density'].device.type, dtype=torch.bfloat16):
        assert march_rays(**half, backend=compiled).features.dtype == torch.float32


def test_strided_volumes(compiled, to_device):
    """Channels first in memory, as networks make them."""
    scene = to_device(make_march_scene(12, channels=4, rays=20), compiled)
    first = scene['features'].permute(0, 4, 1, 2, 3).contiguous().permute(0, 2, 3, 4, 1).requires_grad_()
    plain = scene['features'].clone().requires_grad_()
    grads = []
    for features in (first, plain):
        out = march_rays(**dict(scene, features=features), backend=compiled)
        grads.append(torch.autograd.grad(out.features.square().sum(), features)[0])
    assert torch.equal(*grads)


def test_operator_checks_its_input():
    """The operator is safe without the Python wrapper, too."""
    _need_cpu()
    march = torch.ops.gaussian_rasterization.march
    args = list(_arguments(make_march_scene(1, channels=2), False))
    for position, value, error, message in (
        (0, torch.zeros(40, 2), ValueError, r'density must be \(B, X, Y, Z\)'),
        (0, args[0].double(), TypeError, 'expected float32'),
        (1, torch.zeros(1, 1, 1, 1, 2), ValueError, 'features must be'),
        (3, torch.zeros(1, 77, 3), ValueError, 'directions must fit'),
        (4, torch.zeros(0), ValueError, 't must be'),
        (5, torch.zeros(3), ValueError, r'transform must be \(2, 3\)'),
        (6, 7, ValueError, 'out of range'),
    ):
        bad = list(args)
        bad[position] = value
        with pytest.raises(error, match=message):
            march(*bad)


def test_compiled_backends_refuse_other_derivatives(compiled, to_device):
    scene = to_device(make_march_scene(3, channels=2), compiled)
    density = scene.pop('density')

    def total(values):
        return march_rays(values, **scene, backend=compiled).features.square().sum()

    leaf = density.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(total(leaf), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match=r"first derivatives only.*backend='reference'"):
        gradient.square().sum().backward()
    with pytest.raises(RuntimeError, match='no forward-mode derivatives'):
        torch.func.jvp(total, (density,), (torch.ones_like(density),))


def test_a_library_without_the_marcher_says_so(monkeypatch):
    monkeypatch.setitem(backends.COMPILED, ('march', 'cpu'), False)
    monkeypatch.setitem(backends.AVAILABLE, 'cpu', True)
    with pytest.raises(RuntimeError, match=r'built before march_rays existed. Build it again'):
        march_rays(**make_march_scene(1), backend='cpu')


def test_contraction_is_the_same_in_float32_everywhere(compiled, to_device):
    """Kept samples, weights and counts under the rule that skips close samples: the same to the last sample."""
    scene, contraction = street(shape=(40, 40, 8), channels=1)
    contraction = MipContraction(contraction.center, 7.0, 8.0, 0.19)
    settings = MarchSettings(form='nerf', contraction=contraction, weights=True)
    few = {k: scene[k][:, :300] for k in ('origins', 'directions')}
    scene = dict(scene, **few, settings=settings, t=contraction.distances(40), voxel_size=(0.4,) * 3, lower=(-8.0, -8.0, -1.0))
    want = march_rays(**scene, backend='reference')
    got = march_rays(**to_device(scene, compiled), backend=compiled)
    assert torch.equal(got.count.cpu(), want.count)
    assert want.count.unique().numel() > 1


def test_constants_are_the_same_in_both_languages():
    text = (Path(__file__).resolve().parents[1] / 'csrc/march.h').read_text()
    assert float(re.search(r'INFINITE_STEP = ([\de.+-]+)f;', text)[1]) == INFINITE_STEP
