"""Packing of visible queries: padding is invisible, every sample and camera has its own list."""

import pytest
import torch

from projects.occ.models.layers import CameraRebatch


@pytest.fixture
def seen():
    return torch.rand(2, 3, 11, generator=torch.Generator().manual_seed(2)) < 0.4


def test_lists_are_in_rising_order_and_padded_with_zeros(seen):
    rebatch = CameraRebatch(seen)
    ids = torch.arange(1.0, 12).view(1, 11, 1).repeat(2, 1, 1)
    packed = rebatch.gather(ids).view(2, 3, rebatch.length)
    assert rebatch.length == seen.sum(-1).max()
    for sample in range(2):
        for camera in range(3):
            expected = (seen[sample, camera].nonzero().flatten() + 1.0).tolist()
            assert packed[sample, camera].tolist() == expected + [0.0] * (rebatch.length - len(expected))


def test_scatter_averages_over_the_cameras_that_see(seen):
    rebatch = CameraRebatch(seen)
    values = torch.randn(2, 3, 11, 4)
    packed = rebatch.gather_per_camera(values)
    packed = packed + (packed == 0).all(-1, keepdim=True) * 1e6  # padding must not leak
    expected = (values * seen.unsqueeze(-1)).sum(1) / seen.sum(1).clamp(min=1).unsqueeze(-1)
    torch.testing.assert_close(rebatch.scatter_mean(packed), expected)


def test_trailing_dimensions_are_kept(seen):
    rebatch = CameraRebatch(seen)
    assert rebatch.gather_per_camera(torch.randn(2, 3, 11, 5, 2)).shape == (6, rebatch.length, 5, 2)


def test_gradient_reaches_visible_queries_only(seen):
    rebatch = CameraRebatch(seen)
    queries = torch.randn(2, 11, 4, requires_grad=True)
    rebatch.scatter_mean(rebatch.gather(queries)).sum().backward()
    torch.testing.assert_close(queries.grad, seen.any(1).float().unsqueeze(-1).expand(2, 11, 4))


def test_nothing_visible():
    rebatch = CameraRebatch(torch.zeros(1, 2, 5, dtype=torch.bool))
    weight = torch.ones(4, requires_grad=True)
    packed = rebatch.gather(torch.randn(1, 5, 4)) * weight
    assert packed.shape == (2, 1, 4)
    out = rebatch.scatter_mean(packed)
    out.sum().backward()
    assert out.shape == (1, 5, 4) and out.abs().max() == 0
    assert weight.grad.abs().max() == 0  # still part of the graph, as distributed training needs


def test_packed_rows_replace_the_queries_they_came_from():
    seen = torch.tensor([[[True, False, True, False]], [[False, False, False, True]]])
    rebatch = CameraRebatch(seen)
    queries = torch.arange(24.0).view(2, 4, 3).requires_grad_()
    replaced = rebatch.replace(queries, rebatch.gather(queries) * 10)
    assert torch.equal(replaced, torch.where(seen[:, 0, :, None], queries * 10, queries))
    replaced.sum().backward()
    assert torch.equal(queries.grad, torch.where(seen[:, 0, :, None], 10.0, 1.0).expand(2, 4, 3))
    nothing = CameraRebatch(torch.zeros(2, 1, 4, dtype=torch.bool))
    assert nothing.length == 1 and torch.equal(nothing.replace(queries, nothing.gather(queries) + 5), queries)
    assert rebatch.replace(queries, rebatch.gather(queries).double()).dtype == queries.dtype
