"""What the images must be, on every backend."""

import math

import pytest
import torch

from gaussian_rasterization import RasterSettings, rasterize
from gaussian_rasterization.reference import rasterize_reference


def _one(opacity=0.8, sigma=0.5, depth=4.0, count=1, width=16, height=12, channels=2):
    """``count`` equal isotropic Gaussians on the optical axis, which passes through the centre of pixel (8, 6)."""
    return dict(
        means=torch.tensor([[0.0, 0.0, depth]]).repeat(count, 1),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
        scales=torch.full((count, 3), sigma),
        opacities=torch.full((count,), opacity),
        features=torch.arange(1.0, count * channels + 1).reshape(count, channels),
        viewmats=torch.eye(4)[None],
        Ks=torch.tensor([[[10.0, 0.0, 8.5], [0.0, 10.0, 6.5], [0.0, 0.0, 1.0]]]),
        width=width,
        height=height,
    )


def test_closed_form(backend, to_device):
    """One Gaussian on the axis: alpha = o exp(-d^2 / (2 s^2)) with s^2 = (f sigma / z)^2 + 0.3."""
    scene = to_device(_one(), backend)
    background = torch.tensor([0.25, -1.0], device=scene['means'].device)
    out = rasterize(**scene, background=background, backend=backend)
    variance = (10.0 * 0.5 / 4.0) ** 2 + 0.3
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing='ij')
    alpha = 0.8 * torch.exp(-((x - 8) ** 2 + (y - 6) ** 2) / (2 * variance))
    alpha = torch.where(alpha < 1 / 255, 0.0, alpha)
    torch.testing.assert_close(out.alpha[0].cpu(), alpha, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(out.depth[0].cpu(), 4 * alpha, atol=1e-5, rtol=1e-5)
    want = alpha[..., None] * torch.tensor([1.0, 2.0]) + (1 - alpha[..., None]) * torch.tensor([0.25, -1.0])
    torch.testing.assert_close(out.features[0].cpu(), want, atol=1e-5, rtol=1e-5)
    assert out.radii.tolist() == [[math.ceil(3 * math.sqrt(variance + math.sqrt(0.1)))]]
    assert out.radii.dtype == torch.int32


def test_equal_depth_keeps_input_order(backend, to_device):
    scene = to_device(_one(opacity=0.9, count=3, channels=1), backend)
    out = rasterize(**scene, backend=backend)
    weights = torch.tensor([0.9, 0.09, 0.009])
    torch.testing.assert_close(out.features[0, 6, 8, 0].cpu(), (weights * torch.tensor([1.0, 2.0, 3.0])).sum())


def test_second_capped_gaussian_is_not_blended(backend, to_device):
    """0.01^2 is just below the stop threshold in float32, so one percent of the light is left."""
    scene = to_device(_one(opacity=1.0, count=2, channels=1), backend)
    out = rasterize(**scene, backend=backend)
    assert float(out.alpha[0, 6, 8]) == pytest.approx(0.99, abs=1e-6)
    assert float(out.features[0, 6, 8, 0]) == pytest.approx(0.99, abs=1e-6)


def test_permutation_of_the_input(backend, to_device, make_scene):
    scene = to_device(make_scene(11, count=120), backend)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0)).to(scene['means'].device)
    shuffled = {k: v[order] if k in ('means', 'quats', 'scales', 'opacities', 'features') else v for k, v in scene.items()}
    first, second = rasterize(**scene, backend=backend), rasterize(**shuffled, backend=backend)
    torch.testing.assert_close(first.features, second.features, atol=1e-6, rtol=1e-6)
    assert torch.equal(first.radii[:, order], second.radii)


def test_invisible_opacities_change_nothing(backend, to_device, make_scene):
    scene = to_device(make_scene(12, count=100), backend)
    scene['opacities'][::2] *= 1 / 300
    kept = {k: v[1::2] if k in ('means', 'quats', 'scales', 'opacities', 'features') else v for k, v in scene.items()}
    full, part = rasterize(**scene, backend=backend), rasterize(**kept, backend=backend)
    for name in ('features', 'depth', 'alpha'):
        assert torch.equal(getattr(full, name), getattr(part, name)), name


