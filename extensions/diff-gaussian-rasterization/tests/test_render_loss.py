"""The loss without images against both renders compared with PyTorch."""

import numpy as np
import pytest
import torch

from gaussian_rasterization import (
    RasterSettings,
    RenderLossSettings,
    TargetGaussians,
    TargetImages,
    backends,
    fused_render_loss,
    rasterize,
)

PREDICTION = ('means', 'quats', 'scales', 'opacities', 'features')
CAMERAS = ('viewmats', 'Ks', 'width', 'height')


@pytest.fixture
def make_case(make_scene):
    """Function (seed, ...) -> arguments of ``fused_render_loss``: probabilities against labels of other Gaussians."""

    def make(seed, dtype=torch.float32, channels=5, views=2, count=60, kind='labels', **size):
        scene = make_scene(seed, count, channels, views, dtype, **size)
        other = make_scene(seed + 1000, count // 2, channels, 1, dtype)
        generator = torch.Generator().manual_seed(seed)
        scene['features'] = scene['features'].softmax(-1)
        scene['background'] = torch.eye(channels, dtype=dtype)[channels - 1]
        labels = torch.randint(channels - 1, (count // 2,), generator=generator)
        goal = TargetGaussians(*(other[k] for k in PREDICTION[:4]), labels)
        if kind == 'features':
            goal = goal._replace(features=torch.eye(channels, dtype=dtype)[labels])
        if kind == 'images':
            with torch.no_grad():
                images = rasterize(
                    *goal, *(scene[k] for k in CAMERAS), scene['background'], num_classes=channels, backend='reference'
                )
            goal = TargetImages(images.features, images.depth)
        return dict(scene, target=goal)

    return make


def _need_fused():
    if not backends.COMPILED['render_loss', 'cpu']:
        pytest.skip(f'the compiled loss is not built: {backends.BUILD_COMMAND}')


def _losses(case, factors=(0.7, 0.3), **options):
    """Losses, view means, pixels and the gradients of opacities and features."""
    leaves = {k: case[k].clone().requires_grad_() for k in ('opacities', 'features')}
    out = fused_render_loss(**dict(case, **leaves), **options)
    (factors[0] * out.semantic + factors[1] * out.depth).backward()
    return type(out)(*(t.detach() for t in out)), {k: v.grad for k, v in leaves.items()}


def _compare(case, **options):
    want, want_grads = _losses(case, fused=False, backend='cpu', **options)
    got, got_grads = _losses(case, fused=True, **options)
    torch.testing.assert_close(got.semantic, want.semantic, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(got.depth, want.depth, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(got.view_means, want.view_means, rtol=1e-5, atol=1e-7)
    assert torch.equal(got.view_pixels, want.view_pixels)
    for name, grad in got_grads.items():
        reference = want_grads[name]
        assert grad.shape == reference.shape
        if grad.numel() == 0:
            continue
        error = (grad - reference).abs().max() / reference.abs().max().clamp_min(1e-8)
        assert error < 1e-4, (name, float(error))
    return got, got_grads


@pytest.mark.parametrize('semantic', ['l1', 'kl_softmax', 'kl_log', None])
@pytest.mark.parametrize('kind', ['labels', 'features', 'images'])
def test_fused_equals_unfused(make_case, semantic, kind):
    """Eight or nine random scenes per combination, a hundred in all: sizes, channels, views, masks, variants."""
    _need_fused()
    for seed in range(9):
        rng = np.random.default_rng(seed)
        channels, views = int(rng.choice([2, 3, 7, 18, 21, 40])), int(rng.integers(1, 4))
        width, height = int(rng.integers(1, 70)), int(rng.integers(1, 50))
        case = make_case(seed, channels=channels, views=views, kind=kind, width=width, height=height)
        loss = RenderLossSettings(semantic, depth=semantic is None or bool(rng.integers(2)))
        if rng.random() < 0.3:
            loss = RenderLossSettings(semantic, loss.depth, free_class=channels - 1)
        options = dict(loss=loss)
        if rng.random() < 0.5:
            options['tile_mask'] = torch.tensor(rng.random((views, -(-height // 16), -(-width // 16))) < 0.6)
        if rng.random() < 0.5:
            options['view_weights'] = torch.rand(views, 2, generator=torch.Generator().manual_seed(seed))
        variant = dict(cap_gradient=['straight', 'exact'][rng.integers(2)], tile_compat=[None, 'rect12'][rng.integers(2)])
        _compare(case, settings=RasterSettings(**variant), **options)


def test_the_losses_have_gradients_of_their_own(make_case):
    """Each loss may have any factor after the call, zero and negative ones too."""
    _need_fused()
    case = make_case(1, count=200)
    _, both = _losses(case, (2.0, -3.0), fused=True)
    _, semantic = _losses(case, (1.0, 0.0), fused=True)
    _, depth = _losses(case, (0.0, 1.0), fused=True)
    assert (depth['features'] == 0).all() and (depth['opacities'] != 0).any() and (semantic['features'] != 0).any()
    for name in both:
        torch.testing.assert_close(both[name], 2 * semantic[name] - 3 * depth[name])


def test_rows_in_several_passes(make_case, monkeypatch):
    _need_fused()
    case = make_case(2, count=400, width=300, height=90)
    _, want = _losses(case, fused=True)
    monkeypatch.setenv('GAUSSIAN_RASTERIZATION_ROW_BYTES', '4096')
    _, got = _losses(case, fused=True)
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=1e-4, atol=1e-5 * float(want[name].abs().max()))


def test_bitwise_equal_for_any_number_of_threads(make_case):
    _need_fused()
    case = make_case(3, count=2000, channels=18, width=300, height=70)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8, 8):
            torch.set_num_threads(threads)
            out, grads = _losses(case, fused=True)
            results.append([*out, *grads.values()])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize('semantic', ['l1', 'kl_softmax', 'kl_log'])
def test_finite_differences_of_the_reference(make_case, semantic):
    case = make_case(4, torch.float64, channels=3, views=2, count=8, width=9, height=7)
    case['scales'], case['opacities'] = case['scales'] + 0.5, case['opacities'] * 0.4 + 0.2
    loss = RenderLossSettings(semantic)
    settings = RasterSettings(alpha_min=1e-9)

    def losses(opacities, features):
        out = fused_render_loss(**dict(case, opacities=opacities, features=features), loss=loss, settings=settings)
        return out.semantic, out.depth

    inputs = [case[k].clone().requires_grad_() for k in ('opacities', 'features')]
    assert torch.autograd.gradcheck(losses, inputs)


def test_geometry_gradients_take_the_images(make_case):
    """The fused loss has none of them: the call is answered all the same, unless it must be fused."""
    _need_fused()
    case = make_case(5)
    means = case['means'].clone().requires_grad_()
    out = fused_render_loss(**dict(case, means=means))
    (out.semantic + out.depth).backward()
    assert (means.grad != 0).any()
    with pytest.raises(ValueError, match='means, quats, scales'):
        fused_render_loss(**dict(case, means=means), fused=True)
    with pytest.raises(ValueError, match='reference'):
        fused_render_loss(**case, backend='reference', fused=True)


def test_views_without_valid_pixels(make_case):
    """No depth anywhere and everything free: losses and gradients are zero, not NaN."""
    _need_fused()
    case = make_case(6)
    case['target'] = TargetGaussians(*(t[:0] for t in case['target']))
    out, grads = _compare(case, loss=RenderLossSettings(free_class=4))
    assert float(out.semantic) == float(out.depth) == 0 and (out.view_pixels == 0).all()
    assert all((grad == 0).all() for grad in grads.values())
    case = {k: v[:0] if k in PREDICTION else v for k, v in make_case(7).items()}
    out, _ = _compare(case)
    assert float(out.semantic) > 0


@pytest.mark.parametrize('reentrant', [False, True])
def test_checkpointing(make_case, reentrant):
    _need_fused()
    case = make_case(8)

    def loss(opacities, features):
        out = fused_render_loss(**dict(case, opacities=opacities, features=features), fused=True)
        return out.semantic + out.depth

    leaves = [case[k].clone().requires_grad_() for k in ('opacities', 'features')]
    want = torch.autograd.grad(loss(*leaves), leaves)
    torch.utils.checkpoint.checkpoint(loss, *leaves, use_reentrant=reentrant).backward()
    for leaf, grad in zip(leaves, want, strict=True):
        assert torch.equal(leaf.grad, grad)


def test_compile_and_autocast(make_case):
    _need_fused()
    case = make_case(9)

    def loss(opacities, logits):
        out = fused_render_loss(**dict(case, opacities=opacities.sigmoid(), features=logits.softmax(-1)), fused=True)
        return out.semantic + out.depth

    leaves = [case[k].clone().requires_grad_() for k in ('opacities', 'features')]
    want = loss(*leaves)
    want_grads = torch.autograd.grad(want, leaves)
    got = torch.compile(loss, backend='aot_eager', fullgraph=True)(*leaves)
    torch.testing.assert_close(got, want)
    for a, b in zip(torch.autograd.grad(got, leaves), want_grads, strict=True):
        torch.testing.assert_close(a, b)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert fused_render_loss(**case).semantic.dtype == torch.float32


def test_opcheck(make_case):
    _need_fused()
    case = make_case(10)
    prediction = [case[k].clone() for k in PREDICTION]
    for leaf in prediction[3:]:
        leaf.requires_grad_()
    background = case['background'].expand(2, 5).contiguous()
    goal = [*case['target'][:4], case['target'].features.int()]
    options = (0.2, 0.3, 1 / 255, 0.99, 1e-4, 1.0, False, False, False)
    arguments = (
        *prediction, case['viewmats'], case['Ks'], background, None, case['width'], case['height'], *options, *goal, None, None,
        torch.full((2, 2), 0.5), 1, True, 0.1, -1, True,
    )  # fmt: skip
    torch.library.opcheck(torch.ops.gaussian_rasterization.render_loss.default, arguments)


@pytest.mark.parametrize(
    'change, error, name',
    [
        (dict(target=None), TypeError, 'target'),
        (dict(target=TargetImages(torch.zeros(2, 23, 37, 5))), ValueError, 'depth'),
        (dict(target=TargetImages(torch.zeros(2, 3, 37, 5), torch.zeros(2, 23, 37))), ValueError, 'features'),
        (dict(view_weights=torch.ones(3)), ValueError, 'view_weights'),
        (dict(features=torch.zeros(60, dtype=torch.long)), TypeError, 'features'),
    ],
)
def test_messages(make_case, change, error, name):
    with pytest.raises(error, match=name):
        fused_render_loss(**dict(make_case(11), **change))
