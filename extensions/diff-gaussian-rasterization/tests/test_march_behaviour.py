"""What a ray must see, for every backend; derivatives of the reference; bad input."""

import math

import pytest
import torch
from march_scenes import make_march_scene, probe

from gaussian_rasterization import (
    MarchSettings,
    MipContraction,
    backends,
    march_rays,
    optical_depth,
    probability_weights,
    ray_distortion,
    ray_weights,
)

LOWER, VOXEL = (-4.0, -4.0, -1.0), (0.5, 0.5, 0.5)


def _scene(backend, rays=5, channels=3, dtype=torch.float32):
    """Rays from the middle of an empty volume of 16 x 16 x 4 voxels."""
    device = 'cuda' if backend == 'cuda' else 'cpu'
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(1, rays, 3, generator=generator, dtype=dtype)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    return dict(
        density=torch.zeros(1, 16, 16, 4, dtype=dtype, device=device),
        features=torch.randn(1, 16, 16, 4, channels, generator=generator, dtype=dtype).to(device),
        lower=LOWER,
        voxel_size=VOXEL,
        origins=torch.zeros(1, rays, 3, dtype=dtype, device=device),
        directions=directions.to(device),
        t=torch.arange(0.1, 6, 0.05, dtype=dtype, device=device),
    )


@pytest.mark.parametrize('form', ['nerf', 'dvgo'])
def test_an_empty_volume_is_transparent(backend, form):
    scene = _scene(backend)
    if form == 'dvgo':
        scene['density'] = scene['density'] - 100
        scene['t'] = scene['t'][:10]  # stay inside: outside the value is 0
    out = march_rays(**scene, settings=MarchSettings(form=form, distortion='width'), backend=backend)
    assert (out.alpha < 1e-30).all() and (out.transmittance == 1).all() and (out.depth < 1e-30).all()
    assert (out.features.abs() < 1e-30).all() and (out.distortion < 1e-30).all()
    assert (out.count == len(scene['t'])).all()


@pytest.mark.parametrize('wall', [1.0, 2.5, 3.5])
def test_depth_of_an_opaque_wall(backend, wall):
    """Within half a voxel of the wall's face, at any angle; semantics are the wall's."""
    scene = _scene(backend, rays=40)
    scene['directions'][..., 0] = scene['directions'][..., 0].abs() + 0.7
    scene['directions'][..., 2] *= 0.1
    scene['directions'] = scene['directions'] / scene['directions'].norm(dim=-1, keepdim=True)
    first = round((wall - LOWER[0]) / VOXEL[0])
    scene['density'][:, first:] = 200.0
    scene['features'][:, first:] = torch.tensor([1.0, 2.0, 3.0]).to(scene['features'])
    scene['features'][:, :first] = -1.0
    out = march_rays(**scene, settings=MarchSettings(), backend=backend)
    want = wall / scene['directions'][..., 0]
    point_y = scene['directions'][..., 1] * want
    hits = (point_y.abs() < 3.5) & ((scene['directions'][..., 2] * want).abs() < 0.4)
    assert hits.sum() > 10
    assert (out.transmittance[hits] < 1e-4).all()
    assert ((out.depth - want)[hits].abs() < 0.25 / scene['directions'][..., 0][hits]).all()


def test_uniform_density_follows_the_law(backend):
    """Density s everywhere on the way: transmittance exp(-s length), depth of the exponential distribution."""
    scene = _scene(backend)
    scene['density'][:] = 0.8
    scene['directions'][:] = torch.tensor([1.0, 0.0, 0.0])
    scene['t'] = torch.arange(0, 3, 0.01, device=scene['t'].device)
    out = march_rays(**scene, settings=MarchSettings(), backend=backend)
    torch.testing.assert_close(out.transmittance, torch.full_like(out.depth, math.exp(-0.8 * 3)), rtol=1e-4, atol=0)
    length = 3.0
    want = 1 / 0.8 - math.exp(-0.8 * length) * (length + 1 / 0.8)
    torch.testing.assert_close(out.depth, torch.full_like(out.depth, want), rtol=0, atol=0.01)


