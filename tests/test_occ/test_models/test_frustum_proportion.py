"""The frustum proportion loss against its definition."""

import pytest
import torch

from projects.occ.models import BaseOccHead, OccupancyLoss
from projects.occ.models.frustum_proportion import frustum_proportion_loss
from projects.occ.structures import OccBatch, OccPrediction, VoxelGrid

GRID = VoxelGrid((0, 0, 0, 4, 4, 2), 1, (4, 4, 2), 'lidar', free_index=0, class_names=('free', 'car', 'road'))


def by_definition(probs, labels, boxes, num_boxes):
    terms = []
    for box in range(num_boxes):
        inside = boxes == box
        if inside.any():
            q = torch.bincount(labels[inside], minlength=probs.shape[1]).double()
            q, r = q / q.sum(), probs[inside].double().sum(0)
            r = r / r.sum()
            terms.append(sum(q[c] * (q[c].log() - r[c].log()) for c in range(len(q)) if q[c] > 0))
    return sum(terms) / len(terms)


def test_value_and_gradient():
    torch.manual_seed(1)
    logits = torch.randn(200, 3, requires_grad=True)
    labels, boxes = torch.randint(0, 3, (200,)), torch.randint(-1, 6, (200,))
    boxes[boxes == 4] = 2  # an empty box
    labels[boxes == 3] = 1  # a box with one class
    ours = frustum_proportion_loss(logits.softmax(-1), labels, boxes, 9)
    theirs = by_definition(logits.softmax(-1), labels, boxes, 9)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    (a,), (b,) = torch.autograd.grad(ours, logits, retain_graph=True), torch.autograd.grad(theirs, logits)
    torch.testing.assert_close(a, b.float(), atol=1e-7, rtol=1e-4)


def test_perfect_and_empty():
    labels = torch.tensor([0, 1, 2, 2])
    perfect = torch.nn.functional.one_hot(labels, 3).float().requires_grad_()
    assert frustum_proportion_loss(perfect, labels, torch.zeros(4).long(), 1).item() == pytest.approx(0)
    nothing = frustum_proportion_loss(perfect, labels, torch.full((4,), -1), 4)
    nothing.backward()
    assert nothing == 0 and torch.equal(perfect.grad, torch.zeros(4, 3))
    assert torch.isfinite(frustum_proportion_loss(perfect, labels.flip(0) * 0 + 1, torch.tensor([0, 1, 0, 0]), 4))


def test_as_a_term_of_the_voxel_loss():
    loss = OccupancyLoss(GRID, ce_weight=0, lovasz_weight=0, frustum_weight=2.0, frustums=2, aux_weight=0.25)
    logits = [torch.randn(2, 3, 4, 4, 2) for _ in range(3)]
    labels, boxes = torch.randint(0, 3, (2, 4, 4, 2)), torch.randint(-1, 4, (2, 4, 4, 2)).short()
    labels[0, 0] = 255
    losses = loss.compute(logits, labels, boxes=boxes)
    assert set(losses) == {f'loss_occ_frustum_{s}' for s in range(3)}
    known = labels != 255
    for scale, factor in ((0, 2.0), (1, 0.5), (2, 0.5)):
        probs = logits[2 - scale].movedim(1, -1)[known].softmax(-1)
        expected = factor * by_definition(probs, labels[known], boxes[known].long(), 4)
        assert losses[f'loss_occ_frustum_{scale}'].item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(ValueError, match='loss_occ.frustum_weight needs boxes'):
        loss.compute(logits, labels)
    with pytest.raises(ValueError, match='scale_weights and loss_occ.aux_weight both set'):
        OccupancyLoss(GRID, scale_weights=[1, 1], aux_weight=0.5)


def test_coarse_outputs_take_the_box_of_the_last_child():
    loss = OccupancyLoss(GRID, ce_weight=0, lovasz_weight=0, frustum_weight=1.0, frustums=2)
    logits, labels = [torch.randn(1, 3, 2, 2, 1)], torch.randint(0, 3, (1, 4, 4, 2))
    boxes = torch.randint(-1, 4, (1, 4, 4, 2))
    value = loss.compute([logits[0], torch.randn(1, 3, 4, 4, 2)], labels, boxes=boxes)['loss_occ_frustum_1']
    probs = logits[0].movedim(1, -1).reshape(-1, 3).softmax(-1)
    expected = by_definition(probs, labels[:, 1::2, 1::2, 1::2].flatten(), boxes[:, 1::2, 1::2, 1::2].flatten(), 4)
    assert value.item() == pytest.approx(0.5 * expected.item(), rel=1e-5)


class PlainHead(BaseOccHead):
    def forward(self, scene):
        return OccPrediction([scene])


def test_a_head_hands_the_frustums_of_the_samples_on():
    head = PlainHead(GRID, loss_occ=dict(type='OccupancyLoss', lovasz_weight=0, ce_weight=0, frustum_weight=1.0, frustums=2))
    scores, boxes = torch.randn(1, 3, 4, 4, 2), torch.randint(-1, 4, (4, 4, 2)).short()
    labels = torch.randint(0, 3, (1, 4, 4, 2))
    batch = OccBatch(None, labels=labels, frustum_index=boxes[None], frustums=2)
    value = head.loss_by_feat(head(scores), batch)['loss_occ_frustum_0']
    expected = by_definition(scores.movedim(1, -1).reshape(-1, 3).softmax(-1), labels.flatten(), boxes.flatten(), 4)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
