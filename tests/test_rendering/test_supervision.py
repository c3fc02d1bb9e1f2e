"""Every field with every views, renderer, target and term: they train together, or one sentence says why not."""

import itertools

import pytest
import torch

from projects.occ.structures import Cameras, OccBatch, OccPrediction, Rays, VoxelGrid
from projects.rendering import (
    ClassLogitsField,
    FreeLogitField,
    ImageTarget,
    KeyFrameCameras,
    LabelTarget,
    MeasuredRays,
    RenderSupervision,
    SampledCameras,
    SplatRenderer,
    SupervisionGroup,
    Term,
)
from projects.rendering import image_terms as _image_terms  # noqa: F401  (names its terms)
from projects.rendering.losses import PIXEL_ERRORS, REGULARIZERS, VIEW_ERRORS

FIELDS = {
    'class logits': lambda grid: ClassLogitsField(grid),
    'learned opacity': lambda grid: ClassLogitsField(grid, feat_channels=6),
    'free logit': lambda grid: FreeLogitField(grid, background='free'),
}
VIEWS = {
    'sampled': lambda grid: SampledCameras(grid, dict(indices='all'), dict(size=12)),
    'key frame': lambda grid: KeyFrameCameras((14, 20)),
    'rays': lambda grid: MeasuredRays(),
}
RENDERERS = {'splat': lambda grid: SplatRenderer(grid)}
TARGETS = {
    'labels': lambda grid: LabelTarget(grid),
    'images': lambda grid: ImageTarget(size=(14, 20)),
    'neighbours': lambda grid: ImageTarget(size=(14, 20), labels=False),
    'class maps': lambda grid: ImageTarget(frames=(), size=(14, 20)),
}
FUNCTIONS = (*PIXEL_ERRORS, *VIEW_ERRORS, *REGULARIZERS)
QUANTITIES = ('features', 'depth', 'alpha', 'colour')


@pytest.fixture
def batch(cameras, labels):
    """Two samples with two cameras in three frames, their images, class maps, labels and rays."""
    frames = torch.tensor([0, 0, -1, -1, 1, 1])
    step = torch.zeros(1, 6, 4, 4)
    step[0, :, 2, 3] = 0.1 * frames
    everywhere = Cameras(
        cameras.ref2cam.repeat(1, 3, 1, 1) + step, cameras.K.repeat(1, 3, 1, 1), cameras.sizes.repeat(1, 3, 1), frames
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 6, 3, 14, 20), generator=generator, dtype=torch.uint8)
    maps = torch.randint(-1, 4, (2, 2, 14, 20), generator=generator, dtype=torch.int16)
    direction = torch.nn.functional.normalize(torch.randn(2, 5, 3, generator=generator), dim=-1)
    return OccBatch(
        everywhere,
        labels=labels,
        originals=[list(sample) for sample in images],
        pseudo_labels=[list(sample) for sample in maps],
        rays=Rays(torch.zeros(2, 5, 3), direction, torch.ones(2, 5), torch.ones(2, 5, dtype=torch.bool)),
        tokens=['a', 'b'],
    )


@pytest.mark.parametrize('field, views', list(itertools.product(FIELDS, VIEWS)))
def test_parts_train_together_or_say_why_not(grid, batch, logits, feats, field, views):
    grid = VoxelGrid.build(grid)
    trained, refused = 0, 0
    for renderer, target, function, quantity in itertools.product(RENDERERS, TARGETS, FUNCTIONS, QUANTITIES):
        parts = FIELDS[field](grid), VIEWS[views](grid), RENDERERS[renderer](grid), TARGETS[target](grid)
        kind = parts[1].kinds[0]
        terms = dict(loss_x=Term(function, view=kind, quantity=quantity))
        try:
            module = RenderSupervision(*parts, terms)
        except ValueError as error:
            assert len(str(error).split('; ')) <= 2 and ('loss_x' in str(error) or type(parts[1]).__name__ in str(error))
            refused += 1
            continue
        x, f = logits.clone().requires_grad_(), feats.clone().requires_grad_()
        loss = module.loss(OccPrediction([x], f), batch)['loss_x']
        assert loss.dim() == 0 and torch.isfinite(loss), (renderer, target, function, quantity)
        loss.backward()
        grads = [tensor.grad for tensor in (x, f) if tensor.grad is not None]
        assert grads and all(torch.isfinite(grad).all() for grad in grads)
        assert sum(float(grad.abs().sum()) for grad in grads) > 0, (renderer, target, function, quantity)
        trained += 1
    assert refused > 0 and (trained > 10 or views == 'rays')