@pytest.mark.parametrize('seed', range(12))
def test_weights_and_light_add_up(backend, to_device, seed):
    scene = to_device(make_march_scene(seed, channels=1), backend)
    options = {k: getattr(scene['settings'], k) for k in ('form', 'last_step', 'contraction')}
    scene['settings'] = MarchSettings(**options, weights=True)
    scene['features'] = torch.ones_like(scene['features'])
    out = march_rays(**scene, backend=backend)
    torch.testing.assert_close(out.weights.sum(-1) + out.transmittance, torch.ones_like(out.alpha), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.alpha + out.transmittance, torch.ones_like(out.alpha), rtol=0, atol=1e-6)
    assert (out.weights >= 0).all()
    t = scene['t']
    t = t if t.dim() == 1 else (t[..., 1:] + t[..., :-1]) / 2
    torch.testing.assert_close((out.weights * t).sum(-1), out.depth, rtol=1e-5, atol=1e-4)


def test_no_rays_and_no_volumes(backend, to_device):
    for batch, rays in ((2, 0), (0, 3), (0, 0)):
        scene = to_device(_scene('cpu', rays=rays), backend)
        scene = {k: v.expand(batch, *v.shape[1:]) if k in ('density', 'features', 'origins', 'directions') else v
                 for k, v in scene.items()}  # fmt: skip
        leaves = {k: scene[k].clone().requires_grad_() for k in ('density', 'features')}
        settings = MarchSettings(distortion='count', weights=True)
        out = march_rays(**dict(scene, **leaves), settings=settings, backend=backend)
        assert out.features.shape == (batch, rays, 3) and out.weights.shape == (batch, rays, len(scene['t']))
        assert out.depth.shape == out.distortion.shape == out.count.shape == (batch, rays)
        (out.depth.sum() + out.features.sum()).backward()
        assert all((leaf.grad == 0).all() and leaf.grad.shape == leaf.shape for leaf in leaves.values())


def test_one_sample(backend):
    scene = _scene(backend, rays=4)
    scene['density'][:] = 0.3
    edges = torch.tensor([0.0, 1.0], device=scene['t'].device).expand(1, 1, 2)
    out = march_rays(**dict(scene, t=edges), settings=MarchSettings(), backend=backend)
    torch.testing.assert_close(out.alpha, torch.full_like(out.alpha, 1 - math.exp(-0.3)))
    torch.testing.assert_close(out.depth, 0.5 * out.alpha)
    one = dict(scene, t=torch.ones(1, device=scene['t'].device))
    assert (march_rays(**one, settings=MarchSettings(last_step='inf'), backend=backend).alpha == 1).all()
    assert (march_rays(**one, settings=MarchSettings(form='dvgo'), backend=backend).count == 1).all()
    with pytest.raises(ValueError, match='one sample has no step to repeat'):
        march_rays(**one, settings=MarchSettings(), backend=backend)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), 3e38, 1e20])
def test_rays_that_are_not_finite_see_nothing(backend, value):
    scene = _scene(backend)
    scene['density'][:] = 0.5
    clean = march_rays(**scene, settings=MarchSettings(), backend=backend)
    scene['origins'][0, 1, 0] = value
    scene['directions'][0, 2] = value
    leaves = {k: scene[k].clone().requires_grad_() for k in ('density', 'features')}
    out = march_rays(**dict(scene, **leaves), settings=MarchSettings(), backend=backend)
    assert (out.alpha[0, 1:3] == 0).all() and (out.features[0, 1:3] == 0).all()
    assert torch.equal(out.alpha[0, 3:], clean.alpha[0, 3:])
    (out.features.sum() + out.depth.sum()).backward()
    assert all(leaf.grad.isfinite().all() and leaf.grad.abs().max() > 0 for leaf in leaves.values())


def test_a_zero_direction_stays_where_it_is(backend):
    scene = _scene(backend)
    scene['density'][:] = 0.4
    scene['directions'][0, 0] = 0.0
    out = march_rays(**scene, settings=MarchSettings(), backend=backend)
    length = 0.05 * len(scene['t'])
    assert float(out.alpha[0, 0]) == pytest.approx(1 - math.exp(-0.4 * length), rel=1e-4)


def test_rays_outside_get_no_gradient(backend):
    scene = _scene(backend)
    scene['origins'][:] = torch.tensor([100.0, 0.0, 0.0])
    leaves = {k: scene[k].clone().requires_grad_() for k in ('density', 'features')}
    out = march_rays(**dict(scene, **leaves), settings=MarchSettings(form='dvgo'), backend=backend)
    assert (out.features == 0).all() and (out.alpha > 0).all()  # the raw value outside is 0, and 0 is not quite transparent
    (out.features.sum() + out.depth.sum()).backward()
    assert all((leaf.grad == 0).all() for leaf in leaves.values())


