import pytest
import torch
from torch.nn import functional as F

from projects.occ.models import TeacherConsistency
from projects.occ.structures import Cameras, OccBatch, OccPrediction, VoxelGrid
from projects.occ.structures.teacher_targets import TeacherTargets

GRID = VoxelGrid((-2, -2, -1, 2, 2, 1), 1.0, (4, 4, 2), 'ego', 2, class_names=('car', 'road', 'free'))


def make(teacher, feats=True):
    torch.manual_seed(0)
    prediction = OccPrediction(
        logits=[torch.randn(3, 3, *GRID.shape, requires_grad=True)],
        voxel_feats=torch.randn(3, 5, *GRID.shape, requires_grad=True) if feats else None,
    )
    cameras = Cameras(torch.eye(4).expand(3, 1, 4, 4), torch.eye(3).expand(3, 1, 3, 3), torch.ones(3, 1, 2).long())
    return prediction, OccBatch(cameras=cameras, teacher=teacher)


def targets():
    torch.manual_seed(1)
    labels = torch.randint(0, 3, (2, *GRID.shape))
    labels[0, 0] = 255
    return TeacherTargets(torch.tensor([0, 2]), labels, torch.randn(2, 5, *GRID.shape))


def test_losses_of_the_unlabelled_samples():
    teacher = targets()
    prediction, batch = make(teacher)
    losses = TeacherConsistency(GRID, pseudo_weight=2.0, feature_weight=0.5).loss(prediction, batch)
    logits, feats = prediction.logits[0][[0, 2]], prediction.voxel_feats[[0, 2]]
    torch.testing.assert_close(losses['loss_pseudo_occ'], 2 * F.cross_entropy(logits, teacher.labels, ignore_index=255))
    torch.testing.assert_close(losses['loss_teacher_feat'], 0.5 * (feats - teacher.feats).square().mean())
    sum(losses.values()).backward()
    assert (prediction.logits[0].grad[1] == 0).all() and (prediction.logits[0].grad[0, :, 0] == 0).all()
    assert prediction.voxel_feats.grad[2].abs().sum() > 0


def test_nothing_sure_and_nothing_unlabelled_are_zero_with_a_gradient():
    unsure = TeacherTargets(torch.tensor([1]), torch.full((1, *GRID.shape), 255), torch.zeros(1, 5, *GRID.shape))
    for teacher in (unsure, None):
        prediction, batch = make(teacher)
        losses = TeacherConsistency(GRID).loss(prediction, batch)
        assert losses['loss_pseudo_occ'] == 0 and losses['loss_pseudo_occ'].requires_grad
        assert (losses['loss_teacher_feat'] == 0) == (teacher is None)
    assert set(TeacherConsistency(GRID, feature_weight=0).loss(*make(targets(), feats=False))) == {'loss_pseudo_occ'}
    with pytest.raises(ValueError, match='feature_weight'):
        TeacherConsistency(GRID).loss(*make(targets(), feats=False))


def test_targets_follow_the_samples_of_a_batch():
    teacher = targets()
    _, batch = make(teacher)
    part = batch.samples([1, 2]).teacher
    assert part.index.tolist() == [1] and torch.equal(part.labels[0], teacher.labels[1])
    assert batch.samples([1]).teacher.labels.shape == (0, *GRID.shape)
