"""Density and classes on the voxel features of a foreign head."""

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn

from projects.occ.models import BaseOccHead
from projects.occ.structures import OccBatch, OccPrediction
from projects.occ.structures.cameras import Cameras

GRID = dict(
    point_cloud_range=(-2.0, -2.0, -1.0, 2.0, 2.0, 1.0),
    voxel_size=1.0,
    shape=(4, 4, 2),
    frame='ego',
    free_index=1,
    class_names=('wall', 'free', 'car'),
)


@MODELS.register_module()
class HostHeadOfTest(BaseOccHead):
    """Classifies features by one layer."""

    def __init__(self, grid, channels=6, silent=False, **kwargs):
        super().__init__(grid=grid, **kwargs)
        self.mix = nn.Conv3d(channels, channels, 1)
        self.classifier = nn.Conv3d(channels, 3, 1)
        self.silent = silent

    def forward(self, scene):
        feats = self.mix(scene)
        return OccPrediction([self.classifier(feats)], None if self.silent else feats)


def build(**options):
    init_default_scope('mmdet3d')
    torch.manual_seed(0)
    return MODELS.build(dict(type='DensityHead', grid=GRID, channels=6, **{'host': dict(type='HostHeadOfTest'), **options}))


def labels_of(density, classes, free_score, **options):
    """Decision of a head about one voxel."""
    logits = torch.tensor([classes[0], free_score, classes[1]]).view(1, 3, 1, 1, 1)
    return build(**options).predict_labels(OccPrediction([logits], density=torch.full((1, 1, 1, 1), density))).item()


def test_outputs_and_trained_parameters():
    head = build(loss_occ=dict(type='DensityOccLoss'))
    scene = torch.randn(2, 6, 4, 4, 2, generator=torch.Generator().manual_seed(1))
    prediction = head(scene)
    assert prediction.logits[0].shape == (2, 3, 4, 4, 2) and prediction.density.shape == (2, 4, 4, 2)
    assert (prediction.density >= 0).all() and (prediction.logits[0][:, 1] >= 0).all()
    assert (build(final_softplus=False)(scene).density < 0).any()
    batch = OccBatch(
        Cameras(*(torch.eye(n).expand(2, 1, n, n) for n in (4, 3)), torch.ones(2, 1, 2).long()),
        labels=torch.randint(0, 3, (2, 4, 4, 2), generator=torch.Generator().manual_seed(2)),
    )
    sum(head.loss_by_feat(prediction, batch).values()).backward()
    without = {name for name, p in head.named_parameters() if p.requires_grad and p.grad is None}
    assert not without
    assert {n for n, p in head.named_parameters() if not p.requires_grad} == {'host.classifier.weight', 'host.classifier.bias'}


def test_joint_logits_are_trained_by_the_usual_loss():
    head = build(joint=True, loss_occ=dict(type='OccupancyLoss', ce_weight=1.0, lovasz_weight=0.0))
    prediction = head(torch.randn(1, 6, 4, 4, 2, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(prediction.logits[0].exp().sum(1), torch.ones(1, 4, 4, 2))
    labels = torch.zeros(1, 4, 4, 2, dtype=torch.long)
    batch = OccBatch(Cameras(*(torch.eye(n).expand(1, 1, n, n) for n in (4, 3)), torch.ones(1, 1, 2).long()), labels=labels)
    loss = head.loss_by_feat(prediction, batch)['loss_occ_ce_0']
    torch.testing.assert_close(loss, -prediction.logits[0][:, 0].mean())
    loss.backward()
    assert all(p.grad is not None for p in head.density_mlp.parameters())


def test_rules():
    assert labels_of(9.0, (0.0, 1.0), 5.0) == 2 and labels_of(8.0, (0.0, 1.0), 5.0) == 1
    assert labels_of(8.0, (3.0, 1.0), 5.0, threshold=7.5) == 0
    assert labels_of(8.0, (0.0, 1.0), 5.0, rule='free_score') == 2
    assert labels_of(4.0, (0.0, 1.0), 5.0, rule='free_score') == 1
    assert labels_of(0.0, (-3.0, -1.0), -2.0, joint=True) == 2
    assert labels_of(0.0, (-3.0, -1.0), -2.0, joint=True, rule='threshold') == 1


def test_what_cannot_be_meant():
    for options in (dict(rule='argmax'), dict(joint=True, rule='free_score'), dict(rule='best')):
        with pytest.raises(ValueError, match='occ_head.rule'):
            build(**options)
    with pytest.raises(ValueError, match="'occ'.*mix"):
        build(unused=('occ',))
    with pytest.raises(ValueError, match='occ_head.threshold is None'):
        labels_of(1.0, (0.0, 1.0), 0.0, threshold=None)
    with pytest.raises(ValueError, match='HostHeadOfTest gives no voxel features'):
        build(host=dict(type='HostHeadOfTest', silent=True))(torch.zeros(1, 6, 4, 4, 2))
