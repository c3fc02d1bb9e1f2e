"""The sampling step against a loop over pixels."""

import math

import pytest
import torch

from projects.occ.models.layers import deformable_sampling, star_directions

SHAPES = [(4, 6), (2, 3)]


def case(dtype=torch.float64, batch_size=2):
    generator = torch.Generator().manual_seed(3)
    tokens = sum(h * w for h, w in SHAPES)
    value = torch.randn(batch_size, tokens, 2, 3, generator=generator, dtype=dtype)
    locations = torch.rand(batch_size, 5, 2, len(SHAPES), 4, 2, generator=generator, dtype=dtype) * 1.4 - 0.2
    weights = torch.rand(batch_size, 5, 2, len(SHAPES), 4, generator=generator, dtype=dtype)
    return value, locations, weights


def by_loops(value, locations, weights):
    batch_size, queries, heads, levels, points, _ = locations.shape
    out = torch.zeros(batch_size, queries, heads, value.shape[-1], dtype=value.dtype)
    starts = [0, SHAPES[0][0] * SHAPES[0][1]]
    for b, q, m, level, p in torch.cartesian_prod(*map(torch.arange, (batch_size, queries, heads, levels, points))).tolist():
        height, width = SHAPES[level]
        x, y = (locations[b, q, m, level, p] * torch.tensor([width, height]) - 0.5).tolist()
        for i in (math.floor(y), math.floor(y) + 1):
            for j in (math.floor(x), math.floor(x) + 1):
                if 0 <= i < height and 0 <= j < width:
                    share = (1 - abs(y - i)) * (1 - abs(x - j))
                    out[b, q, m] += weights[b, q, m, level, p] * share * value[b, starts[level] + i * width + j, m]
    return out.flatten(2)


def test_equals_a_loop_over_pixels():
    value, locations, weights = case()
    torch.testing.assert_close(deformable_sampling(value, SHAPES, locations, weights), by_loops(value, locations, weights))


def test_gradients():
    value, locations, weights = (t.requires_grad_() for t in case(batch_size=1))
    assert torch.autograd.gradcheck(lambda *t: deformable_sampling(t[0], SHAPES, t[1], t[2]), (value, locations, weights))


def test_half_precision_is_sampled_in_float32():
    value, locations, weights = case(torch.float32)
    locations[0, 0] = 1e9  # far behind a camera
    out = deformable_sampling(value.bfloat16(), SHAPES, locations, weights)
    assert out.dtype == torch.float32 and torch.isfinite(out).all()
    torch.testing.assert_close(out, deformable_sampling(value.bfloat16().float(), SHAPES, locations, weights))


def test_star_directions():
    expected = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    torch.testing.assert_close(star_directions(8), torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)
    assert star_directions(6).shape == (6, 2)


@pytest.mark.cuda
@pytest.mark.parametrize('batch_size', [1, 2, 65])
def test_cuda_kernel_equals_cpu(batch_size):
    if not torch.cuda.is_available():
        pytest.skip('no GPU')
    value, locations, weights = (t.repeat(batch_size, *[1] * (t.dim() - 1)) for t in case(torch.float32, batch_size=1))
    on_gpu = [t.cuda().requires_grad_() for t in (value, locations, weights)]
    on_cpu = [t.requires_grad_() for t in (value, locations, weights)]
    gpu = deformable_sampling(on_gpu[0], SHAPES, *on_gpu[1:])
    cpu = deformable_sampling(on_cpu[0], SHAPES, *on_cpu[1:])
    torch.testing.assert_close(gpu.cpu(), cpu, atol=1e-5, rtol=1e-5)
    gpu.square().sum().backward()
    cpu.square().sum().backward()
    for a, b in zip(on_gpu, on_cpu):
        torch.testing.assert_close(a.grad.cpu(), b.grad, atol=1e-3, rtol=1e-4)
