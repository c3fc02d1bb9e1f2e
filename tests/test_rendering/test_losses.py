import numpy as np
import pytest
import torch

from projects.gaussrender.loss_terms import loss_terms
from projects.occ.structures import Cameras, OccBatch, OccField, VoxelGrid
from projects.rendering.losses import Term, assemble
from projects.rendering.rendered import Rendered
from projects.rendering.supervision import rendered_losses
from projects.rendering.targets import LabelTarget

FREE = 2
GRID = VoxelGrid((0, 0, 0, 1, 1, 1), 1.0, (1, 1, 1), 'ego', FREE, class_names=('a', 'b', 'free'))


class Images:
    """Stands for a renderer: shows given images, of the prediction or of the label."""

    def __init__(self, preds, targets):
        self.images = {False: preds, True: targets}

    def __call__(self, field, cameras, known, cull):
        return self.images[field.has_ids][cull]


def compute(preds, targets, mask_elems=False, **options):
    """The terms between given images."""
    batch = len(next(iter(preds.values())).depth)
    labels = torch.zeros(batch, 1, 1, 1, dtype=torch.long)
    field = OccField(GRID, torch.ones(batch, 1, 1, 1), torch.ones(batch, 3, 1, 1, 1), torch.zeros(3))
    views = {
        kind: Cameras(torch.eye(4).expand(batch, n, 4, 4), torch.eye(3).expand(batch, n, 3, 3), torch.ones(batch, n, 2).long())
        for kind, view in preds.items()
        for n in [view.depth.shape[1]]
    }
    target = LabelTarget(GRID, mask_elems=mask_elems)
    terms = loss_terms(**options)
    batch = OccBatch(views['cam'], labels=labels)
    return rendered_losses(field, views, Images(preds, targets), target, terms, batch, cull={kind: kind for kind in views})


def random_views(seed, batch=2, views=3, height=5, width=7, classes=3):
    rng = np.random.default_rng(seed)
    sem = rng.dirichlet(np.ones(classes), (batch, views, height, width))
    depth = np.where(rng.random((batch, views, height, width)) < 0.4, 0.0, rng.uniform(0.2, 40, (batch, views, height, width)))
    return Rendered(*(torch.tensor(x) for x in (sem, depth, (depth > 0).astype(float))))


@pytest.fixture
def preds():
    return dict(cam=random_views(0), bev=random_views(1, views=1, height=6, width=6))


@pytest.fixture
def targets():
    return dict(cam=random_views(2), bev=random_views(3, views=1, height=6, width=6))


def arrays(views):
    return views.features.detach().numpy(), views.depth.detach().numpy()


def by_view(function, pred, target):
    """Sum over the batch of the mean over the cameras of a function of (sem, depth, gt_sem, gt_depth) of one view."""
    (sem, depth), (gt_sem, gt_depth) = arrays(pred), arrays(target)
    values = [
        [function(sem[b, n], depth[b, n], gt_sem[b, n], gt_depth[b, n]) for n in range(sem.shape[1])] for b in range(len(sem))
    ]
    return np.sum(np.mean(values, axis=1))


def sem_l1(sem, depth, gt_sem, gt_depth):
    return np.abs(sem - gt_sem).mean()


def depth_l1(sem, depth, gt_sem, gt_depth):
    return np.abs(depth - gt_depth)[gt_depth > 0.1].mean()


@pytest.mark.parametrize('reduction, factor', [('mean', 0.5), ('sum', 1.0)])
def test_l1_terms(preds, targets, reduction, factor):
    got = compute(preds, targets, batch_reduction=reduction)
    want = {
        'loss_render_cam_sem': 10 * by_view(sem_l1, preds['cam'], targets['cam']),
        'loss_render_cam_depth': 10 / 50 * by_view(depth_l1, preds['cam'], targets['cam']),
        'loss_render_bev_sem': 10 * by_view(sem_l1, preds['bev'], targets['bev']),
        'loss_render_bev_depth': 10 / 100 * by_view(depth_l1, preds['bev'], targets['bev']),
    }
    assert list(got) == list(want)
    for key, value in want.items():
        np.testing.assert_allclose(float(got[key]), factor * value, rtol=1e-9, err_msg=key)


def test_weights_ranges_and_switches(preds, targets):
    base = compute(preds, targets)
    options = dict(weight=2.0, cam_sem=False, bev_sem=0, cam_depth=0.5, cam_depth_range=25.0, bev_depth_range=10.0)
    got = compute(preds, targets, **options)
    assert set(got) == {'loss_render_cam_depth', 'loss_render_bev_depth'}
    torch.testing.assert_close(got['loss_render_cam_depth'], base['loss_render_cam_depth'] / 10 * 2 * 0.5 * 2)
    torch.testing.assert_close(got['loss_render_bev_depth'], base['loss_render_bev_depth'] / 10 * 2 * 10)
    assert {term.view for term in loss_terms(cam_sem=0, cam_depth=0).values()} == {'bev'}


def test_missing_views_are_not_needed(preds, targets):
    got = compute(dict(cam=preds['cam']), dict(cam=targets['cam']), bev_sem=0, bev_depth=0)
    assert list(got) == ['loss_render_cam_sem', 'loss_render_cam_depth']


