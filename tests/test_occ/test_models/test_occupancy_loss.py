"""Tests of the voxel loss."""

import pytest
import torch

from projects.occ.models.occupancy_loss import OccupancyLoss, reduce_volume
from projects.occ.structures import VoxelGrid


def make_grid(shape=(4, 4, 2), classes=3):
    upper = [float(n) for n in shape]
    return VoxelGrid([0, 0, 0, *upper], 1.0, shape, 'ego', classes - 1, class_names=[f'c{i}' for i in range(classes)])


def test_reduce_volume_takes_the_last_child():
    volume = torch.arange(4 * 4 * 2).reshape(1, 4, 4, 2)
    coarse = reduce_volume(volume, (2, 2, 1))
    assert coarse.shape == (1, 2, 2, 1)
    assert coarse[0, 0, 1, 0] == volume[0, 1, 3, 1]
    with pytest.raises(ValueError, match='must divide the full grid'):
        reduce_volume(volume, (3, 2, 1))


def test_cross_entropy_is_the_weighted_mean():
    grid = make_grid()
    logits = torch.randn(2, 3, 4, 4, 2)
    labels = torch.randint(0, 3, (2, 4, 4, 2))
    labels[0, 0] = 255
    weights = torch.tensor([0.5, 2.0, 1.5])
    loss = OccupancyLoss(grid, weights.tolist(), ce_weight=10.0, lovasz_weight=0)([logits], labels)
    keep = labels != 255
    log_p = logits.movedim(1, -1)[keep].log_softmax(-1)
    nll = -log_p.gather(1, labels[keep][:, None])[:, 0]
    w = weights[labels[keep]]
    assert set(loss) == {'loss_occ_ce_0'}
    torch.testing.assert_close(loss['loss_occ_ce_0'], 10 * (w * nll).sum() / w.sum())


def test_lovasz_equals_the_jaccard_loss_on_hard_predictions():
    # On one-hot probabilities the Lovász extension is the Jaccard loss itself: 1 - |A and B| / |A or B| per present class.
    grid = make_grid()
    labels = torch.zeros(1, 4, 4, 2, dtype=torch.long)
    labels[0, :2] = 1
    pred = torch.zeros_like(labels)
    pred[0, :1] = 1
    logits = 200.0 * torch.nn.functional.one_hot(pred, 3).movedim(-1, 1).float()
    loss = OccupancyLoss(grid, ce_weight=0, lovasz_weight=1.0)([logits], labels)
    expected = ((1 - 16 / 24) + (1 - 8 / 16)) / 2
    assert loss['loss_occ_lovasz_0'].item() == pytest.approx(expected, abs=1e-5)


def test_scales_decay_from_the_finest():
    grid = make_grid()
    labels = torch.randint(0, 3, (1, 4, 4, 2))
    coarse = torch.randn(1, 3, 2, 2, 1)
    fine = torch.randn(1, 3, 4, 4, 2)
    both = OccupancyLoss(grid, decay=0.5)([coarse, fine], labels)
    alone = OccupancyLoss(make_grid((2, 2, 1)), decay=0.5)([coarse], reduce_volume(labels, (2, 2, 1)))
    assert set(both) == {f'loss_occ_{t}_{s}' for t in ('ce', 'lovasz') for s in (0, 1)}
    torch.testing.assert_close(both['loss_occ_ce_1'], 0.5 * alone['loss_occ_ce_0'])
    torch.testing.assert_close(both['loss_occ_lovasz_1'], 0.5 * alone['loss_occ_lovasz_0'])


def test_mask_and_ignored_voxels_do_not_count():
    grid = make_grid()
    logits = torch.randn(1, 3, 4, 4, 2, requires_grad=True)
    labels = torch.randint(0, 3, (1, 4, 4, 2))
    mask = torch.rand(1, 4, 4, 2) > 0.5
    loss = OccupancyLoss(grid)
    sum(loss([logits], labels, mask).values()).backward()
    assert (logits.grad.abs().sum(1)[~mask] == 0).all() and (logits.grad.abs().sum(1)[mask] > 0).all()
    ignored = torch.where(mask, labels, torch.full_like(labels, 255))
    for key, value in loss([logits], labels, mask).items():
        torch.testing.assert_close(value, loss([logits], ignored)[key])


def test_nothing_labelled_gives_zero_with_gradient():
    logits = torch.randn(1, 3, 4, 4, 2, requires_grad=True)
    losses = OccupancyLoss(make_grid())([logits], torch.full((1, 4, 4, 2), 255))
    assert all(value.item() == 0 for value in losses.values())
    sum(losses.values()).backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_one_labelled_voxel_is_enough():
    labels = torch.full((1, 4, 4, 2), 255)
    labels[0, 0, 0, 0] = 1
    losses = OccupancyLoss(make_grid())([torch.randn(1, 3, 4, 4, 2)], labels)
    assert all(torch.isfinite(value) and value > 0 for value in losses.values())


def test_half_precision_logits_are_scored_in_float32():
    labels = torch.randint(0, 3, (1, 4, 4, 2))
    logits = torch.randn(1, 3, 4, 4, 2).bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = OccupancyLoss(make_grid())([logits], labels)
    full = OccupancyLoss(make_grid())([logits.float()], labels)
    for key in full:
        assert half[key].dtype == torch.float32
        torch.testing.assert_close(half[key], full[key])


@pytest.mark.parametrize(
    'kwargs, text',
    [
        (dict(class_weights=[1.0, 2.0]), 'one weight for each of the 3 classes'),
        (dict(mask='lidr'), "must be one of .* got 'lidr'"),
    ],
)
def test_config_errors(kwargs, text):
    with pytest.raises(ValueError, match=text):
        OccupancyLoss(make_grid(), **kwargs)


def test_shape_errors():
    loss = OccupancyLoss(make_grid())
    with pytest.raises(ValueError, match='with the grid shape'):
        loss([torch.zeros(1, 3, 4, 4, 2)], torch.zeros(1, 4, 4, 3, dtype=torch.long))
    with pytest.raises(ValueError, match='C=3 .grid.class_names.*got .1, 5, 4, 4, 2'):
        loss([torch.zeros(1, 5, 4, 4, 2)], torch.zeros(1, 4, 4, 2, dtype=torch.long))


def test_multi_scale_parity_with_the_original(golden_dir):
    """GaussRender's loss on the four outputs of a SurroundOcc head (golden file: 1e-4 relative)."""
    case = torch.load(golden_dir / 'surroundocc_small.pt', weights_only=True)
    voxel = case['gaussrender_voxel']
    fine = case['occ_preds'][-1].shape[2:]
    grid = make_grid(tuple(fine), 17)
    loss = OccupancyLoss(grid, voxel['class_weights'].tolist(), voxel['ce_weight'], voxel['lovasz_weight'])
    index = voxel['sample']
    labels = case['inputs']['gt_dense'][index : index + 1].long()
    for logits, expected in zip(case['occ_preds'], voxel['gt_levels']):
        assert torch.equal(reduce_volume(labels, logits.shape[2:]), expected.long())
    losses = loss([logits[index : index + 1] for logits in case['occ_preds']], labels)
    for key, expected in voxel['losses'].items():
        scale = int(key.split('_')[1])
        got = losses[f'loss_occ_ce_{scale}'] + losses[f'loss_occ_lovasz_{scale}']
        assert got.item() == pytest.approx(expected, rel=1e-4)
