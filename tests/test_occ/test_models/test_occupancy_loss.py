"""Tests of the voxel loss."""

import pytest
import torch

from projects.occ.models.label_reduction import reduce_labels, reduce_volume
from projects.occ.models.occupancy_loss import OccupancyLoss
from projects.occ.models.scene_class_affinity import geo_scal_loss, sem_scal_loss
from projects.occ.structures import VoxelGrid


def make_grid(shape=(4, 4, 2), classes=3):
    upper = [float(n) for n in shape]
    return VoxelGrid([0, 0, 0, *upper], 1.0, shape, 'ego', classes - 1, class_names=[f'c{i}' for i in range(classes)])


def test_cross_entropy_is_the_weighted_mean():
    grid = make_grid()
    logits = torch.randn(2, 3, 4, 4, 2)
    labels = torch.randint(0, 3, (2, 4, 4, 2))
    labels[0, 0] = 255
    weights = torch.tensor([0.5, 2.0, 1.5])
    loss = OccupancyLoss(grid, weights.tolist(), ce_weight=10.0, lovasz_weight=0).compute([logits], labels)
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
    loss = OccupancyLoss(grid, ce_weight=0, lovasz_weight=1.0).compute([logits], labels)
    expected = ((1 - 16 / 24) + (1 - 8 / 16)) / 2
    assert loss['loss_occ_lovasz_0'].item() == pytest.approx(expected, abs=1e-5)


def test_scales_decay_from_the_finest():
    grid = make_grid()
    labels = torch.randint(0, 3, (1, 4, 4, 2))
    coarse = torch.randn(1, 3, 2, 2, 1)
    fine = torch.randn(1, 3, 4, 4, 2)
    both = OccupancyLoss(grid, decay=0.5).compute([coarse, fine], labels)
    alone = OccupancyLoss(make_grid((2, 2, 1)), decay=0.5).compute([coarse], reduce_volume(labels, (2, 2, 1)))
    assert set(both) == {f'loss_occ_{t}_{s}' for t in ('ce', 'lovasz') for s in (0, 1)}
    torch.testing.assert_close(both['loss_occ_ce_1'], 0.5 * alone['loss_occ_ce_0'])
    torch.testing.assert_close(both['loss_occ_lovasz_1'], 0.5 * alone['loss_occ_lovasz_0'])


def test_mask_and_ignored_voxels_do_not_count():
    grid = make_grid()
    logits = torch.randn(1, 3, 4, 4, 2, requires_grad=True)
    labels = torch.randint(0, 3, (1, 4, 4, 2))
    mask = torch.rand(1, 4, 4, 2) > 0.5
    loss = OccupancyLoss(grid)
    sum(loss.compute([logits], labels, mask).values()).backward()
    assert (logits.grad.abs().sum(1)[~mask] == 0).all() and (logits.grad.abs().sum(1)[mask] > 0).all()
    ignored = torch.where(mask, labels, torch.full_like(labels, 255))
    for key, value in loss.compute([logits], labels, mask).items():
        torch.testing.assert_close(value, loss.compute([logits], ignored)[key])


def test_nothing_labelled_gives_zero_with_gradient():
    logits = torch.randn(1, 3, 4, 4, 2, requires_grad=True)
    losses = OccupancyLoss(make_grid()).compute([logits], torch.full((1, 4, 4, 2), 255))
    assert all(value.item() == 0 for value in losses.values())
    sum(losses.values()).backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all()


def test_one_labelled_voxel_is_enough():
    labels = torch.full((1, 4, 4, 2), 255)
    labels[0, 0, 0, 0] = 1
    losses = OccupancyLoss(make_grid()).compute([torch.randn(1, 3, 4, 4, 2)], labels)
    assert all(torch.isfinite(value) and value > 0 for value in losses.values())


def test_half_precision_logits_are_scored_in_float32():
    labels = torch.randint(0, 3, (1, 4, 4, 2))
    logits = torch.randn(1, 3, 4, 4, 2).bfloat16()
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = OccupancyLoss(make_grid()).compute([logits], labels)
    full = OccupancyLoss(make_grid()).compute([logits.float()], labels)
    for key in full:
        assert half[key].dtype == torch.float32
        torch.testing.assert_close(half[key], full[key])


@pytest.mark.parametrize(
    'kwargs, text',
    [
        (dict(class_weights=[1.0, 2.0]), 'one weight for each of the 3 classes'),
        (dict(mask='lidr'), "mask must be one of .* got 'lidr'"),
        (dict(label_reduction='last'), "label_reduction must be one of .*sparse_last.* got 'last'"),
        (dict(class_weights=[1.0, 2.0, 3.0], binary=True), 'class_weights have no meaning with loss_occ.binary'),
    ],
)
def test_config_errors(kwargs, text):
    with pytest.raises(ValueError, match=text):
        OccupancyLoss(make_grid(), **kwargs)