def test_a_volume_that_is_not_finite_shows(backend):
    scene = _scene(backend, rays=30)
    scene['density'][0, 10, 8, 2] = float('nan')
    out = march_rays(**scene, settings=MarchSettings(), backend=backend)
    assert 0 < out.alpha.isnan().sum() < 30


def test_thresholds_change_little_and_count(backend, to_device):
    scene = to_device(make_march_scene(7, channels=3, rays=60), backend)
    exact = dict(form='dvgo')
    fast = dict(exact, alpha_min=1e-7, transmittance_min=1e-3, weight_min=1e-7)
    slow, quick = (march_rays(**dict(scene, settings=MarchSettings(**options)), backend=backend) for options in (exact, fast))
    assert (quick.count <= slow.count).all() and (quick.count < slow.count).any()
    torch.testing.assert_close(quick.features, slow.features, rtol=0, atol=5e-3)
    torch.testing.assert_close(quick.transmittance, slow.transmittance, rtol=0, atol=1.01e-3)


def test_flip_of_the_volume(backend):
    """A mirrored volume seen by mirrored rays is the same picture."""
    scene = _scene(backend, rays=20)
    scene['density'] = torch.rand_like(scene['density'])
    out = march_rays(**scene, settings=MarchSettings(), backend=backend)
    mirror = torch.tensor([1.0, -1.0, 1.0]).to(scene['origins'])
    flipped = dict(scene, density=scene['density'].flip(2), features=scene['features'].flip(2),
                   directions=scene['directions'] * mirror)  # fmt: skip
    again = march_rays(**flipped, settings=MarchSettings(), backend=backend)
    torch.testing.assert_close(again.features, out.features, rtol=0, atol=1e-4)
    torch.testing.assert_close(again.depth, out.depth, rtol=0, atol=1e-4)


def test_positions_and_edges_agree(backend):
    """Edges half way between evenly spaced positions give the same samples."""
    scene = _scene(backend, rays=20)
    scene['density'] = torch.rand_like(scene['density'])
    t = torch.arange(64, device=scene['t'].device) * 0.0625 + 0.125  # exact in float32
    edges = (torch.arange(65, device=t.device) * 0.0625 + 0.09375).expand(1, 20, 65)
    settings = MarchSettings(distortion=0.1)
    a = march_rays(**dict(scene, t=t), settings=settings, backend=backend)
    b = march_rays(**dict(scene, t=edges), settings=settings, backend=backend)
    for x, y in zip(a, b, strict=True):
        assert (x is None and y is None) or torch.equal(x, y)


def test_corners_of_the_grid(backend):
    """With ``align_corners`` the outer voxel centres are the borders of the grid; without, half a voxel inside."""
    density = torch.zeros(1, 2, 1, 1, device='cuda' if backend == 'cuda' else 'cpu')
    density[0, 1] = 1.0
    points = torch.tensor([0.0, 0.25, 0.5, 1.0, 1.5, 1.75, 2.0])
    rays = torch.zeros(1, len(points), 3)
    rays[0, :, 0], rays[0, :, 1:] = points, 0.5
    for align, want in ((False, [0, 0, 0, 0.5, 1, 0.75, 0.5]), (True, [0, 0.125, 0.25, 0.5, 0.75, 0.875, 1.0])):
        out = march_rays(
            density, None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), rays.to(density.device), torch.zeros_like(rays).to(density.device),
            torch.tensor([0.0, 1.0], device=density.device).expand(1, 1, 2), MarchSettings(align_corners=align), backend,
        )  # fmt: skip
        # one cell along y and z: with aligned corners it has no extent, and every index is 0
        torch.testing.assert_close(-out.transmittance.log()[0].cpu(), torch.tensor(want), rtol=0, atol=1e-6)


@pytest.mark.parametrize('seed', range(18))
def test_finite_differences(seed):
    """Derivatives of the reference by density and features, every form and sampling, without thresholds."""
    scene = make_march_scene(100 + seed, channels=2, rays=3, samples=9)
    options = {k: getattr(scene['settings'], k) for k in ('form', 'last_step', 'align_corners', 'depth_mode', 'contraction')}
    scene['settings'] = MarchSettings(**options, distortion='width', weights=True)
    scene = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
    scene['density'] = scene['density'].clamp(max=3.0)
    if scene['settings'].form == 'nerf':
        scene['density'] = scene['density'] + 0.1  # off the kink at 0
    mask = torch.ones(scene['origins'].shape[:2])
    for name in ('density', 'features'):
        value = scene[name].clone().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda x, name=name: probe(march_rays(**dict(scene, **{name: x})), mask), value, fast_mode=True, atol=1e-6
        )


