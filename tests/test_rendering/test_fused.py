"""Losses against rendered labels without images: the same numbers and gradients as with them, wherever the terms fit."""

import pytest
import torch

from projects.gaussrender import GaussRender
from projects.occ.structures import Cameras, OccBatch, OccPrediction
from projects.rendering import ClassLogitsField, LabelTarget, RenderSupervision, SampledCameras, SplatRenderer, Term
from projects.rendering import supervision as supervision_module
from projects.rendering.fused import fits_fused

CASES = {
    'published': {},
    'learned opacity': dict(gaussians=dict(feat_channels=6)),
    'own shapes': dict(gaussians=dict(feat_channels=6, overwrite_scales=False)),
    'hard opacity': dict(gaussians=dict(overwrite_opacity=True)),
    'no free voxels': dict(gaussians=dict(mask_elements=True)),
    'all cameras': dict(cameras=dict(indices='all')),
    'kl': dict(loss=dict(kl_loss=True)),
    'kl of logarithms': dict(loss=dict(kl_loss=True, kl_input='log')),
    'occupied pixels': dict(loss=dict(mask_elems=True)),
    'occupied pixels, kl': dict(loss=dict(mask_elems=True, kl_loss=True, kl_input='log')),
    'no pixel is valid': dict(loss=dict(min_depth=1e3)),
    'no pixel is valid, whole term': dict(loss=dict(min_depth=1e3, invalid_views='zero_term')),
    'some views': dict(loss=dict(min_depth=2.5, invalid_views='zero_term'), cameras=dict(indices='all')),
    'sum': dict(loss=dict(batch_reduction='sum', weight=3.0)),
    'classes alone': dict(loss=dict(cam_depth=0, bev_depth=0)),
    'depth alone': dict(loss=dict(cam_sem=0, bev_sem=0)),
    'no view from above': dict(loss=dict(bev_sem=0, bev_depth=0)),
    'footprint of one focal length': dict(renderer=dict(fov_y='x')),
    'other camera model': dict(renderer=dict(settings=dict(jacobian_clamp='offcentre', tile_compat='rect12'))),
}


def run(options, grid, logits, labels, cameras, feats, fused, points=None):
    """Losses, and gradients of logits, features and parameters."""
    torch.manual_seed(0)
    options = {'bev': dict(size=20), **options}
    options['renderer'] = dict(options.get('renderer', {}), fused=fused)
    model = GaussRender(grid, **options)
    leaf = logits.clone().requires_grad_()
    reads = model.gaussians.feat_channels is not None
    features = feats.clone().requires_grad_() if reads else None
    losses = model(leaf, labels, cameras, features, points=points)
    factors = range(1, 1 + len(losses))  # each loss has a gradient of its own
    sum(factor * loss for factor, loss in zip(factors, losses.values())).backward()
    leaves = [leaf, *([features] if reads else []), *model.parameters()]
    return losses, [leaf.grad for leaf in leaves if leaf.grad is not None]


def assert_equal(ours, theirs):
    (losses, gradients), (expected, wanted) = ours, theirs
    assert list(losses) == list(expected) and len(gradients) == len(wanted)
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-5, atol=1e-7)
    for gradient, reference in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-4 * float(reference.abs().max().clamp(min=1e-6)))


@pytest.fixture
def calls(monkeypatch):
    """How many kinds and groups of views were computed without images."""
    made = []
    original = supervision_module.fused_errors

    def counted(*arguments):
        made.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(supervision_module, 'fused_errors', counted)
    return made


@pytest.mark.parametrize('name', CASES)
def test_losses_and_gradients_are_those_of_images(name, grid, logits, labels, cameras, feats, calls):
    options = CASES[name]
    theirs = run(options, grid, logits, labels, cameras, feats, fused=False)
    assert calls == []
    ours = run(options, grid, logits, labels, cameras, feats, fused=True)
    # shapes of their own get a gradient, which the operator does not have
    kinds = 1 if 'above' in name else 2
    assert len(calls) == (0 if name == 'own shapes' else kinds)
    assert_equal(ours, theirs)


