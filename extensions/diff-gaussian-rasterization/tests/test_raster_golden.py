"""Golden case: images and gradients of a float64 model of the contract."""

import numpy as np
import pytest
import torch

from gaussian_rasterization import RasterSettings, rasterize

VARIANTS = {
    'straight': RasterSettings(),
    'exact': RasterSettings(cap_gradient='exact'),
    'ref12': RasterSettings(tile_compat='rect12'),
}
INPUTS = ('means', 'quats', 'scales', 'opacities', 'colors')


@pytest.fixture(scope='module')
def golden(golden_dir):
    path = golden_dir / 'raster_small.npz'
    if not path.exists():
        pytest.skip(f'{path} is missing')
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _render(golden, variant, backend, dtype):
    device = 'cuda' if backend == 'cuda' else 'cpu'
    case = {k: torch.tensor(golden[k], dtype=dtype, device=device) for k in (*INPUTS, 'bg', 'w2c', 'K', 'wc', 'wd', 'wa')}
    case['opacities'] = case['opacities'].reshape(-1)
    inputs = [case[name].requires_grad_() for name in INPUTS]
    out = rasterize(
        *inputs,
        case['w2c'][None],
        case['K'][None],
        int(golden['W']),
        int(golden['H']),
        case['bg'],
        VARIANTS[variant],
        backend,
    )
    loss = (case['wc'].permute(1, 2, 0) * out.features[0]).sum()
    loss = loss + (case['wd'] * out.depth[0]).sum() + (case['wa'] * out.alpha[0]).sum()
    grads = torch.autograd.grad(loss, inputs)
    return out, loss, dict(zip(INPUTS, grads, strict=True))


@pytest.mark.parametrize('variant', VARIANTS)
def test_images(golden, variant, backend):
    out, _, _ = _render(golden, variant, backend, torch.float32)
    color, depth, alpha = golden['color'].copy(), golden['depth'].copy(), golden['alpha'].copy()
    if variant == 'ref12':
        row, column = golden['ref12_yx'].T
        color[:, row, column] = golden['ref12_color']
        depth[row, column] = golden['ref12_depth']
        alpha[row, column] = golden['ref12_alpha']
    stable = golden['stable']
    for got, want in ((out.features[0], color.transpose(1, 2, 0)), (out.depth[0], depth), (out.alpha[0], alpha)):
        np.testing.assert_allclose(got.detach().cpu().numpy()[stable], want[stable], atol=2e-5, rtol=0)
    if variant != 'ref12':
        np.testing.assert_array_equal(out.radii[0].cpu().numpy(), golden['radii'])


@pytest.mark.parametrize('variant', VARIANTS)
def test_gradients(golden, variant, backend):
    _, loss, grads = _render(golden, variant, backend, torch.float32)
    np.testing.assert_allclose(loss.item(), golden[f'L_{variant}'], rtol=1e-5)
    for name, grad in grads.items():
        want = golden[f'grad_{variant}_{name}'].reshape(grad.shape)
        np.testing.assert_allclose(grad.cpu().numpy(), want, rtol=0, atol=1e-4 * np.abs(want).max(), err_msg=name)


@pytest.mark.parametrize('variant', VARIANTS)
def test_float64_reference_is_exact(golden, variant):
    out, loss, grads = _render(golden, variant, 'reference', torch.float64)
    assert out.features.dtype == torch.float64
    np.testing.assert_allclose(loss.item(), golden[f'L_{variant}'], rtol=1e-6)
    for name, grad in grads.items():
        want = golden[f'grad_{variant}_{name}'].reshape(grad.shape)
        np.testing.assert_allclose(grad.numpy(), want, rtol=0, atol=1e-6 * np.abs(want).max(), err_msg=name)