def test_second_derivative_of_the_reference():
    scene = make_march_scene(3, channels=2, rays=2, samples=6)
    scene = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in scene.items()}
    density = scene.pop('density')[:, :4, :4, :4].requires_grad_()
    scene['features'] = scene['features'][:, :4, :4, :4]
    march = lambda x: march_rays(x, **scene).features.square().sum()  # noqa: E731
    assert torch.autograd.gradgradcheck(march, density, fast_mode=True)


def test_chunks_of_the_reference(monkeypatch):
    from gaussian_rasterization import march_reference

    scene = make_march_scene(5, channels=3, rays=40)
    results = []
    for elements in (march_reference.CHUNK_ELEMENTS, 500):
        monkeypatch.setattr(march_reference, 'CHUNK_ELEMENTS', elements)
        leaves = {k: scene[k].clone().requires_grad_() for k in ('density', 'features')}
        out = march_rays(**dict(scene, **leaves), backend='reference')
        grads = torch.autograd.grad(probe(out, torch.ones(out.depth.shape)), list(leaves.values()))
        results.append((out.depth, out.features, *grads))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_parts_of_the_quadrature():
    density = torch.tensor([[0.0, 1.0, 2.0, 1e3]], dtype=torch.float64)
    widths = torch.full_like(density, 0.5)
    depths = optical_depth(density, widths, MarchSettings())
    weights, light, used = ray_weights(depths)
    torch.testing.assert_close(weights.sum(-1) + light, torch.ones(1, dtype=torch.float64))
    assert used.all() and weights[0, 0] == 0
    _, light, used = ray_weights(depths, alpha_min=1e-3, transmittance_min=0.5)
    assert used.tolist() == [[False, True, True, False]] or used.tolist() == [[False, True, False, False]]
    weights, light, _ = probability_weights(torch.tensor([[0.3, 0.5, 0.4, 0.2]]))
    torch.testing.assert_close(weights, torch.tensor([[0.3, 0.5, 0.2, 0.0]]))
    assert light == 0
    with pytest.raises(ValueError, match="'prob'"):
        optical_depth(density, widths, MarchSettings(form='prob'))
    w, m = torch.rand(2, 7, dtype=torch.float64), torch.rand(2, 7, dtype=torch.float64).sort(-1).values
    pairs = (w[:, :, None] * w[:, None] * (m[:, :, None] - m[:, None]).abs()).sum((1, 2))
    torch.testing.assert_close(ray_distortion(w, m, 0.3), pairs + 0.1 * w.square().sum(-1))


def test_contraction():
    contraction = MipContraction.of_grid((-40, -40, -1), (0.4, 0.4, 0.4), (200, 200, 16))
    assert contraction.center == pytest.approx((0, 0, 2.2)) and contraction.radius == 39 and contraction.limit == 40
    assert contraction.min_spacing == pytest.approx(0.19)
    points = torch.randn(500, 3, dtype=torch.float64) * 60
    back = contraction.expand(contraction.contract(points))
    torch.testing.assert_close(back, points, rtol=1e-9, atol=1e-9)
    center = points.new_tensor(contraction.center)
    assert ((contraction.contract(points) - center).norm(dim=-1) < 40).all()
    near = points[(points - center).norm(dim=-1) <= 39]
    torch.testing.assert_close(contraction.contract(near), near)
    # continuous at the sphere, behind which everything shares the last metre
    ray = torch.tensor([1.0, 0, 0], dtype=torch.float64)
    at = [contraction.contract(center + (39 + e) * ray)[0] for e in (-1e-6, 1e-6)]
    assert float(at[1] - at[0]) == pytest.approx(1e-6 * (1 + 1 / 39), rel=1e-6)
    t = contraction.distances(200)
    assert len(t) == 417 and (t.diff() > 0).all() and float(t[1] - t[0]) == pytest.approx(0.1995, abs=1e-4)