@pytest.mark.parametrize('tile_size', [1, 4, 5, 16, 64])
def test_reference_does_not_depend_on_the_tile_size(make_scene, tile_size):
    scene = make_scene(13, count=150)
    scene['background'] = scene['background'][None]
    settings = RasterSettings()
    want = rasterize_reference(**scene, settings=settings)
    got = rasterize_reference(**scene, settings=settings, tile_size=tile_size)
    for a, b in zip(want, got, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_reference_in_small_pieces_is_the_same(make_scene, monkeypatch):
    """Segments, groups of tile rows and recomputation in the backward pass only bound the memory."""
    from gaussian_rasterization import reference

    scene = make_scene(14, count=150, dtype=torch.float64)

    def run():
        leaves = [scene[k].clone().requires_grad_() for k in ('means', 'opacities', 'features')]
        out = rasterize(**dict(scene, means=leaves[0], opacities=leaves[1], features=leaves[2]))
        return (out.features, *torch.autograd.grad(out.features.square().sum() + out.depth.sum(), leaves))

    want = run()
    for name, value in dict(SEGMENT=3, MAX_PAIRS=500, MAX_ENTRIES=40, CHECKPOINT_PAIRS=0).items():
        monkeypatch.setattr(reference, name, value)
    for a, b in zip(want, run(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize('count', [0, 1, 3])
@pytest.mark.parametrize('size', [(1, 1), (17, 1), (1, 13), (33, 31)])
def test_background_where_nothing_is(backend, to_device, count, size):
    scene = to_device(_one(count=count, depth=-5.0, width=size[0], height=size[1]), backend)
    background = torch.tensor([0.5, 2.0], device=scene['means'].device)
    leaves = {k: scene[k].requires_grad_() for k in ('means', 'opacities', 'features')}
    out = rasterize(**dict(scene, **leaves), background=background, backend=backend)
    assert out.features.shape == (1, size[1], size[0], 2)
    assert torch.equal(out.features, background.expand_as(out.features))
    assert not out.depth.any() and not out.alpha.any() and not out.radii.any()
    if out.features.requires_grad:
        out.features.sum().backward()
        assert all(leaf.grad is None or not leaf.grad.any() for leaf in leaves.values())


def test_probabilities_and_background_sum_to_one(backend, to_device, make_scene):
    scene = to_device(make_scene(15, count=300, channels=18), backend)
    scene['features'] = scene['features'].softmax(-1)
    scene['background'] = torch.eye(18, device=scene['means'].device)[17]
    total = rasterize(**scene, backend=backend).features.sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-5, rtol=0)


def test_zero_quaternion_is_the_identity(backend, to_device, make_scene):
    scene = to_device(make_scene(16), backend)
    scene['quats'] = torch.zeros_like(scene['quats'])
    zero = rasterize(**scene, backend=backend)
    scene['quats'][:, 0] = 1
    one = rasterize(**scene, backend=backend)
    assert torch.equal(zero.features, one.features)
    assert zero.features.isfinite().all()


@pytest.mark.parametrize('channels', [1, 3, 17, 18, 19, 33, 64, 256])
def test_any_number_of_channels(backend, to_device, make_scene, channels):
    """Channels do not know of each other: a wide render equals narrow ones side by side, gradients too."""
    scene = to_device(make_scene(17, count=60, channels=channels), backend)
    features = scene['features'].clone().requires_grad_()
    wide = rasterize(**dict(scene, features=features), backend=backend)
    (grad,) = torch.autograd.grad(wide.features.square().sum(), features)
    for c in {0, channels // 2, channels - 1}:
        part = features[:, c : c + 1].detach().requires_grad_()
        narrow = rasterize(**dict(scene, features=part, background=scene['background'][c : c + 1]), backend=backend)
        torch.testing.assert_close(narrow.features[..., 0], wide.features[..., c], atol=1e-6, rtol=1e-5)
        (want,) = torch.autograd.grad(narrow.features.square().sum(), part)
        torch.testing.assert_close(want[:, 0], grad[:, c], atol=1e-4, rtol=1e-4)


def test_views_are_independent(backend, to_device, make_scene):
    scene = to_device(make_scene(18, count=80, views=3), backend)
    scene['background'] = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).to(scene['means'].device)
    together = rasterize(**scene, backend=backend)
    for i in range(3):
        alone = rasterize(
            **dict(
                scene,
                viewmats=scene['viewmats'][i : i + 1],
                Ks=scene['Ks'][i : i + 1],
                background=scene['background'][i],
            ),
            backend=backend,
        )
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i], b[0], atol=1e-6, rtol=1e-6)


