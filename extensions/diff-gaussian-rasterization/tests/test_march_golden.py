"""Golden formula cases of volume rendering: float64 numbers of independent code."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gaussian_rasterization import (
    MarchSettings,
    MipContraction,
    march_rays,
    optical_depth,
    probability_weights,
    ray_distortion,
    ray_weights,
)
from gaussian_rasterization.march_reference import _keep, _widths
from gaussian_rasterization.march_settings import contract_unit

TIGHT = dict(rtol=1e-9, atol=1e-12)


@pytest.fixture(scope='module')
def golden(golden_dir):
    path = golden_dir / 'rendering_supervision_small.npz'
    if not path.exists():
        pytest.skip(f'{path} is missing')
    with np.load(path) as file:
        return {name: torch.tensor(file[name]) for name in file.files}


def _close(got, want, **tolerance):
    torch.testing.assert_close(got, want.to(got.dtype), **(tolerance or TIGHT))


@pytest.mark.parametrize('last', ['repeat', 'inf'])
def test_quadrature(golden, last):
    sigma, z, logits = (golden[f'vr/{k}'] for k in ('sigma', 'z', 'logits'))
    settings = MarchSettings(last_step=last)
    widths = _widths(z, torch.ones_like(z, dtype=torch.bool), settings)
    _close(widths, golden[f'vr/{last}/beta'])
    depths = optical_depth(sigma, widths, settings)
    _close(-torch.expm1(-depths), golden[f'vr/{last}/alpha'])
    weights, light, _ = ray_weights(depths)
    _close(weights, golden[f'vr/{last}/w'])
    _close(light, golden[f'vr/{last}/T_last'])
    _close((weights * z).sum(-1), golden[f'vr/{last}/depth'])
    _close(torch.einsum('ns,nsc->nc', weights, logits), golden[f'vr/{last}/sem'])
    _close(weights.sum(-1), golden[f'vr/{last}/acc'])


def test_gradient_of_the_quadrature(golden):
    sigma, logits = (golden[f'vr/{k}'].clone().requires_grad_() for k in ('sigma', 'logits'))
    z = golden['vr/z']
    settings = MarchSettings()
    weights, _, _ = ray_weights(optical_depth(sigma, _widths(z, torch.ones_like(z, dtype=torch.bool), settings), settings))
    loss = (golden['vr/grad/gD'] * (weights * z).sum(-1)).sum() + (golden['vr/grad/gA'] * weights.sum(-1)).sum()
    loss = loss + (golden['vr/grad/gS'] * torch.einsum('ns,nsc->nc', weights, logits)).sum()
    _close(loss, golden['vr/grad/L'])
    for got, name in zip(torch.autograd.grad(loss, [sigma, logits]), ('dL_dsigma', 'dL_dlogits'), strict=True):
        _close(got, golden[f'vr/grad/{name}'])


def test_raw_density(golden):
    settings = MarchSettings(form='dvgo', shift=float(golden['dvgo/shift']), interval=float(golden['dvgo/interval']))
    density = golden['dvgo/density'].clone().requires_grad_()
    alpha = -torch.expm1(-optical_depth(density, 1.0, settings))
    _close(alpha, golden['dvgo/alpha'])
    _close(torch.autograd.grad(alpha.sum(), density)[0], golden['dvgo/dalpha_ddensity'])
    assert MarchSettings().shift == pytest.approx(float(golden['dvgo/shift']), rel=1e-12)


@pytest.mark.parametrize('stop, suffix', [(1e-3, ''), (0.0, '_nostop')])
def test_weights_of_opacities(golden, stop, suffix):
    alpha, ray_id = golden['a2w/alpha'], golden['a2w/ray_id']
    weights, light = torch.zeros_like(alpha), torch.ones(int(golden['a2w/n_rays']), dtype=torch.float64)
    for ray in range(len(light)):
        rows = ray_id == ray
        values = alpha[rows].clone().requires_grad_()
        w, t, used = ray_weights(-torch.log1p(-values), transmittance_min=stop)
        weights[rows], light[ray] = w.detach(), t.detach()
        if stop:
            assert int(used.sum()) == int(golden['a2w/n_used'][ray])
        if stop and rows.any():
            loss = (golden['a2w/gw'][rows] * w).sum() + golden['a2w/glast'][ray] * t
            _close(torch.autograd.grad(loss, values)[0], golden['a2w/dL_dalpha'][rows], rtol=1e-8, atol=1e-12)
    _close(weights, golden[f'a2w/weights{suffix}'])
    _close(light, golden[f'a2w/T_last{suffix}'])


def test_distortion(golden):
    w, m, q = (golden[f'dist/{k}'] for k in ('w', 'm', 'interval'))
    w = w.clone().requires_grad_()
    loss = ray_distortion(w, m, q).mean()
    _close(loss, golden['dist/loss'])
    _close(torch.autograd.grad(loss, w)[0], golden['dist/dloss_dw'])
    _close(ray_distortion(w, m, 1 / 64).mean().detach(), golden['dist/loss_interval_1_64'])


def test_contraction_and_kept_samples(golden):
    contraction = MipContraction((0, 0, 0), 39.0, 39.0 * (1 + float(golden['mip360/bg_len'])))
    t = contraction.distances(200, dtype=torch.float64) / 39
    assert len(t) == int(golden['mip360/N_inner'] + golden['mip360/N_outer'])
    _close(t, golden['mip360/t'])
    o, d = golden['mip360/o'], golden['mip360/d']
    points = golden['mip360/pts']
    assert contraction.background == pytest.approx(float(golden['mip360/bg_len']), rel=1e-12)
    found = None
    for origin in (o / 39, (o - torch.tensor([0, 0, 2.2], dtype=torch.float64)) / 39):
        for direction in (d, d / d.norm(dim=-1, keepdim=True)):
            p, inner = contract_unit(origin[:, None] + direction[:, None] * t[:, None], contraction.background)
            if torch.allclose(p, points, rtol=1e-9, atol=1e-12):
                found = p, inner
    assert found is not None
    assert torch.equal(found[1], golden['mip360/inner'])
    assert torch.equal(_keep(*found, float(golden['mip360/dist_thres'])), golden['mip360/keep'])


@pytest.mark.parametrize('align', [False, True])
def test_trilinear_look_up(golden, align):
    """The value at a point is the optical depth of one sample of length one; values below 0 are shifted."""
    volume, u = golden['trilinear/vol_xyz'], golden['trilinear/u_xyz']
    want = golden[f'trilinear/align_{str(align).lower()}']
    shape = volume.new_tensor(volume.shape)
    origins = ((u + 1) / 2 * shape)[None]
    edges = torch.tensor([0.0, 1.0], dtype=torch.float64).expand(1, 1, 2)
    parts = []
    for part in (volume.clamp_min(0), (-volume).clamp_min(0)):
        out = march_rays(part[None], None, (0, 0, 0), (1, 1, 1), origins, torch.zeros_like(origins), edges,
                         MarchSettings(align_corners=align))  # fmt: skip
        parts.append(-torch.log(out.transmittance[0]))
    _close(parts[0] - parts[1], want, rtol=1e-9, atol=1e-12)
    grid = u.flip(-1).view(1, 1, 1, -1, 3)
    same = F.grid_sample(volume[None, None], grid, align_corners=align)[0, 0, 0, 0]
    _close(same, want)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32])
@pytest.mark.parametrize('variant', ['fixed', 'compat'])
def test_march(golden, backend, variant, dtype):
    """The whole chain; 'compat' is the published implementation with its thresholds and its contracted depth."""
    if dtype == torch.float64 and backend != 'reference':
        pytest.skip('float64 is the reference alone')
    radius, background = float(golden['march/radius']), float(golden['march/bg_len'])
    center, limit = golden['march/scene_center'], radius * (1 + background)
    contraction = MipContraction(tuple(center.tolist()), radius, limit, float(golden['march/dist_thres']) * radius)
    shape = golden['march/density_xyz'].shape
    half = center.new_tensor([limit, limit, {'fixed': 2 / 5, 'compat': 1 / 3}[variant] * radius])
    _close(contraction.distances(shape[0], dtype=torch.float64), golden['march/t'] * radius)
    options = dict(form='dvgo', contraction=contraction)
    if variant == 'compat':
        options.update(alpha_min=1e-7, weight_min=1e-7, transmittance_min=1e-3, align_corners=True, depth_mode='contracted')
    device = 'cuda' if backend == 'cuda' else 'cpu'
    move = lambda x: x.to(device, dtype)[None]  # noqa: E731
    direction = golden['march/d'] / golden['march/d'].norm(dim=-1, keepdim=True)
    out = march_rays(
        move(golden['march/density_xyz']), move(golden['march/logits_xyzc']), center - half,
        2 * half / center.new_tensor(shape), move(golden['march/o']), move(direction), move(golden['march/t'] * radius)[0],
        MarchSettings(**options), backend,
    )  # fmt: skip
    tolerance = TIGHT if dtype == torch.float64 else dict(rtol=1e-4, atol=1e-4)
    depth = out.depth[0].cpu() + (1e-7 * radius if variant == 'compat' else 0)
    _close(depth, golden[f'march/{variant}/depth'], **tolerance)
    _close(out.features[0].cpu(), golden[f'march/{variant}/sem'], **tolerance)
    _close(out.transmittance[0].cpu(), golden[f'march/{variant}/T_last'], **tolerance)
    if dtype == torch.float64 and variant == 'fixed':
        assert torch.equal(out.count[0].long(), golden['march/fixed/n_samples'])
        _close(out.alpha[0], golden['march/fixed/acc'])


def test_probabilities(golden):
    weights, _, _ = probability_weights(golden['prob/p'])
    _close(weights, golden['prob/w'])
    _close((weights * golden['prob/z']).sum(-1), golden['prob/depth'])
