"""Losses of rendered rays against golden numbers, and at the edges."""

import numpy as np
import pytest
import torch

from projects.rendering.ray_losses import EPSILON, last_entropy, log_class_weights, silog
from projects.rendering.ray_terms import cross_entropy_views

TIGHT = dict(rtol=1e-9, atol=1e-12)


@pytest.fixture(scope='module')
def golden(golden_dir):
    arrays = np.load(golden_dir / 'rendering_supervision_small.npz')
    return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def test_silog(golden):
    estimate, truth = golden['silog/est'], golden['silog/gt']
    torch.testing.assert_close(silog(estimate, truth), golden['silog/loss_0.85_est_plus_1e-7'], **TIGHT)
    shifted = (estimate - EPSILON).requires_grad_()
    for balance in (0.5, 0.85, 1.0):
        torch.testing.assert_close(silog(shifted, truth, balance=balance).detach(), golden[f'silog/loss_{balance}'], **TIGHT)
    (grad,) = torch.autograd.grad(silog(shifted, truth), shifted)
    torch.testing.assert_close(grad, golden['silog/dloss_dest_0.85'], **TIGHT)
    torch.testing.assert_close(10 * silog(shifted, truth).detach(), golden['silog/loss_0.85_x10'], **TIGHT)


def test_silog_of_masked_empty_and_equal_depths():
    truth = torch.tensor([2.0, 5.0, 0.0, float('nan')])
    depth = torch.tensor([1.0, 5.0, 0.0, float('inf')], requires_grad=True)
    valid = torch.tensor([True, True, False, False])
    loss = silog(depth, truth, valid)
    torch.testing.assert_close(loss, silog(depth[:2], truth[:2]))
    (grad,) = torch.autograd.grad(loss, depth)
    assert grad.isfinite().all() and (grad[2:] == 0).all() and grad[0] != 0
    none = silog(depth, truth, torch.zeros(4, dtype=torch.bool))
    assert none == 0 and torch.equal(torch.autograd.grad(none, depth)[0], torch.zeros(4))
    same = torch.tensor([3.0, 7.0], requires_grad=True)
    assert torch.autograd.grad(silog(same, torch.tensor([3.0, 7.0]), balance=1.0), same)[0].isfinite().all()
    assert silog(torch.zeros(3), torch.ones(3)).isfinite()


def test_last_entropy(golden):
    torch.testing.assert_close(last_entropy(golden['a2w/T_last']), golden['a2w/entropy_last'], **TIGHT)
    assert last_entropy(torch.tensor([0.0, 1.0])) < 2e-5 < last_entropy(torch.tensor([0.5]))
    assert last_entropy(torch.zeros(0)) == 0


def test_cross_entropy(golden):
    weights = log_class_weights(golden['ce/occ3d_freq18'])[:17]
    torch.testing.assert_close(weights, golden['ce/renderocc_weights17'], **TIGHT)
    logits, target = golden['ce/logits17'][None], golden['ce/target17'][None]
    loss, valid = cross_entropy_views(logits, target, None, 1, weights.tolist())
    torch.testing.assert_close(loss, golden['ce/renderocc_loss'][None], **TIGHT)
    assert valid.tolist() == [True]
    by_counts, _ = cross_entropy_views(logits, target, None, 1, class_counts=golden['ce/occ3d_freq18'][:17].tolist())
    torch.testing.assert_close(by_counts, loss, **TIGHT)
    probabilities, _ = cross_entropy_views(logits.softmax(-1), target, None, 1, weights.tolist(), probabilities=True)
    torch.testing.assert_close(probabilities, loss, **TIGHT)
    target = golden['ce/target18'][None]
    loss, _ = cross_entropy_views(
        golden['ce/logits18'][None], target, target >= 0, 1, golden['ce/gaussianocc_weights18'].tolist()
    )
    torch.testing.assert_close(loss, golden['ce/gaussianocc_loss_ignore_m1'][None], **TIGHT)


def test_cross_entropy_of_views_is_that_of_all_their_pixels():
    generator = torch.Generator().manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 5, 6, generator=generator), torch.randint(0, 6, (2, 3, 4, 5), generator=generator)
    mask = torch.rand(2, 3, 4, 5, generator=generator) < 0.5
    views, valid = cross_entropy_views(logits, target, mask, 2)
    rays, _ = cross_entropy_views(logits.flatten(1, 3), target.flatten(1), mask.flatten(1), 1)
    assert valid.all()
    torch.testing.assert_close(views.mean(1), rays)


def test_cross_entropy_without_rays():
    logits = torch.randn(1, 4, 3, requires_grad=True)
    loss, valid = cross_entropy_views(logits, torch.full((1, 4), 255), torch.zeros(1, 4, dtype=torch.bool), 1)
    assert loss == 0 and not valid.any() and (torch.autograd.grad(loss.sum(), logits)[0] == 0).all()
    loss, _ = cross_entropy_views(torch.zeros(1, 0, 3), torch.zeros(1, 0, dtype=torch.long), None, 1)
    assert loss == 0


@pytest.mark.parametrize('options', [dict(class_weights=[1.0]), dict(class_weights=[1.0] * 3, class_counts=[9.0] * 3)])
def test_weights_of_other_classes(options):
    with pytest.raises(ValueError, match='class_weights'):
        cross_entropy_views(torch.zeros(1, 2, 3), torch.zeros(1, 2).long(), None, 1, **options)


def test_class_weights_need_counts():
    with pytest.raises(ValueError, match='above 1, got 0'):
        log_class_weights([10.0, 0.0])