def test_shape_errors():
    loss = OccupancyLoss(make_grid())
    with pytest.raises(ValueError, match='with the grid shape'):
        loss.compute([torch.zeros(1, 3, 4, 4, 2)], torch.zeros(1, 4, 4, 3, dtype=torch.long))
    with pytest.raises(ValueError, match='C=3 .grid.class_names.*got .1, 5, 4, 4, 2'):
        loss.compute([torch.zeros(1, 5, 4, 4, 2)], torch.zeros(1, 4, 4, 2, dtype=torch.long))
    with pytest.raises(ValueError, match='class ids .99. are outside 0..2 and not ignore_index 255'):
        loss.compute([torch.zeros(1, 3, 4, 4, 2)], torch.full((1, 4, 4, 2), 99))
    with pytest.raises(ValueError, match='scale_weights must have one factor for each of the 1 outputs'):
        OccupancyLoss(make_grid(), scale_weights=[0.5, 1]).compute([torch.zeros(1, 3, 4, 4, 2)], torch.zeros(1, 4, 4, 2).long())


AUTHORS = dict(ce_weight=1, lovasz_weight=0, sem_scal_weight=1, geo_scal_weight=1, label_reduction='sparse_last')


def test_scale_weights_replace_the_decay():
    labels = torch.randint(0, 3, (1, 4, 4, 2))
    logits = [torch.randn(1, 3, 2, 2, 1), torch.randn(1, 3, 4, 4, 2)]
    plain = OccupancyLoss(make_grid(), decay=1).compute(logits, labels)
    weighted = OccupancyLoss(make_grid(), scale_weights=[0.3, 2]).compute(logits, labels)
    for key, value in plain.items():
        torch.testing.assert_close(weighted[key], value * (2 if key.endswith('0') else 0.3))


def test_affinity_terms_on_every_scale():
    """The free class is the last one here, as in Occ3D."""
    grid = make_grid()
    labels = torch.randint(0, 3, (2, 4, 4, 2))
    labels[0, 0] = 255
    logits = [torch.randn(2, 3, 2, 2, 1), torch.randn(2, 3, 4, 4, 2)]
    losses = OccupancyLoss(grid, **AUTHORS).compute(logits, labels)
    assert set(losses) == {f'loss_occ_{t}_{s}' for t in ('ce', 'sem_scal', 'geo_scal') for s in (0, 1)}
    for scale, scores in ((1, logits[0]), (0, logits[1])):
        target = reduce_labels(labels, scores.shape[2:], grid, 'sparse_last')
        keep = target != 255
        probs = scores.softmax(1).movedim(1, -1)[keep]
        expected = dict(
            ce=-probs.log().gather(1, target[keep][:, None]).mean(),
            sem_scal=sem_scal_loss(probs, target[keep]),
            geo_scal=geo_scal_loss(probs[:, 2], target[keep] == 2),
        )
        for name, value in expected.items():
            torch.testing.assert_close(losses[f'loss_occ_{name}_{scale}'], 0.5**scale * value)


def test_labels_without_free_or_without_occupied_voxels_stay_finite():
    for label in (0, 2):
        logits = torch.randn(1, 3, 4, 4, 2, requires_grad=True)
        losses = OccupancyLoss(make_grid(), **AUTHORS).compute([logits], torch.full((1, 4, 4, 2), label))
        sum(losses.values()).backward()
        assert all(torch.isfinite(v) for v in losses.values()) and torch.isfinite(logits.grad).all()


@pytest.mark.parametrize('kwargs', [{}, AUTHORS, dict(AUTHORS, binary=True)])
def test_all_terms_are_zero_without_labels(kwargs):
    logits = torch.randn(1, 3, 4, 4, 2, requires_grad=True)
    losses = OccupancyLoss(make_grid(), **kwargs).compute([logits], torch.full((1, 4, 4, 2), 255))
    sum(losses.values()).backward()
    assert losses and all(v.item() == 0 for v in losses.values()) and (logits.grad == 0).all()