CASES = [
    (dict(density=torch.zeros(2, 3)), ValueError, r'density must be \(B, X, Y, Z\).*got \(2, 3\) float32'),
    (dict(density=torch.zeros(1, 0, 4, 4)), ValueError, r'at least one voxel'),
    (dict(features=torch.zeros(1, 2, 2, 2, 3)), ValueError, r"features must be \(1, 16, 16, 4, 'C'\) to fit density"),
    (dict(origins=torch.zeros(5, 3)), ValueError, r'origins must be \(1, R, 3\), got \(5, 3\)'),
    (dict(directions=torch.zeros(1, 4, 3)), ValueError, r'directions must be \(1, 5, 3\) to fit origins'),
    (dict(t=torch.zeros(0)), ValueError, r't must be \(S,\) sample positions or \(1, 5, S \+ 1\) edges'),
    (dict(t=torch.zeros(1, 4, 9)), ValueError, r't must be'),
    (dict(t=torch.zeros(2, 9)), ValueError, r't must be'),
    (dict(lower=(0.0, 0.0)), ValueError, r'lower must be three numbers'),
    (dict(voxel_size=(0.4, 0.0, 0.4)), ValueError, r'voxel_size must be finite and > 0, got \(0\.4, 0\.0, 0\.4\)'),
    (dict(lower=(0.0, float('nan'), 0.0)), ValueError, r'lower must be finite'),
    (dict(density=torch.zeros(1, 16, 16, 4, dtype=torch.long)), TypeError, r'density must be floating point, got torch.int64'),
    (dict(origins=[[0, 0, 0]]), TypeError, r'origins must be a torch.Tensor, got list'),
    (dict(t=torch.zeros(4, device='meta')), ValueError, r'one device, but density is on cpu and t on meta'),
    (dict(settings=None), TypeError, r'settings must be MarchSettings'),
    (dict(backend='opengl'), ValueError, r"backend must be None or one of .*got 'opengl'"),
    (dict(settings=MarchSettings(debug=True), t=torch.tensor([0.0, 2.0, 1.0])), ValueError, r't must not decrease'),
    (
        dict(settings=MarchSettings(debug=True), t=torch.tensor([0.0, float('nan'), 1.0])),
        ValueError,
        r't\[1\] is nan \(1 non-finite values in t\)',
    ),
]


@pytest.mark.parametrize('changes, error, message', CASES, ids=[m for _, _, m in CASES])
def test_message(changes, error, message):
    with pytest.raises(error, match=message):
        march_rays(**dict(_scene('cpu'), settings=MarchSettings(), backend='reference') | changes)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(form='neus'), r"form must be one of \('nerf', 'dvgo', 'prob'\), got 'neus'"),
        (dict(last_step='last'), r'last_step must be one of'),
        (dict(depth_mode='z'), r'depth_mode must be one of'),
        (dict(distortion='flat'), r"distortion must be None, a number or one of \('width', 'count'\), got 'flat'"),
        (dict(distortion=-1.0), r'distortion must be finite and >= 0'),
        (dict(contraction=39.0), r'contraction must be None or MipContraction'),
        (dict(interval=0.0), r'interval must be finite and > 0'),
        (dict(shift=float('nan')), r'shift must be finite'),
        (dict(alpha_min=1.0), r'alpha_min must be in \[0, 1\)'),
        (dict(transmittance_min=-0.1), r'transmittance_min must be in'),
        (dict(weight_min=1.5), r'weight_min must be in'),
        (dict(distance_scale=0.0), r'distance_scale must be finite and > 0'),
        (
            dict(distance_scale=2.0, contraction=MipContraction((0, 0, 0), 3.0, 4.0)),
            r'equal to the radius of the contraction 3',
        ),
    ],
)
def test_settings(options, message):
    with pytest.raises(ValueError, match=message):
        MarchSettings(**options)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (((0, 0), 1.0, 2.0), r'center must be three numbers'),
        (((0, 0, 0), 0.0, 2.0), r'radius must be > 0'),
        (((0, 0, 0), 2.0, 2.0), r'limit must be larger than the radius'),
        (((0, 0, 0), 2.0, 3.0, -1.0), r'min_spacing must be >= 0'),
        (((0, 0, float('inf')), 2.0, 3.0), r'center\[2\] must be finite'),
    ],
)
def test_contraction_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        MipContraction(*arguments)


def test_float64_is_the_reference():
    scene = _scene('cpu', dtype=torch.float64)
    assert march_rays(**scene).depth.dtype == torch.float64
    if backends.AVAILABLE['cpu']:
        with pytest.raises(ValueError, match=r'computes in float32 but an input is float64'):
            march_rays(**scene, backend='cpu')
