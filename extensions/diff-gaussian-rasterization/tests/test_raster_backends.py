"""Compiled backends against the reference, and what PyTorch expects of their operators."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gaussian_rasterization import RasterSettings, backends, build_config, rasterize

LEAVES = ('means', 'quats', 'scales', 'opacities', 'features', 'viewmats', 'background')
VARIANTS = (
    RasterSettings(),
    RasterSettings(cap_gradient='exact', jacobian_clamp='offcentre'),
    RasterSettings(tile_compat='rect12'),
    RasterSettings(near=1.0, dilation=0.1, alpha_min=0.02, alpha_max=0.9, transmittance_min=1e-2, scale_modifier=1.3),
)


def _full_size_scene(*arguments):
    path = Path(__file__).resolve().parents[1] / 'benchmarks/scenes.py'
    spec = importlib.util.spec_from_file_location('raster_scenes', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_scene(*arguments)


def _need_cpu():
    if not backends.AVAILABLE['cpu']:
        pytest.skip(f'the cpu backend is not built: {backends.BUILD_COMMAND}')


def _stable_pixels(scene, settings):
    """Pixels (V, H, W) whose float64 value does not hang on a threshold."""
    images = []
    for sign in (-1, 1):
        options = dict(vars(settings))
        options['alpha_min'] *= 1 + sign * 1e-4
        options['transmittance_min'] *= 1 + sign * 2e-3
        out = rasterize(**scene, settings=RasterSettings(**options), backend='reference')
        images.append(torch.cat([out.features, out.depth[..., None]], -1))
    return (images[0] - images[1]).abs().amax(-1) < 1e-7


def _render(scene, settings, backend, weights):
    leaves = {k: scene[k].clone().requires_grad_() for k in LEAVES}
    out = rasterize(**dict(scene, **leaves), settings=settings, backend=backend)
    images = (out.features, out.depth, out.alpha)
    loss = sum((w.to(image) * image).sum() for w, image in zip(weights, images, strict=True))
    loss.backward()
    return out, {k: leaf.grad for k, leaf in leaves.items()}


@pytest.mark.parametrize('variant', range(len(VARIANTS)))
def test_random_scenes_agree_with_the_reference(compiled, make_scene, to_device, variant):
    """50 scenes per variant: images within 2e-5, gradients within 1e-4 of the largest, off the thresholds."""
    settings = VARIANTS[variant]
    for seed in range(50):
        rng = np.random.default_rng(seed)
        channels, views = int(rng.integers(1, 25)), int(rng.integers(1, 3))
        size = dict(width=int(rng.integers(1, 60)), height=int(rng.integers(1, 40)))
        scene = make_scene(1000 * variant + seed, int(rng.integers(1, 120)), channels, views, **size)
        exact = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
        stable = _stable_pixels(exact, settings).float()
        generator = torch.Generator().manual_seed(seed)
        weights = [torch.randn(*stable.shape, channels, generator=generator) * stable[..., None]]
        weights += [torch.randn(stable.shape, generator=generator) * stable for _ in range(2)]
        want, want_grads = _render(exact, settings, 'reference', weights)
        got, got_grads = _render(to_device(scene, compiled), settings, compiled, weights)
        assert stable.mean() > 0.8
        for name, image in zip(('features', 'depth', 'alpha'), got[:3], strict=True):
            reference = getattr(want, name).detach()
            error = (image.cpu() - reference).abs()[stable.bool()]
            assert error.numel() == 0 or error.max() < 2e-5 * max(1.0, float(reference.abs().max())), (seed, name)
        assert (got.radii.cpu() - want.radii).abs().max() <= 1, seed
        for name, grad in got_grads.items():
            reference = want_grads[name]
            error = (grad.cpu() - reference).abs().max() / reference.abs().max().clamp_min(1e-3)
            assert error < 1e-4, (seed, name, float(error))


def test_long_diagonal_gaussians_in_a_wide_image(compiled, make_scene, to_device):
    """Ellipses that cross many tiles and blocks of tiles, most of whose bounding box they do not touch."""
    scene = make_scene(4, count=300, width=700, height=120)
    scene['Ks'][:, 0, 0], scene['Ks'][:, 1, 1] = 300.0, 300.0
    scene['Ks'][:, 0, 2], scene['Ks'][:, 1, 2] = 350.0, 60.0
    scene['scales'] = scene['scales'] * torch.tensor([1.5, 0.05, 0.05])
    weights = [torch.randn(1, 120, 700, 3), torch.randn(1, 120, 700), torch.randn(1, 120, 700)]
    exact = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
    stable = _stable_pixels(exact, RasterSettings()).float()
    weights = [weights[0] * stable[..., None], weights[1] * stable, weights[2] * stable]
    want, want_grads = _render(exact, RasterSettings(), 'reference', weights)
    got, got_grads = _render(to_device(scene, compiled), RasterSettings(), compiled, weights)
    assert (got.features.detach().cpu() - want.features.detach()).abs()[stable.bool()].max() < 1e-4
    for name in LEAVES:
        error = (got_grads[name].cpu() - want_grads[name]).abs().max() / want_grads[name].abs().max()
        assert error < 1e-3, (name, float(error))


def test_bitwise_equal_for_any_number_of_threads(make_scene):
    _need_cpu()
    scene = make_scene(1, count=2000, channels=5, views=2, width=300, height=70)
    weights = [torch.randn(2, 70, 300, 5), torch.randn(2, 70, 300), torch.randn(2, 70, 300)]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8, 8):
            torch.set_num_threads(threads)
            out, grads = _render(scene, RasterSettings(), 'cpu', weights)
            labels = rasterize(**dict(scene, features=torch.arange(2000) % 5), num_classes=5, backend='cpu')
            results.append([*out, *grads.values(), *labels])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_gradient_rows_in_several_passes(compiled, make_scene, to_device, monkeypatch):
    """A budget below the need splits the backward pass; sums differ in rounding only."""
    scene = to_device(make_scene(2, count=500, width=300, height=90), compiled)
    weights = [torch.randn(1, 90, 300, 3), torch.randn(1, 90, 300), torch.randn(1, 90, 300)]
    _, want = _render(scene, RasterSettings(), compiled, weights)
    monkeypatch.setenv('GAUSSIAN_RASTERIZATION_ROW_BYTES', '4096')
    _, got = _render(scene, RasterSettings(), compiled, weights)
    assert any(not torch.equal(want[name], got[name]) for name in want)
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-4, atol=1e-5 * float(want[name].abs().max()))


def test_culling_is_that_of_the_forward_pass(compiled, make_scene, to_device, monkeypatch):
    """Stops are positions in lists: the backward pass makes the same ones although the environment has changed."""
    scene = to_device(make_scene(11, count=300, width=120, height=60), compiled)
    leaves = {k: scene[k].clone().requires_grad_() for k in LEAVES}
    grads = []
    for between in ('0', '1'):
        monkeypatch.setenv('GAUSSIAN_RASTERIZATION_CULL', '0')
        out = rasterize(**dict(scene, **leaves), backend=compiled)
        monkeypatch.setenv('GAUSSIAN_RASTERIZATION_CULL', between)
        loss = out.features.square().sum() + out.depth.sum()
        grads.append(torch.autograd.grad(loss, list(leaves.values())))
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


def test_the_state_may_be_copied(compiled, make_scene, to_device):
    """Hooks that move saved tensors elsewhere keep their values only: what lies behind them in memory is made again."""
    scene = to_device(make_scene(12, count=300, views=2, width=120, height=60), compiled)
    weights = [torch.randn(2, 60, 120, 3), torch.randn(2, 60, 120), torch.randn(2, 60, 120)]
    _, want = _render(scene, RasterSettings(), compiled, weights)
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda x: x):
        _, got = _render(scene, RasterSettings(), compiled, weights)
    for name in want:
        assert torch.equal(got[name], want[name]), name


@pytest.mark.parametrize('views', [3, 64])
def test_views_of_one_call_are_those_of_many(compiled, make_scene, to_device, views):
    """The same bits per view, gradients up to the order of the sum; one of the views sees no Gaussian."""
    scene = make_scene(13, count=80, channels=4, views=views, width=50, height=30)
    scene['viewmats'][1, 2, 3] = -1000.0
    scene = to_device(scene, compiled)
    weights = [torch.randn(views, 30, 50, 4), torch.randn(views, 30, 50), torch.randn(views, 30, 50)]
    together, want = _render(scene, RasterSettings(), compiled, weights)
    total = None
    for v in range(views):
        one = dict(scene, viewmats=scene['viewmats'][v : v + 1], Ks=scene['Ks'][v : v + 1])
        out, grads = _render(one, RasterSettings(), compiled, [w[v : v + 1] for w in weights])
        for a, b in zip(out, together, strict=True):
            assert torch.equal(a[0], b[v])
        assert torch.equal(grads.pop('viewmats')[0], want['viewmats'][v])
        total = {k: grad + (total[k] if total else 0) for k, grad in grads.items()}
    assert (together.radii[1] == 0).all() and (together.radii[0] > 0).any()
    for name, value in total.items():
        torch.testing.assert_close(value, want[name], rtol=1e-4, atol=1e-5 * float(want[name].abs().max()))


def test_full_size_scene_is_repeatable(compiled, to_device):
    """Small scenes cannot show races: a half trained scene of 100 000 Gaussians, five times, the same bits."""
    scale = 1 if compiled == 'cuda' else 4
    scene = to_device(_full_size_scene('nuscenes', 'front', 'half', scale), compiled)
    leaves = {k: scene[k].clone().requires_grad_() for k in ('means', 'scales', 'opacities', 'features')}
    results = []
    for _ in range(5):
        out = rasterize(**dict(scene, **leaves), backend=compiled)
        loss = out.features.square().sum() + out.depth.sum()
        results.append([*out, *torch.autograd.grad(loss, list(leaves.values()))])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize('simd', ['baseline', 'avx2', 'avx512'])
def test_every_instruction_set_agrees(make_scene, simd, tmp_path):
    """The library picks the best instruction set; a smaller one can be asked for and gives the same picture."""
    _need_cpu()
    code = (
        'import sys, torch; from gaussian_rasterization import rasterize, build_config\n'
        's = torch.load(sys.argv[1], weights_only=True); leaf = s["opacities"].requires_grad_()\n'
        'image = rasterize(**s, backend="cpu").features; image.square().sum().backward()\n'
        'torch.save([image.detach(), leaf.grad, build_config()["simd"]], sys.argv[2])'
    )
    scene = make_scene(3, count=300, channels=19, width=61, height=33)
    torch.save(scene, tmp_path / 'scene.pt')
    env = dict(os.environ, GAUSSIAN_RASTERIZATION_SIMD=simd)
    subprocess.run([sys.executable, '-c', code, tmp_path / 'scene.pt', tmp_path / 'out.pt'], check=True, env=env)
    image, grad, used = torch.load(tmp_path / 'out.pt', weights_only=True)
    order = ['baseline', 'avx2', 'avx512']
    if used != simd:
        assert order.index(used) < order.index(simd)
        pytest.skip(f'this machine has no {simd}')
    opacities = scene['opacities'].clone().requires_grad_()
    want = rasterize(**dict(scene, opacities=opacities), backend='cpu').features
    (want_grad,) = torch.autograd.grad(want.square().sum(), opacities)
    # the number of lanes must not matter; fused products round differently
    assert ((image - want).abs().amax(-1) > 1e-5).float().mean() < 0.002
    torch.testing.assert_close(grad, want_grad, rtol=1e-2, atol=1e-3 * float(want_grad.abs().max()))


def _arguments(scene, labels=False, mask=False, keep_state=True):
    features = torch.arange(len(scene['means']), dtype=torch.int32) % 3 if labels else scene['features']
    views = len(scene['viewmats'])
    tile_mask = torch.ones(views, 2, 3, dtype=torch.bool) if mask else None
    head = [scene[k] for k in ('means', 'quats', 'scales', 'opacities')]
    return (
        *head,
        features,
        scene['viewmats'],
        scene['Ks'],
        scene['background'].expand(views, 3).contiguous(),
        tile_mask,
        scene['width'],
        scene['height'],
        0.2,
        0.3,
        1 / 255,
        0.99,
        1e-4,
        1.0,
        False,
        False,
        False,
        keep_state,
    )


@pytest.mark.parametrize('labels, mask', [(False, False), (True, True)])
def test_opcheck(make_scene, labels, mask):
    _need_cpu()
    scene = make_scene(5, count=30, views=2)
    for name in ('means', 'quats', 'scales', 'opacities', 'features', 'viewmats', 'background'):
        scene[name].requires_grad_()
    args = _arguments(scene, labels, mask)
    torch.library.opcheck(torch.ops.gaussian_rasterization.render.default, args)
    with torch.no_grad():
        outputs = torch.ops.gaussian_rasterization.render(*args)
        plain = [a.detach() if isinstance(a, torch.Tensor) else a for a in args[:-1]]
        grads = [torch.randn_like(x) for x in outputs[:3]]
        backward = (*grads, *plain, *outputs[4:], not labels, True, True)
        torch.library.opcheck(torch.ops.gaussian_rasterization.render_backward.default, backward)
        backward = (None, grads[1], None, *plain, *outputs[4:], False, False, False)
        torch.library.opcheck(torch.ops.gaussian_rasterization.render_backward.default, backward)


def test_no_state_unless_a_gradient_is_wanted(make_scene):
    _need_cpu()
    for keep_state in (False, True):
        outputs = torch.ops.gaussian_rasterization.render(*_arguments(make_scene(8), keep_state=keep_state))
        assert [x.numel() > 0 for x in outputs[4:]] == [keep_state] * 4


def test_compile_and_autocast(compiled, make_scene, to_device):
    scene = to_device(make_scene(6, count=50), compiled)

    def loss(features, opacities):
        out = rasterize(**dict(scene, features=features.softmax(-1), opacities=opacities.sigmoid()), backend=compiled)
        return out.features.square().sum() + out.depth.mean()

    leaves = [scene[k].clone().requires_grad_() for k in ('features', 'opacities')]
    want = loss(*leaves)
    want_grads = torch.autograd.grad(want, leaves)
    got = torch.compile(loss, backend='aot_eager', fullgraph=True)(*leaves)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, leaves), want_grads, strict=True):
        torch.testing.assert_close(a, b)
    with torch.autocast(scene['means'].device.type, dtype=torch.bfloat16):
        assert rasterize(**scene, backend=compiled).features.dtype == torch.float32


def test_operator_checks_its_input(make_scene):
    """The operator is safe without the Python wrapper, too."""
    _need_cpu()
    render = torch.ops.gaussian_rasterization.render
    args = list(_arguments(make_scene(7), labels=True))
    for position, value, error, message in (
        (0, torch.zeros(40, 2), ValueError, r'means must be \(G, 3\)'),
        (1, torch.zeros(40, 4, dtype=torch.float64), TypeError, 'expected float32'),
        (3, torch.zeros(39), ValueError, r'opacities must be \(G,\)'),
        (4, torch.full((40,), 3, dtype=torch.int32), ValueError, r'label 3 is not in 0\.\.2'),
        (4, torch.full((40,), -1, dtype=torch.int32), ValueError, r'label -1 is not in 0\.\.2'),
        (9, 0, ValueError, r'is not in 1\.\.32768'),
    ):
        bad = list(args)
        bad[position] = value
        with pytest.raises(error, match=message):
            render(*bad)
    with pytest.raises(RuntimeError, match='keep_state=False'):
        args = list(_arguments(make_scene(7), keep_state=False))
        args[3].requires_grad_()
        render(*args)[0].sum().backward()


def test_lists_without_culling_give_the_same_images(compiled, make_scene, to_device, monkeypatch):
    """The switch that benchmarks use to show what culling saves."""
    for seed, settings in enumerate((RasterSettings(), RasterSettings(dilation=0.0), RasterSettings(tile_compat='rect12'))):
        scene = to_device(make_scene(300 + seed, count=150, channels=5, views=2), compiled)
        weights = [torch.ones(()) for _ in range(3)]
        results = []
        for switch in '10':
            monkeypatch.setenv('GAUSSIAN_RASTERIZATION_CULL', switch)
            out, grads = _render(scene, settings, compiled, weights)
            results.append((*out, *grads.values()))
        for culled, everything in zip(*results, strict=True):
            torch.testing.assert_close(culled, everything, rtol=1e-6, atol=1e-6)
        assert results[0][0].abs().max() > 0.1


def test_build_config(compiled):
    config = build_config()
    assert config[compiled] and config['default'][compiled] == compiled
    assert config['library'].endswith('_C.so') and config['reason'] is None
    assert config['simd'] in ('baseline', 'avx2', 'avx512') and config['compiler']


def test_a_broken_library_does_not_break_the_import(tmp_path):
    """The reason is kept and told to whoever asks for a compiled backend; nothing is built."""
    source = Path(backends.__file__).parent
    package = shutil.copytree(source, tmp_path / 'gaussian_rasterization', ignore=shutil.ignore_patterns('*.so', '__pycache__'))
    (package / '_C.so').write_bytes(b'this is no library')
    code = (
        'import gaussian_rasterization as g; c = g.build_config(); assert not c["cpu"] and c["library"] is None\n'
        'assert "does not load" in c["reason"] and "another PyTorch" in c["reason"], c'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=tmp_path)
    assert {p.name for p in package.glob('*.so')} == {'_C.so'}
