"""Tests of the scene-class affinity losses."""

import math

import pytest
import torch

from projects.occ.models.scene_class_affinity import geo_scal_loss, sem_scal_loss


def test_semantic_affinity_by_hand():
    # two voxels of class 0, one of class 1, none of class 2
    probs = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.25, 0.5, 0.25]])
    labels = torch.tensor([0, 0, 1])
    first = -math.log(1.5 / 1.75) - math.log(1.5 / 2) - math.log(0.75 / 1)
    second = -math.log(0.5 / 0.75) - math.log(0.5 / 1) - math.log(1.75 / 2)
    assert sem_scal_loss(probs, labels).item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_geometric_affinity_by_hand():
    free = torch.tensor([0.75, 0.5, 0.125])
    is_free = torch.tensor([True, False, False])
    expected = -math.log(1.375 / 1.625) - math.log(1.375 / 2) - math.log(0.75 / 1)
    assert geo_scal_loss(free, is_free).item() == pytest.approx(expected, rel=1e-6)


def test_perfect_predictions_cost_nothing_and_wrong_ones_are_bounded():
    labels = torch.tensor([0, 1, 2, 0])
    perfect = torch.eye(3)[labels]
    assert sem_scal_loss(perfect, labels).item() == 0
    assert geo_scal_loss(perfect[:, 0], labels == 0).item() == 0
    wrong = torch.eye(3)[(labels + 1) % 3].requires_grad_()
    loss = sem_scal_loss(wrong, labels) + geo_scal_loss(wrong[:, 0], labels == 0)
    loss.backward()
    assert 100 <= loss.item() < 600 and torch.isfinite(wrong.grad).all()


@pytest.mark.parametrize('label', [0, 1])
def test_only_one_kind_of_label(label):
    """The original divides by zero here: no free voxel (or no occupied one) among the labelled voxels."""
    logits = torch.randn(5, 3, requires_grad=True)
    labels = torch.full((5,), label)
    probs = logits.softmax(-1)
    p = probs[:, label].mean().item()
    sem, geo = sem_scal_loss(probs, labels), geo_scal_loss(probs[:, 0], labels == 0)
    assert sem.item() == pytest.approx(-math.log(p), rel=1e-5)  # precision is 1, there is no specificity
    if label == 0:  # precision of occupied space is 0
        assert geo.item() == pytest.approx(100 - math.log(p), rel=1e-5)
    else:
        assert geo.item() == pytest.approx(-math.log(1 - probs[:, 0].mean().item()), rel=1e-5)
    (sem + geo).backward()
    assert torch.isfinite(logits.grad).all() and (logits.grad != 0).any()


def test_nothing_labelled():
    probs = torch.zeros(0, 3, requires_grad=True)
    labels = torch.zeros(0, dtype=torch.long)
    loss = sem_scal_loss(probs, labels) + geo_scal_loss(probs[:, 0], labels == 0)
    assert loss.item() == 0
    loss.backward()
    assert probs.grad.shape == (0, 3)


def test_extreme_logits_stay_finite():
    logits = (200 * torch.randn(100, 4)).requires_grad_()
    labels = torch.randint(0, 4, (100,))
    probs = logits.softmax(-1)
    (sem_scal_loss(probs, labels) + geo_scal_loss(probs[:, 0], labels == 0)).backward()
    assert torch.isfinite(logits.grad).all()


def test_a_diverged_network_is_not_hidden():
    probs = torch.tensor([[0.5, 0.5], [float('nan'), 0.5]])
    assert sem_scal_loss(probs, torch.tensor([0, 1])).isnan()
    assert geo_scal_loss(probs[:, 0], torch.tensor([True, False])).isnan()


def test_gradients_by_finite_differences():
    logits = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 1, 0, 0, 1])
    assert torch.autograd.gradcheck(lambda x: sem_scal_loss(x.softmax(-1), labels), logits)
    assert torch.autograd.gradcheck(lambda x: geo_scal_loss(x.softmax(-1)[:, 2], labels == 2), logits)


def test_computed_in_float32_under_autocast():
    probs = torch.randn(50, 3).softmax(-1)
    labels = torch.randint(0, 3, (50,))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        sem, geo = sem_scal_loss(probs, labels), geo_scal_loss(probs[:, 0], labels == 0)
    assert torch.equal(sem, sem_scal_loss(probs, labels)) and torch.equal(geo, geo_scal_loss(probs[:, 0], labels == 0))