def test_labels_equal_one_hot(backend, to_device, make_scene):
    scene = to_device(make_scene(19, count=150, channels=7), backend)
    labels = torch.arange(150, device=scene['means'].device) % 7
    one_hot = torch.nn.functional.one_hot(labels, 7).float()
    for dtype in (torch.int64, torch.int32, torch.uint8):
        got = rasterize(**dict(scene, features=labels.to(dtype)), num_classes=7, backend=backend)
        want = rasterize(**dict(scene, features=one_hot), backend=backend)
        torch.testing.assert_close(got.features, want.features, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(got.depth, want.depth, atol=1e-6, rtol=1e-6)
    opacities = [scene['opacities'].clone().requires_grad_() for _ in range(2)]
    by_label = rasterize(**dict(scene, features=labels, opacities=opacities[0]), num_classes=7, backend=backend)
    by_row = rasterize(**dict(scene, features=one_hot, opacities=opacities[1]), backend=backend)
    (a,) = torch.autograd.grad(by_label.features.square().sum(), opacities[0])
    (b,) = torch.autograd.grad(by_row.features.square().sum(), opacities[1])
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_labels_without_gaussians(backend, to_device):
    """An empty tensor of labels is still labels: the background, and a gradient to it."""
    scene = to_device(_one(count=0, channels=1), backend)
    device = scene['means'].device
    scene['features'] = torch.zeros(0, dtype=torch.int64, device=device)
    background = torch.tensor([0.5, 2.0, -1.0], device=device, requires_grad=True)
    out = rasterize(**dict(scene, background=background), num_classes=3, backend=backend)
    assert (out.features == background).all() and (out.alpha == 0).all()
    out.features.sum().backward()
    assert (background.grad == out.alpha.numel()).all()


def test_tile_mask(backend, to_device, make_scene):
    scene = to_device(make_scene(20, count=100), backend)
    mask = torch.tensor([[[True, False, True], [False, True, False]]], device=scene['means'].device)
    features = [scene['features'].clone().requires_grad_() for _ in range(2)]
    whole = rasterize(**dict(scene, features=features[0]), backend=backend)
    masked = rasterize(**dict(scene, features=features[1]), tile_mask=mask, backend=backend)
    pixels = mask.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :23, :37]
    torch.testing.assert_close(masked.features[pixels], whole.features[pixels], atol=1e-6, rtol=1e-6)
    background = scene['background'].expand_as(masked.features)
    assert torch.equal(masked.features[~pixels], background[~pixels])
    assert not masked.alpha[~pixels].any() and not masked.depth[~pixels].any()
    (a,) = torch.autograd.grad(masked.features.square().sum(), features[1])
    (b,) = torch.autograd.grad(whole.features.square()[pixels].sum(), features[0])
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_offcentre_clamp(backend, to_device):
    """Principal point at the left border: the symmetric limits thin out what is far right, the others do not."""
    scene = to_device(_one(width=40, height=12), backend)
    scene['Ks'][0, 0, 2] = 0.0
    scene['means'][0] = torch.tensor([12.0, 0.0, 4.0])
    radii = {
        kind: int(rasterize(**scene, settings=RasterSettings(jacobian_clamp=kind), backend=backend).radii)
        for kind in ('symmetric', 'offcentre')
    }
    assert radii['offcentre'] > radii['symmetric']


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_inputs_and_strides(backend, to_device, make_scene, dtype):
    scene = to_device(make_scene(21), backend)
    low = {k: v.to(dtype) if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
    full = {k: v.float() if isinstance(v, torch.Tensor) else v for k, v in low.items()}
    strided = {
        k: v.float().movedim(0, -1).contiguous().movedim(-1, 0) if isinstance(v, torch.Tensor) else v for k, v in low.items()
    }
    want = rasterize(**full, backend=backend)
    assert not strided['means'].is_contiguous()
    for other in (low, strided):
        got = rasterize(**other, backend=backend)
        assert got.features.dtype == torch.float32
        assert torch.equal(got.features, want.features)


def test_no_grad_stores_nothing(backend, to_device, make_scene):
    scene = to_device(make_scene(22), backend)
    assert not rasterize(**scene, backend=backend).features.requires_grad
    scene['features'].requires_grad_()
    with torch.no_grad():
        assert rasterize(**scene, backend=backend).features.grad_fn is None


HOSTILE = (0.0, -1.0, 1e-30, 1e30, 3e38, -3e38, float('nan'), float('inf'), -float('inf'))


@pytest.mark.parametrize('name', ['means', 'quats', 'scales', 'opacities'])
def test_hostile_values_never_reach_the_image(backend, to_device, make_scene, name):
    """Whatever geometry holds, images and gradients of finite features are finite."""
    scene = to_device(make_scene(23, count=120), backend)
    flat = scene[name].view(-1)
    for i, value in enumerate(HOSTILE):
        flat[i * 5 : i * 5 + 2] = value
    leaves = {k: scene[k].clone().requires_grad_() for k in ('means', 'quats', 'scales', 'opacities', 'features')}
    out = rasterize(**dict(scene, **leaves), backend=backend)
    for image in out[:3]:
        assert image.isfinite().all()
    (out.features.square().sum() + out.alpha.sum()).backward()
    for key, leaf in leaves.items():
        assert leaf.grad.isfinite().all(), key


def test_huge_gaussians_and_long_lists(backend, to_device):
    """Thousands of faint Gaussians over all pixels, more than any internal batch."""
    count = 3000
    scene = to_device(_one(opacity=0.0041, sigma=100.0, count=count, channels=1), backend)
    scene['features'][:] = 1.0
    out = rasterize(**scene, backend=backend)
    light = (1 - 0.0041 * math.exp(-0.0)) ** count
    assert float(out.alpha[0, 6, 8]) == pytest.approx(1 - max(light, 1e-4), abs=2e-4)
    torch.testing.assert_close(out.features[..., 0], out.alpha, atol=1e-4, rtol=1e-4)


def test_radii_of_what_lies_outside_the_image(backend, to_device, make_scene):
    scene = to_device(make_scene(0, count=6, channels=2), backend)
    scene['viewmats'] = torch.eye(4, device=scene['means'].device)[None]
    scene['Ks'] = torch.tensor([[[30.0, 0.0, 18.0], [0.0, 30.0, 11.0], [0.0, 0.0, 1.0]]], device=scene['means'].device)
    scene['scales'][:] = 0.1
    # in the middle, just outside on the right, far on every side, behind
    scene['means'][:] = torch.tensor([[0, 0, 3], [2, 0, 3], [50, 0, 3], [-50, 0, 3], [0, 50, 3], [0, 0, -3.0]])
    radii = rasterize(**scene, backend=backend).radii[0]
    assert (radii > 0).tolist() == [True, True, False, False, False, False]
    # whatever has a gradient is seen
    for seed in range(3):
        scene = to_device(make_scene(seed, count=200), backend)
        scene['means'][:, :2] *= 4
        scene['opacities'].requires_grad_()
        out = rasterize(**scene, backend=backend)
        out.alpha.sum().backward()
        drawn = scene['opacities'].grad != 0
        assert drawn.any() and (out.radii[0][drawn] > 0).all()