@pytest.mark.parametrize('kl_input', ['log_softmax', 'log'])
def test_kl_over_the_class_axis(preds, targets, kl_input):
    def log(x):
        return x - np.log(np.exp(x).sum(-1, keepdims=True)) if kl_input == 'log_softmax' else np.log(np.maximum(x, 1e-8))

    def kl(sem, depth, gt_sem, gt_depth):
        return 10 * (np.exp(log(gt_sem)) * (log(gt_sem) - log(sem))).mean()

    got = compute(preds, targets, kl_loss=True, kl_input=kl_input)
    for kind in ('cam', 'bev'):
        want = 10 * 0.5 * by_view(kl, preds[kind], targets[kind])
        np.testing.assert_allclose(float(got[f'loss_render_{kind}_sem']), want, rtol=1e-7)


def test_mask_elems_applies_to_all_terms(preds, targets):
    def masked_sem(sem, depth, gt_sem, gt_depth):
        return np.abs(sem - gt_sem)[gt_sem.argmax(-1) != FREE].mean()

    def masked_depth(sem, depth, gt_sem, gt_depth):
        return np.abs(depth - gt_depth)[(gt_sem.argmax(-1) != FREE) & (gt_depth > 0.1)].mean()

    got = compute(preds, targets, mask_elems=True)
    for kind, depth_range in (('cam', 50), ('bev', 100)):
        want = 10 * 0.5 * by_view(masked_sem, preds[kind], targets[kind])
        np.testing.assert_allclose(float(got[f'loss_render_{kind}_sem']), want, rtol=1e-9)
        want = 10 * 0.5 / depth_range * by_view(masked_depth, preds[kind], targets[kind])
        np.testing.assert_allclose(float(got[f'loss_render_{kind}_depth']), want, rtol=1e-9)


def test_a_view_without_label_depth_is_skipped_or_voids_the_term(preds, targets):
    targets['cam'].depth[0, 1] = 0
    preds['cam'].depth.requires_grad_()
    (_, depth), (_, gt_depth) = arrays(preds['cam']), arrays(targets['cam'])
    values = [[0.0 if (b, n) == (0, 1) else depth_l1(0, depth[b, n], 0, gt_depth[b, n]) for n in range(3)] for b in range(2)]
    got = compute(preds, targets)
    np.testing.assert_allclose(float(got['loss_render_cam_depth'].detach()), 10 / 50 * np.mean(values), rtol=1e-9)
    got['loss_render_cam_depth'].backward()
    assert float(preds['cam'].depth.grad[0, 1].abs().max()) == 0 and float(preds['cam'].depth.grad[0, 0].abs().max()) > 0

    preds['cam'].depth.grad = None
    compatible = compute(preds, targets, invalid_views='zero_term')
    assert float(compatible['loss_render_cam_depth'].detach()) == 0 and float(compatible['loss_render_bev_depth']) > 0
    compatible['loss_render_cam_depth'].backward()
    assert float(preds['cam'].depth.grad.abs().max()) == 0


def test_no_valid_pixel_at_all_gives_zero_with_a_graph(preds, targets):
    targets['bev'].depth.zero_()
    preds['bev'].depth.requires_grad_()
    loss = compute(preds, targets)['loss_render_bev_depth']
    loss.backward()
    assert float(loss.detach()) == 0 and torch.isfinite(preds['bev'].depth.grad).all()


def test_equal_images_cost_nothing(targets):
    for options in (dict(), dict(kl_loss=True), dict(kl_loss=True, kl_input='log', mask_elems=True)):
        assert all(float(value) == 0 for value in compute(targets, targets, **options).values())


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(batch_reduction='none'), r"loss.batch_reduction must be one of \('mean', 'sum'\), got 'none'"),
        (dict(kl_input='prob'), 'loss.kl_input must be one of'),
        (dict(invalid_views='nan'), 'loss.invalid_views must be one of'),
        (dict(cam_depth_range=0), 'loss.cam_depth_range and loss.bev_depth_range must be positive, got 0'),
        (dict(weight=-1), 'must not be negative and one term must be on, got weight=-1'),
        (dict(cam_sem=0, cam_depth=0, bev_sem=0, bev_depth=0), 'one term must be on'),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        loss_terms(**options)


def test_groups_of_views_are_put_together_in_order():
    whole = torch.arange(6.0).view(2, 3)
    parts = [([0, 1], [0, 2], whole[:, [0, 2]]), ([0, 1], [1], whole[:, [1]])]
    assert torch.equal(assemble(parts, (2, 3)), whole)
    assert torch.equal(assemble([([b], [v], whole[b : b + 1, v : v + 1]) for b in range(2) for v in range(3)], (2, 3)), whole)


@pytest.mark.parametrize(
    'options, name',
    [
        (dict(function='l3'), 'l3'),
        (dict(function='l1', weight=-1), 'weight'),
        (dict(function='l1', batch_reduction='max'), 'max'),
    ],
)
def test_bad_terms(options, name):
    with pytest.raises(ValueError, match=name):
        Term(**options)


def test_a_function_of_ones_own_is_a_term(preds, targets):
    term = Term(lambda pred, target, power: (pred - target).abs() ** power, quantity='depth', options=dict(power=2), weight=3.0)
    errors, valid = term.compare(preds['cam'], (targets['cam'].depth, None))
    torch.testing.assert_close(errors, (preds['cam'].depth - targets['cam'].depth).square().mean((-2, -1)))
    torch.testing.assert_close(term.reduce(errors, valid), 3 * errors.mean())
