import numpy as np
import pytest
import torch

from projects.gaussrender.losses import RenderLoss
from projects.gaussrender.renderer import RenderedViews

FREE = 2


def random_views(seed, batch=2, views=3, height=5, width=7, classes=3):
    rng = np.random.default_rng(seed)
    sem = rng.dirichlet(np.ones(classes), (batch, views, height, width))
    depth = np.where(rng.random((batch, views, height, width)) < 0.4, 0.0, rng.uniform(0.2, 40, (batch, views, height, width)))
    return RenderedViews(*(torch.tensor(x) for x in (sem, depth, (depth > 0).astype(float))))


@pytest.fixture
def preds():
    return dict(cam=random_views(0), bev=random_views(1, views=1, height=6, width=6))


@pytest.fixture
def targets():
    return dict(cam=random_views(2), bev=random_views(3, views=1, height=6, width=6))


def arrays(views):
    return views.sem.detach().numpy(), views.depth.detach().numpy()


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
    got = RenderLoss(batch_reduction=reduction)(preds, targets, FREE)
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
    base = RenderLoss()(preds, targets, FREE)
    loss = RenderLoss(weight=2.0, cam_sem=False, bev_sem=0, cam_depth=0.5, cam_depth_range=25.0, bev_depth_range=10.0)
    got = loss(preds, targets, FREE)
    assert set(got) == {'loss_render_cam_depth', 'loss_render_bev_depth'}
    torch.testing.assert_close(got['loss_render_cam_depth'], base['loss_render_cam_depth'] / 10 * 2 * 0.5 * 2)
    torch.testing.assert_close(got['loss_render_bev_depth'], base['loss_render_bev_depth'] / 10 * 2 * 10)
    assert loss.views == ('cam', 'bev') and RenderLoss(cam_sem=0, cam_depth=0).views == ('bev',)


def test_missing_views_are_not_needed(preds, targets):
    got = RenderLoss(bev_sem=0, bev_depth=0)(dict(cam=preds['cam']), dict(cam=targets['cam']), FREE)
    assert list(got) == ['loss_render_cam_sem', 'loss_render_cam_depth']


@pytest.mark.parametrize('kl_input', ['log_softmax', 'log'])
def test_kl_over_the_class_axis(preds, targets, kl_input):
    def log(x):
        return x - np.log(np.exp(x).sum(-1, keepdims=True)) if kl_input == 'log_softmax' else np.log(np.maximum(x, 1e-8))

    def kl(sem, depth, gt_sem, gt_depth):
        return 10 * (np.exp(log(gt_sem)) * (log(gt_sem) - log(sem))).mean()

    got = RenderLoss(kl_loss=True, kl_input=kl_input)(preds, targets, FREE)
    for kind in ('cam', 'bev'):
        want = 10 * 0.5 * by_view(kl, preds[kind], targets[kind])
        np.testing.assert_allclose(float(got[f'loss_render_{kind}_sem']), want, rtol=1e-7)


def test_mask_elems_applies_to_all_terms(preds, targets):
    def masked_sem(sem, depth, gt_sem, gt_depth):
        return np.abs(sem - gt_sem)[gt_sem.argmax(-1) != FREE].mean()

    def masked_depth(sem, depth, gt_sem, gt_depth):
        return np.abs(depth - gt_depth)[(gt_sem.argmax(-1) != FREE) & (gt_depth > 0.1)].mean()

    got = RenderLoss(mask_elems=True)(preds, targets, FREE)
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
    got = RenderLoss()(preds, targets, FREE)
    np.testing.assert_allclose(float(got['loss_render_cam_depth'].detach()), 10 / 50 * np.mean(values), rtol=1e-9)
    got['loss_render_cam_depth'].backward()
    assert float(preds['cam'].depth.grad[0, 1].abs().max()) == 0 and float(preds['cam'].depth.grad[0, 0].abs().max()) > 0

    preds['cam'].depth.grad = None
    compatible = RenderLoss(invalid_views='zero_term')(preds, targets, FREE)
    assert float(compatible['loss_render_cam_depth'].detach()) == 0 and float(compatible['loss_render_bev_depth']) > 0
    compatible['loss_render_cam_depth'].backward()
    assert float(preds['cam'].depth.grad.abs().max()) == 0


def test_no_valid_pixel_at_all_gives_zero_with_a_graph(preds, targets):
    targets['bev'].depth.zero_()
    preds['bev'].depth.requires_grad_()
    loss = RenderLoss()(preds, targets, FREE)['loss_render_bev_depth']
    loss.backward()
    assert float(loss.detach()) == 0 and torch.isfinite(preds['bev'].depth.grad).all()


def test_equal_images_cost_nothing(targets):
    for options in (dict(), dict(kl_loss=True), dict(kl_loss=True, kl_input='log', mask_elems=True)):
        assert all(float(value) == 0 for value in RenderLoss(**options)(targets, targets, FREE).values())


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
        RenderLoss(**options)