def test_cameras_of_different_sizes(grid, logits, labels, cameras, feats, calls):
    sizes = torch.tensor([[[20, 14], [16, 12]]] * 2)
    mixed = Cameras(cameras.ref2cam, cameras.K, sizes)
    options = dict(cameras=dict(indices='all'))
    theirs, ours = (run(options, grid, logits, labels, mixed, feats, fused) for fused in (False, True))
    assert len(calls) == 3  # two sizes and the view from above
    assert_equal(ours, theirs)


def test_labelled_points_and_ignored_voxels(grid, logits, labels, cameras, feats, calls):
    points = [torch.tensor([[0.1, 0.2, 0.3, 1.0], [1.1, -0.6, 0.1, 2.0]]), torch.tensor([[-1.0, 0.0, 0.0, 0.0]])]
    labels = labels.clone()
    labels[:, 2:4] = 255
    theirs, ours = (run({}, grid, logits, labels, cameras, feats, fused, points) for fused in (False, True))
    assert calls
    assert_equal(ours, theirs)


def test_nothing_to_see(grid, logits, labels, cameras, feats):
    nothing = torch.full_like(labels, 255)
    theirs, ours = (run({}, grid, logits, nothing, cameras, feats, fused) for fused in (False, True))
    assert_equal(ours, theirs)


def test_a_batch_is_the_mean_of_its_samples(grid, logits, labels, cameras, feats):
    options = dict(cameras=dict(indices='all'))
    both, _ = run(options, grid, logits, labels, cameras, feats, fused=True)
    single = [run(options, grid, logits[[b]], labels[[b]], cameras.samples([b]), feats[[b]], fused=True)[0] for b in (0, 1)]
    for name, loss in both.items():
        torch.testing.assert_close(loss, (single[0][name] + single[1][name]) / 2, rtol=1e-6, atol=1e-7)


def test_what_does_not_fit_is_rendered(grid, logits, labels, cameras, calls):
    field, target = ClassLogitsField(grid), LabelTarget(grid)
    volume, view = field(OccPrediction([logits])), cameras
    depth, classes = Term('depth_l1', quantity='depth'), Term('l1')
    assert fits_fused(SplatRenderer(grid), target, [classes, depth], volume, view)
    assert not fits_fused(SplatRenderer(grid, fused=False), target, [classes], volume, view)
    assert not fits_fused(SplatRenderer(grid, backend='reference'), target, [classes], volume, view)
    assert not fits_fused(SplatRenderer(grid), target, [classes, Term('kl')], volume, view)
    assert not fits_fused(SplatRenderer(grid), target, [Term('depth_l1', quantity='alpha')], volume, view)
    assert not fits_fused(SplatRenderer(grid), target, [Term(lambda a, b: (a - b).square().mean(-1))], volume, view)
    doubled = ClassLogitsField(grid)(OccPrediction([logits.double()]))
    assert not fits_fused(SplatRenderer(grid), target, [classes], doubled, view)
    moving = Cameras(cameras.ref2cam.clone().requires_grad_(), cameras.K, cameras.sizes)
    assert not fits_fused(SplatRenderer(grid), target, [classes], volume, moving)
    parts = (field, SampledCameras(grid, dict(indices='all'), False), SplatRenderer(grid), target)
    losses = RenderSupervision(*parts, dict(loss_a=classes, loss_b=Term('kl'))).loss(
        OccPrediction([logits.clone().requires_grad_()]), OccBatch(cameras, labels=labels)
    )
    assert calls == [] and all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize('use_reentrant', [True, False])
def test_recomputed_in_the_backward_pass(use_reentrant, grid, logits, labels, cameras, calls):
    model = GaussRender(grid, bev=dict(size=20), cameras=dict(indices='all'))
    results = []
    for recompute in (False, True):
        leaf = logits.clone().requires_grad_()

        def total(values):
            return sum(model(values, labels, cameras).values())

        if recompute:
            value = torch.utils.checkpoint.checkpoint(total, leaf, use_reentrant=use_reentrant)
        else:
            value = total(leaf)
        value.backward()
        results.append(leaf.grad)
    assert calls
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_autocast_changes_nothing(grid, logits, labels, cameras, feats):
    plain = run({}, grid, logits, labels, cameras, feats, fused=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mixed = run({}, grid, logits, labels, cameras, feats, fused=True)
    for name, loss in plain[0].items():
        assert torch.equal(loss, mixed[0][name])
