"""The head: outputs, skips, the binary variant, errors."""

import pytest
import torch
from tiny_surroundocc import GRID, build_head, build_volumes, randomize

from projects.occ.structures import OccBatch, VoxelGrid
from projects.surroundocc.surroundocc_head import plan_skips


def triples(*factors):
    return [(n, n, n) for n in factors]


def test_outputs_from_coarse_to_fine():
    prediction = build_head()(build_volumes(2))
    assert [tuple(v.shape) for v in prediction.logits] == [(2, 5, 4, 2, 1), (2, 5, 8, 4, 2), (2, 5, 16, 8, 4)]
    assert prediction.voxel_feats.shape == (2, 16, 16, 8, 4)


def test_axes_may_differ_in_scale():
    grid = VoxelGrid((-8, -4, -1, 8, 4, 2), 1, (16, 8, 3), 'lidar', 0, class_names=('free', 'car'))
    head = build_head(grid=grid, scales=[(2, 2, 1), (4, 4, 3)], strides=(1, (2, 2, 3), 1, (2, 2, 1), 1))
    prediction = head([torch.randn(1, 16, 8, 4, 3), torch.randn(1, 32, 4, 2, 1)])
    assert [tuple(v.shape[2:]) for v in prediction.logits] == [(4, 2, 1), (8, 4, 3), (16, 8, 3)]


def test_official_wiring():
    assert plan_skips(
        triples(2, 4, 8), (128, 256, 512), (256, 256, 128, 128, 64, 64, 32), triples(1, 2, 1, 2, 1, 2, 1), (0, 2, 4, 6)
    ) == {1: 1, 3: 0}


@torch.no_grad()
def test_a_volume_is_added_where_its_resolution_is_reached():
    head = randomize(build_head())
    fine, coarse = build_volumes()
    logits = head([fine, coarse]).logits
    other = head([fine + 1, coarse]).logits
    assert torch.equal(logits[0], other[0])  # the coarsest output is taken before any skip
    assert not torch.allclose(logits[1], other[1]) and not torch.allclose(logits[2], other[2])
    feats = head.deblocks[1](head.deblocks[0](coarse)) + fine
    feats = head.deblocks[2](feats)
    torch.testing.assert_close(head.occ[1](feats), logits[1])


def test_recomputing_is_neutral():
    volumes = build_volumes()
    grads = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        head = randomize(build_head(with_cp=with_cp))
        sum(v.square().sum() for v in head(volumes).logits).backward()
        grads.append({name: p.grad for name, p in head.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-4, rtol=1e-4)


def test_recomputing_counts_batch_norms_once():
    volumes = build_volumes(batch_size=2)
    states = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        head = build_head(with_cp=with_cp, norm_cfg=dict(type='BN3d')).train()
        sum(v.square().sum() for v in head(volumes).logits).backward()
        states.append(dict(head.named_buffers()))
    assert len(states[0]) == 15
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value)
        assert 'num_batches_tracked' not in name or value == 1


def test_losses_of_the_base_class():
    head = build_head(loss_occ=dict(type='OccupancyLoss', sem_scal_weight=1, geo_scal_weight=1, lovasz_weight=0))
    batch = OccBatch(None, labels=torch.randint(0, 5, (2, *GRID.shape)))
    losses = head.loss_by_feat(head(build_volumes(2)), batch)
    assert set(losses) == {f'loss_occ_{t}_{s}' for t in ('ce', 'sem_scal', 'geo_scal') for s in range(3)}


def test_binary_variant():
    head = randomize(build_head(use_semantic=False, loss_occ=dict(type='OccupancyLoss', binary=True, geo_scal_weight=1)))
    assert head.occ[0].weight.shape == (1, 16, 1, 1, 1)
    volumes = build_volumes()
    score = head.occ[-1](head(volumes).voxel_feats).detach()
    # one logit against 0, the other classes have no share
    for training in (True, False):
        probs = head.train(training)(volumes).logits[-1].softmax(1)
        torch.testing.assert_close(probs[:, 1], score[:, 0].sigmoid())
        assert (probs[:, 2:] == 0).all()
    # prediction: occupied from the threshold on
    predicted = head.predict_labels(head(volumes))
    expected = score[:, 0].sigmoid() > 0.25
    assert torch.equal(predicted, expected.long()) and 0 < expected.float().mean() < 1
    label = torch.randint(0, 5, (1, *GRID.shape))
    losses = head.loss_by_feat(head(volumes), OccBatch(None, labels=label))
    bce = torch.nn.functional.binary_cross_entropy_with_logits(score[:, 0], (label != 0).float())
    torch.testing.assert_close(losses['loss_occ_ce_0'], 10 * bce)


def test_binary_variant_with_the_free_class_last():
    grid = VoxelGrid((-8, -4, -1, 8, 4, 3), 1, (16, 8, 4), 'ego', free_index=2, class_names=('others', 'car', 'free'))
    head = randomize(build_head(grid=grid, use_semantic=False, threshold=0.5))
    prediction = head(build_volumes())
    predicted, logits = head.predict_labels(prediction), prediction.logits[-1]
    assert set(predicted.unique().tolist()) == {0, 2}
    assert torch.equal(predicted, logits.argmax(1))  # 0.5 is where the logits are equal


@pytest.mark.parametrize(
    'options, text',
    [
        (dict(strides=(1, 2, 1, 2, 2)), 'strides .* must lead from the coarsest volume'),
        (dict(strides=(1, 2, 1, 2)), 'must have one entry per block'),
        (dict(out_indices=(0, 2)), r'out_indices must rise up to the last block 4, got \(0, 2\)'),
        (dict(channels=(16, 32, 16, 16, 16)), 'no block of occ_head takes the volume with .*16 channels'),
        (dict(out_indices=(0, 1, 2, 3, 4)), 'no block of occ_head takes the volume'),
        (dict(threshold=1.0), 'threshold must be a probability between 0 and 1'),
        (dict(use_semantic=False, loss_occ=dict(type='OccupancyLoss')), 'set loss_occ.binary=True'),
    ],
)
def test_config_errors(options, text):
    with pytest.raises(ValueError, match=text):
        build_head(**options)


def test_other_volumes_are_refused():
    with pytest.raises(ValueError, match='occ_head expects volumes .* same grid, scales and embed_dims'):
        build_head()(build_volumes()[::-1])
