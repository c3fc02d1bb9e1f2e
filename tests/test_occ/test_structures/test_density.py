"""Raw densities, and one distribution over all classes."""

import pytest
import torch

from projects.occ.structures.density import DENSITY_SHIFT, density_depth, density_opacity, joint_log_probabilities


def test_opacity_of_a_density():
    raw = torch.tensor([-50.0, 0.0, 13.815510557964274, 40.0], dtype=torch.float64)
    opacity = density_opacity(raw)
    assert opacity[1].item() == pytest.approx(1e-6, rel=1e-6)
    assert opacity[2].item() == pytest.approx(0.5, rel=1e-5)
    assert opacity[0] > 0 and opacity[3] < 1
    torch.testing.assert_close(opacity, 1 - torch.exp(-density_depth(raw)), atol=1e-15, rtol=1e-9)


def test_the_number_is_that_of_the_marcher():
    rasterizer = pytest.importorskip('gaussian_rasterization')
    assert rasterizer.MarchSettings().shift == DENSITY_SHIFT


@pytest.mark.parametrize('free', [0, 1, 3])
def test_joint_distribution(free):
    generator = torch.Generator().manual_seed(0)
    density = 14 + 8 * torch.randn(2, 4, 5, 3, generator=generator)
    classes = torch.randn(2, 3, 4, 5, 3, generator=generator)
    logs = joint_log_probabilities(density, classes, free)
    assert logs.shape == (2, 4, 4, 5, 3) and logs.isfinite().all()
    torch.testing.assert_close(logs.exp().sum(1), torch.ones(2, 4, 5, 3))
    torch.testing.assert_close(logs[:, free].exp(), 1 - density_opacity(density))
    others = torch.cat([logs[:, :free], logs[:, free + 1 :]], 1)
    torch.testing.assert_close(others.softmax(1), classes.softmax(1), atol=1e-5, rtol=1e-4)


def test_the_ends_have_finite_gradients():
    density = torch.tensor([-1e4, -200.0, 0.0, 1e4]).view(1, 4, 1, 1).requires_grad_()
    logs = joint_log_probabilities(density, torch.zeros(1, 2, 4, 1, 1), 2)
    assert logs.isfinite().all()
    (grad,) = torch.autograd.grad(logs.sum(), density)
    assert grad.isfinite().all()