def build(grid, terms, views=None):
    grid = VoxelGrid.build(grid)
    views = VIEWS['sampled'](grid) if views is None else views
    return RenderSupervision(ClassLogitsField(grid), views, SplatRenderer(grid), LabelTarget(grid), terms)


@pytest.mark.parametrize(
    'terms, name',
    [
        ({}, 'terms'),
        (dict(a=dict(function='l1', weight=0)), 'terms'),
        (dict(a=dict(function='l1', view='above')), "'a'.*'above'.*SampledCameras"),
        (dict(a=dict(function='l1', quantity='colour')), "'a'.*'colour'.*LabelTarget"),
        (dict(a=dict(function='l1', quantity='depth')), "'a'.*'l1'.*'depth'"),
        (dict(a=dict(function='cross_entropy')), "'a'.*'cross_entropy'.*class ids.*LabelTarget gives image"),
    ],
)
def test_misfits_are_refused_when_the_model_is_built(grid, terms, name):
    with pytest.raises(ValueError, match=name):
        build(grid, terms)


def test_rays_need_a_renderer_of_rays(grid):
    with pytest.raises(ValueError, match=r'MeasuredRays gives Rays, but SplatRenderer renders .*Cameras'):
        build(grid, dict(a=dict(function='l1', view='ray')), MeasuredRays())


def test_images_belong_to_the_real_cameras(grid):
    grid = VoxelGrid.build(grid)
    moved = SampledCameras(grid, dict(type='ElevatedCameras', indices='all'), False)
    for views in (moved, SampledCameras(grid, dict(num_cameras=2), False)):
        with pytest.raises(ValueError, match='ImageTarget.*SampledCameras'):
            terms = dict(loss_x=dict(function='cross_entropy'))
            RenderSupervision(ClassLogitsField(grid), views, SplatRenderer(grid), ImageTarget(size=(14, 20)), terms)


def test_what_a_part_reads_must_be_there(grid, batch, logits):
    module = build(grid, dict(a=dict(function='l1')))
    batch.labels = None
    with pytest.raises(ValueError, match=r"LabelTarget reads 'labels'.*\['a', 'b'\]"):
        module.loss(OccPrediction([logits]), batch)


def test_a_group_adds_the_terms_of_all(grid, batch, logits):
    one, two = (
        build(grid, dict(loss_a=dict(function='l1'))),
        build(grid, dict(loss_b=dict(function='depth_l1', quantity='depth'))),
    )
    group = SupervisionGroup(first=one, second=two)
    losses = group.loss(OccPrediction([logits]), batch)
    torch.testing.assert_close(losses, {**one.loss(OccPrediction([logits]), batch), **two.loss(OccPrediction([logits]), batch)})
    assert group.field is one.field and 'first.views.sampler._extra_state' in group.state_dict()
    with pytest.raises(ValueError, match="'loss_a'.*'again'"):
        SupervisionGroup(first=one, again=one).loss(OccPrediction([logits]), batch)
    with pytest.raises(ValueError, match='at least one'):
        SupervisionGroup()


def test_gaussrender_is_a_choice_of_parts(grid, batch, logits, labels, cameras):
    """The same parts put together by hand give the same losses."""
    from projects.gaussrender import GaussRender
    from projects.gaussrender.loss_terms import loss_terms

    method = GaussRender(grid, cameras=dict(indices='all'), bev=dict(size=12))
    by_hand = build(grid, loss_terms())
    torch.testing.assert_close(by_hand.loss(OccPrediction([logits]), batch), method(logits, labels, cameras), rtol=0, atol=0)