def test_binary_loss_sees_free_and_occupied_only():
    grid = make_grid()
    labels = torch.randint(0, 3, (1, 4, 4, 2))
    labels[0, 0] = 255
    score = torch.randn(1, 1, 4, 4, 2)
    loss = OccupancyLoss(grid, binary=True, **AUTHORS)
    losses = loss.compute([score], labels)
    keep = labels != 255
    occupied = (labels[keep] != grid.free_index).float()
    bce = torch.nn.functional.binary_cross_entropy_with_logits(score[:, 0][keep], occupied)
    torch.testing.assert_close(losses['loss_occ_ce_0'], bce)
    # class logits count through the total probability of the occupied classes
    logits = torch.randn(1, 3, 4, 4, 2)
    free = logits.softmax(1)[:, grid.free_index]
    per_class = loss.compute([logits], labels)
    as_one = loss.compute([((1 - free) / free).log()[:, None]], labels)
    for key, value in per_class.items():
        torch.testing.assert_close(value, as_one[key], atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match='C=3'):
        OccupancyLoss(grid).compute([score], labels)


def golden_case(golden_dir):
    case = torch.load(golden_dir / 'surroundocc_small.pt', weights_only=True)
    shape = tuple(case['occ_preds'][-1].shape[2:])
    names = [f'c{i}' for i in range(17)]
    return case, VoxelGrid([0, 0, 0, *map(float, shape)], 1.0, shape, 'lidar', 0, class_names=names)


def dense(rows, grid):
    """A list of occupied voxels (K, 4) ix, iy, iz, class as a label volume (1, X, Y, Z)."""
    labels = torch.full((1, *grid.shape), grid.free_index)
    rows = rows.long()
    labels[0, rows[:, 0], rows[:, 1], rows[:, 2]] = rows[:, 3]
    return labels


def assert_parity(losses, components, names):
    """Unweighted terms of every level, coarse to fine, 1e-4 relative."""
    for level, expected in components.items():
        scale = len(components) - 1 - int(level)
        for theirs, ours in names.items():
            got = losses[f'loss_occ_{ours}_{scale}'] / expected['weight']
            assert got.item() == pytest.approx(expected[theirs], rel=1e-4), (level, theirs)


def test_parity_with_the_loss_of_surroundocc(golden_dir):
    case, grid = golden_case(golden_dir)
    labels = case['inputs']['gt_dense'].long()
    assert torch.equal(torch.cat([dense(rows, grid) for rows in case['inputs']['gt_occ']]), labels)
    losses = OccupancyLoss(grid, **AUTHORS).compute(case['occ_preds'], labels)
    assert_parity(losses, case['loss_components'], dict(ce='ce', sem='sem_scal', geo='geo_scal'))
    for level, expected in enumerate(case['losses'].values()):
        scale = len(case['losses']) - 1 - level
        assert sum(v for k, v in losses.items() if k.endswith(f'_{scale}')).item() == pytest.approx(expected, rel=1e-4)
    assert sum(losses.values()).item() == pytest.approx(float(case['loss_total']), rel=1e-4)


def test_parity_with_the_binary_loss_of_surroundocc(golden_dir):
    case, grid = golden_case(golden_dir)
    labels = torch.cat([dense(rows, grid) for rows in case['binary']['gt_occ']])
    loss = OccupancyLoss(grid, binary=True, **dict(AUTHORS, sem_scal_weight=0))
    losses = loss.compute([logits[:, :1] for logits in case['occ_preds']], labels)
    assert_parity(losses, case['binary']['components'], dict(bce='ce', geo='geo_scal'))
    for level, expected in enumerate(case['binary']['losses'].values()):
        scale = len(case['losses']) - 1 - level
        assert sum(v for k, v in losses.items() if k.endswith(f'_{scale}')).item() == pytest.approx(expected, rel=1e-4)


def test_multi_scale_parity_with_the_original(golden_dir):
    """GaussRender's loss on the four outputs of a SurroundOcc head (golden file: 1e-4 relative)."""
    case, grid = golden_case(golden_dir)
    voxel = case['gaussrender_voxel']
    loss = OccupancyLoss(grid, voxel['class_weights'].tolist(), voxel['ce_weight'], voxel['lovasz_weight'])
    index = voxel['sample']
    labels = case['inputs']['gt_dense'][index : index + 1].long()
    for logits, expected in zip(case['occ_preds'], voxel['gt_levels']):
        assert torch.equal(reduce_volume(labels, logits.shape[2:]), expected.long())
    losses = loss.compute([logits[index : index + 1] for logits in case['occ_preds']], labels)
    for key, expected in voxel['losses'].items():
        scale = int(key.split('_')[1])
        got = losses[f'loss_occ_ce_{scale}'] + losses[f'loss_occ_lovasz_{scale}']
        assert got.item() == pytest.approx(expected, rel=1e-4)
