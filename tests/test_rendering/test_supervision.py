"""Every field with every views, renderer, target and term: they train together, or one sentence says why not."""

import itertools
from dataclasses import replace

import pytest
import torch

from projects.occ.structures import Cameras, OccBatch, OccPrediction, Rays, VoxelGrid
from projects.rendering import (
    ClassLogitsField,
    DensityField,
    FreeLogitField,
    ImageTarget,
    KeyFrameCameras,
    LabelTarget,
    MarchRenderer,
    MeasuredRays,
    RayTarget,
    RenderSupervision,
    SampledCameras,
    SplatRenderer,
    SupervisionGroup,
    Term,
)
from projects.rendering.losses import PIXEL_ERRORS, REGULARIZERS, VIEW_ERRORS

FIELDS = {
    'class logits': lambda grid: ClassLogitsField(grid),
    'learned opacity': lambda grid: ClassLogitsField(grid, feat_channels=6),
    'free logit': lambda grid: FreeLogitField(grid, background='free'),
    'density': lambda grid: DensityField(grid),
    'density per metre': lambda grid: DensityField(grid, form='nerf'),
    'density of logits': lambda grid: DensityField(grid, source='logits', features='probabilities'),
}
VIEWS = {
    'sampled': lambda grid: SampledCameras(grid, dict(indices='all'), dict(size=12)),
    'key frame': lambda grid: KeyFrameCameras((14, 20)),
    'rays': lambda grid: MeasuredRays(),
}
RENDERERS = {
    'splat': lambda grid: SplatRenderer(grid),
    'march': lambda grid: MarchRenderer(grid),
    'mip-360': lambda grid: MarchRenderer(grid, form='dvgo', sampling='mip360', radius=1.5, distortion='width'),
}
TARGETS = {
    'labels': lambda grid: LabelTarget(grid),
    'images': lambda grid: ImageTarget(size=(14, 20)),
    'neighbours': lambda grid: ImageTarget(size=(14, 20), labels=False),
    'class maps': lambda grid: ImageTarget(frames=(), size=(14, 20)),
    'rays': lambda grid: RayTarget(grid),
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
    uv = torch.rand(2, 5, 2, generator=generator) * torch.tensor([20.0, 14.0])
    rays = cameras.rays(torch.randint(0, 2, (2, 5), generator=generator), uv)
    depth = 1 + 2 * torch.rand(2, 5, generator=generator)
    classes = torch.tensor([[0, 1, 2, 2, 255], [1, 0, 255, 2, 0]])
    valid = torch.tensor([[True] * 5, [True] * 4 + [False]])
    return OccBatch(
        everywhere,
        labels=labels,
        originals=[list(sample) for sample in images],
        pseudo_labels=[list(sample) for sample in maps],
        rays=replace(rays, depth=depth, labels=classes, valid=valid),
        tokens=['a', 'b'],
    )


@pytest.mark.parametrize('field, views', list(itertools.product(FIELDS, VIEWS)))
def test_parts_train_together_or_say_why_not(grid, batch, logits, feats, field, views):
    grid = VoxelGrid.build(grid)
    trained, refused = 0, 0
    half_transparent = logits + 3 * (torch.arange(4) == grid.free_index).view(1, 4, 1, 1, 1)
    for renderer, target, function, quantity in itertools.product(RENDERERS, TARGETS, FUNCTIONS, QUANTITIES):
        parts = FIELDS[field](grid), VIEWS[views](grid), RENDERERS[renderer](grid), TARGETS[target](grid)
        kind = parts[1].kinds[0]
        terms = dict(loss_x=Term(function, view=kind, quantity=quantity))
        try:
            module = RenderSupervision(*parts, terms)
        except ValueError as error:
            assert len(str(error).split('; ')) <= 2
            assert any(name in str(error) for name in ('loss_x', *(type(part).__name__ for part in parts[:2])))
            refused += 1
            continue
        x, f = half_transparent.clone().requires_grad_(), feats.clone().requires_grad_()
        d = ((12 if field == 'density' else 2) + 2 * feats[:, 0]).requires_grad_()
        loss = module.loss(OccPrediction([x], f, density=d), batch)['loss_x']
        assert loss.dim() == 0 and torch.isfinite(loss), (renderer, target, function, quantity)
        loss.backward()
        grads = [tensor.grad for tensor in (x, f, d) if tensor.grad is not None]
        assert grads and all(torch.isfinite(grad).all() for grad in grads)
        assert sum(float(grad.abs().sum()) for grad in grads) > 0, (renderer, target, function, quantity)
        trained += 1
    assert refused > 0 and trained > 20


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


def test_views_need_a_renderer_that_accepts_them(grid):
    grid = VoxelGrid.build(grid)
    renderer = SplatRenderer(grid)
    renderer.accepts = (Cameras,)
    with pytest.raises(ValueError, match=r'MeasuredRays gives Rays, but SplatRenderer renders .*Cameras'):
        terms = dict(a=dict(function='l1', view='ray'))
        RenderSupervision(ClassLogitsField(grid), MeasuredRays(), renderer, LabelTarget(grid), terms)


def ray_supervision(grid, views=None, renderer=None, weight=1.0, target=None, **terms):
    grid = VoxelGrid.build(grid)
    terms = terms or dict(loss_ray_depth=dict(function='silog', view='ray', quantity='depth'))
    parts = DensityField(grid, 'logits'), views or MeasuredRays(), renderer or MarchRenderer(grid), target or RayTarget(grid)
    return RenderSupervision(*parts, terms, weight)


def test_rays_and_their_parts_that_do_not_fit(grid):
    with pytest.raises(ValueError, match=r"RayTarget has values for \['Rays'\].*SampledCameras gives Cameras"):
        ray_supervision(grid, SampledCameras(VoxelGrid.build(grid)), a=dict(function='silog', quantity='depth'))
    with pytest.raises(ValueError, match="'a'.*'distortion'.*MarchRenderer"):
        ray_supervision(grid, a=dict(function='distortion', view='ray'))
    with pytest.raises(ValueError, match='weight of a supervision'):
        ray_supervision(grid, weight=0.0)
    for options in (dict(depth='x'), dict(depth=None, labels=False)):
        with pytest.raises(ValueError, match='target.depth'):
            RayTarget(VoxelGrid.build(grid), **options)
    with pytest.raises(ValueError, match='min_depth'):
        MeasuredRays(min_depth=3.0, max_depth=2.0)


def test_rays_without_classes_or_depths(grid, batch, logits):
    prediction = OccPrediction([logits])
    sem = dict(function='cross_entropy', view='ray')
    batch.rays = replace(batch.rays, labels=None)
    with pytest.raises(ValueError, match=r"\['a', 'b'\] have no classes.*lidarseg.*target.labels=False"):
        ray_supervision(grid, loss_ray_sem=sem).loss(prediction, batch)
    depths_only = ray_supervision(grid, target=RayTarget(VoxelGrid.build(grid), labels=False)).loss(prediction, batch)
    assert torch.isfinite(depths_only['loss_ray_depth'])
    batch.rays = replace(batch.rays, depth=None)
    with pytest.raises(ValueError, match=r"\['a', 'b'\] have no measured depths.*target.depth=None"):
        ray_supervision(grid).loss(prediction, batch)
    batch.rays = None
    with pytest.raises(ValueError, match=r"MeasuredRays reads 'rays'"):
        ray_supervision(grid).loss(prediction, batch)


def test_rays_that_do_not_count_and_the_weight_of_a_group(grid, batch, logits):
    """Padding, unknown classes and depths beyond the limit change nothing; a factor scales all terms."""
    terms = dict(
        loss_ray_depth=dict(function='silog', view='ray', quantity='depth'),
        loss_ray_sem=dict(function='cross_entropy', view='ray', options=dict(class_counts=[10, 20, 30, 40])),
        loss_ray_entropy=dict(function='last_entropy', view='ray', weight=0.01),
        loss_ray_distortion=dict(function='distortion', view='ray', weight=0.01),
        loss_label=dict(function='depth_l1', view='ray', quantity='depth'),
    )
    renderer = MarchRenderer(VoxelGrid.build(grid), distortion='width')
    module = ray_supervision(grid, renderer=renderer, **terms)
    prediction = OccPrediction([logits])
    losses = module.loss(prediction, batch)
    padded = {}
    for name in ('origin', 'direction', 'depth_per_range', 'valid', 'view', 'uv', 'depth', 'labels'):
        value = getattr(batch.rays, name)
        padded[name] = torch.cat([value, value.flip(0)], 1)
    padded['valid'][:, 5:7] = False
    padded['depth'][:, 7:] = torch.tensor([52.5, 0.0, 1e6])
    batch.rays = Rays(**padded)
    torch.testing.assert_close(module.loss(prediction, batch), losses)
    tenth = ray_supervision(grid, renderer=renderer, weight=0.1, **terms).loss(prediction, batch)
    torch.testing.assert_close(tenth, {name: 0.1 * value for name, value in losses.items()})
    # beyond its limit nothing is left, and the loss is connected to the graph
    none = ray_supervision(grid, MeasuredRays(max_depth=0.5), renderer, **terms)
    x = logits.clone().requires_grad_()
    empty = none.loss(OccPrediction([x]), batch)
    assert all(value == 0 for value in empty.values())
    assert (torch.autograd.grad(sum(empty.values()), x)[0] == 0).all()


def test_rays_that_end_outside_the_grid_are_left_out_on_demand(grid, batch):
    grid = VoxelGrid.build(grid)
    rays = batch.rays
    ends = rays.origin + rays.direction * (rays.depth / rays.depth_per_range)[..., None]
    inside = ((ends >= torch.tensor(grid.lower)) & (ends < torch.tensor(grid.upper))).all(-1)
    assert torch.equal(MeasuredRays()(batch)['ray'].valid, rays.valid)
    assert torch.equal(MeasuredRays(inside=True, grid=grid)(batch)['ray'].valid, rays.valid & inside)
    assert (rays.valid & ~inside).any() and (rays.valid & inside).any()
    with pytest.raises(ValueError, match='views.inside'):
        MeasuredRays(inside=True)


def test_a_batch_with_rays_is_the_mean_of_its_samples(grid, batch, logits):
    """Also where samples have different numbers of rays."""
    terms = dict(
        loss_ray_depth=dict(function='silog', view='ray', quantity='depth'),
        loss_ray_sem=dict(function='cross_entropy', view='ray', options=dict(class_weights=[1, 2, 3, 4])),
        loss_ray_entropy=dict(function='last_entropy', view='ray'),
        loss_ray_distortion=dict(function='distortion', view='ray'),
    )
    module = ray_supervision(grid, renderer=MarchRenderer(VoxelGrid.build(grid), distortion='width'), **terms)
    x = logits.clone().requires_grad_()
    both = module.loss(OccPrediction([x]), batch)
    (grad,) = torch.autograd.grad(sum(both.values()), x)
    singles = []
    for b in range(2):
        y = logits[b : b + 1].clone().requires_grad_()
        singles.append(module.loss(OccPrediction([y]), batch.samples([b])))
        (own,) = torch.autograd.grad(sum(singles[-1].values()), y)
        torch.testing.assert_close(grad[b : b + 1], own / 2, rtol=1e-4, atol=1e-6)
    for name, value in both.items():
        torch.testing.assert_close(value, (singles[0][name] + singles[1][name]) / 2)


def test_a_weight_of_zero_switches_a_term_off(grid, batch, logits):
    terms = dict(
        loss_ray_depth=dict(function='silog', view='ray', quantity='depth'),
        loss_tv=dict(function='total_variation', view='ray', weight=0.0, options=dict(of='density')),
    )
    assert set(ray_supervision(grid, **terms).loss(OccPrediction([logits]), batch)) == {'loss_ray_depth'}
    terms['loss_tv']['weight'] = 1.0
    with pytest.raises(ValueError, match="total_variation of 'density'"):
        ray_supervision(grid, **terms).loss(OccPrediction([logits]), batch)
    terms['loss_tv']['options'] = dict(of='opacity')
    losses = ray_supervision(grid, **terms).loss(OccPrediction([logits]), batch)
    opacity = DensityField(VoxelGrid.build(grid), 'logits')(OccPrediction([logits])).opacity
    steps = [opacity.diff(dim=axis).abs().mean() for axis in (1, 2, 3)]
    torch.testing.assert_close(losses['loss_tv'], sum(steps) / 3)


def test_a_ray_along_the_axis_or_along_itself(grid, batch, logits):
    """Comparing ranges with ranges is comparing depths with depths; RenderOcc compared ranges with depths."""
    grid = VoxelGrid.build(grid)
    values = {}
    for depth, target in (('z', 'z'), ('range', 'range'), ('range', 'z')):
        module = ray_supervision(grid, renderer=MarchRenderer(grid, depth=depth), target=RayTarget(grid, target))
        values[depth, target] = module.loss(OccPrediction([logits]), batch)['loss_ray_depth']
    torch.testing.assert_close(values['z', 'z'], values['range', 'range'], rtol=1e-5, atol=1e-6)
    assert (values['range', 'z'] - values['z', 'z']).abs() > 1e-3


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
