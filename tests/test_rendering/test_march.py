"""Ray marching of fields: walls, empty space, what is hidden, rays from outside, and the splatting renderer beside it."""

import math
from dataclasses import replace

import pytest
import torch

from projects.occ.structures import Cameras, ContractedGrid, OccField, Rays, VoxelGrid
from projects.rendering import MarchRenderer, SplatRenderer
from projects.rendering.march import entry_range, pixel_rays, raw_density, spread_features

GRID = VoxelGrid(
    point_cloud_range=(-8.0, -8.0, -1.6, 8.0, 8.0, 1.6),
    voxel_size=0.4,
    shape=(40, 40, 8),
    frame='ego',
    free_index=3,
    class_names=('wall', 'tree', 'car', 'free'),
)
LOOK_AHEAD = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
VARIANTS = [
    dict(form='nerf'),
    dict(form='dvgo'),
    dict(form='nerf', sampling='mip360', radius=7.0),
    dict(form='dvgo', sampling='mip360', radius=7.0),
    dict(form='dvgo', sampling='mip360', radius=7.0, alpha_min=1e-7, weight_min=1e-7, transmittance_min=1e-3),
]


def cameras(batch=1, size=(32, 14), focal=16.0, back=0.0):
    """Cameras in the middle of the grid, ``back`` metres behind, that look along x."""
    pose = LOOK_AHEAD.clone()
    pose[2, 3] = back
    K = torch.tensor([[focal, 0, size[0] / 2 - 0.3], [0, focal, size[1] / 2 + 0.2], [0, 0, 1]])
    return Cameras(pose.expand(batch, 1, 4, 4), K.expand(batch, 1, 3, 3), torch.tensor(size).expand(batch, 1, 2).contiguous())


def wall(index=32):
    """Labels with a wall across the grid, one voxel thick; its face is ``index`` voxels behind the lower bound."""
    labels = torch.full((1, *GRID.shape), GRID.free_index)
    labels[:, index] = 0
    return labels


def random_field(batch=1, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    opacity = torch.rand(batch, *GRID.shape, generator=generator, dtype=dtype) ** 4
    features = torch.rand(batch, 4, *GRID.shape, generator=generator, dtype=dtype)
    return OccField(GRID, opacity, features, torch.tensor([0.0, 0, 0, 1], dtype=dtype))


@pytest.mark.parametrize('options', VARIANTS)
def test_a_wall_is_where_splatting_sees_it(options):
    """Depth along the axis, at the centre and in the corners, within half a voxel of the wall's face and of each other."""
    field, views = OccField.from_labels(wall(), GRID), cameras()
    place = GRID.lower[0] + 32 * 0.4
    marched = MarchRenderer(GRID, **options)(field, views)
    splatted = SplatRenderer(GRID, settings=dict(jacobian_clamp='offcentre'))(field.one_hot(), views)
    for v, u in ((7, 16), (4, 0), (10, 31), (4, 31), (10, 0)):
        assert marched.alpha[0, 0, v, u] > 0.97 and splatted.alpha[0, 0, v, u] > 0.97
        assert marched.depth[0, 0, v, u] == pytest.approx(place, abs=0.2)
        assert splatted.depth[0, 0, v, u] == pytest.approx(place, abs=0.2)
        if options != dict(form='nerf', sampling='mip360', radius=7.0):  # 0.204 m in one corner
            assert marched.depth[0, 0, v, u] == pytest.approx(splatted.depth[0, 0, v, u].item(), abs=0.2)
        assert marched.features[0, 0, v, u].argmax() == splatted.features[0, 0, v, u].argmax() == 0


def test_range_and_depth_along_the_axis():
    field, views = OccField.from_labels(wall(), GRID), cameras()
    z, along = (MarchRenderer(GRID, depth=name)(field, views).depth for name in ('z', 'range'))
    rays = pixel_rays(views)
    torch.testing.assert_close(along.flatten(1) * rays.depth_per_range, z.flatten(1))
    assert (along - z)[0, 0, 4, 0] > 1.0


@pytest.mark.parametrize('options', VARIANTS)
def test_light_adds_up(options):
    field = random_field(2)
    out = MarchRenderer(GRID, distortion='width', **options)(field, cameras(2))
    torch.testing.assert_close(out.alpha + out.transmittance, torch.ones_like(out.alpha), atol=2e-6, rtol=0)
    assert all(getattr(out, name).isfinite().all() for name in ('features', 'depth', 'alpha', 'distortion'))
    assert out.features.shape == (2, 1, 14, 32, 4) and out.distortion.shape == out.depth.shape == (2, 1, 14, 32)
    # background and features sum up like the light does
    ones = replace(field, features=torch.ones_like(field.features), background=torch.ones(4))
    seen = MarchRenderer(GRID, **options)(ones, cameras(2)).features
    assert (seen <= 1 + 1e-5).all() and (seen[:, :, 7, 16] > 0.98).all()


@pytest.mark.parametrize('options', VARIANTS)
def test_empty_space_shows_the_background(options):
    field = OccField.from_labels(torch.full((1, *GRID.shape), 3), GRID)
    out = MarchRenderer(GRID, **options)(field, cameras())
    assert out.alpha.max() < 1e-3 and out.depth.max() < 1e-2
    torch.testing.assert_close(out.features, torch.tensor([0.0, 0, 0, 1]).expand_as(out.features), atol=1e-3, rtol=0)


def test_hidden_voxels_are_empty_for_prediction_and_label():
    """Of a wall that is not known both renderings see nothing; what is free in both looks the same."""
    labels = wall()
    known = torch.ones_like(labels, dtype=torch.bool)
    known[:, 32, :20] = False
    renderer = MarchRenderer(GRID)
    label = renderer(OccField.from_labels(labels, GRID), cameras(), known=known)
    probabilities = torch.nn.functional.one_hot(labels, 4).movedim(-1, 1).float()
    predicted = OccField(GRID, (labels != 3).float(), probabilities, torch.tensor([0.0, 0, 0, 1]))
    out = renderer(predicted, cameras(), known=known)
    torch.testing.assert_close(out.features, label.features)
    torch.testing.assert_close(out.depth, label.depth)
    assert out.alpha[0, 0, 7, 0] > 0.97 and out.alpha[0, 0, 7, 31] < 1e-3
    kept = renderer(replace(predicted, keep=known), cameras())
    torch.testing.assert_close(kept.features, out.features)


def test_cameras_outside_the_grid():
    """The image of a wall does not depend on how far behind the grid the camera stands."""
    field = OccField.from_labels(wall(), GRID)
    renderer = MarchRenderer(GRID)
    for back in (7.0, 30.0, 500.0):
        out = renderer(field, cameras(back=back, focal=16.0 * (1 + back)))
        assert out.alpha[0, 0, 7, 16] > 0.97
        assert out.depth[0, 0, 7, 16] / out.alpha[0, 0, 7, 16] - back == pytest.approx(GRID.lower[0] + 32 * 0.4, abs=0.2)


def test_features_of_empty_space_are_those_of_the_surface():
    """A wall of one voxel looks like the wall, not like the mean of wall and free space; other voxels keep what they have."""
    labels = wall()
    labels[:, 32, 20:] = 1
    field = OccField.from_labels(labels, GRID).one_hot()
    features = field.features.movedim(1, -1).clone()
    features[labels == 3] = field.background
    spread = spread_features(features, field.opacity)
    assert torch.equal(spread[:, 32], features[:, 32]) and torch.equal(spread[:, :31], features[:, :31])
    torch.testing.assert_close(spread[:, 31, :19], features[:, 32, :19], atol=1e-3, rtol=0)
    out = MarchRenderer(GRID)(field, cameras())
    assert out.features[0, 0, 7, 0, 1] > 0.97 and out.features[0, 0, 7, 31, 0] > 0.97
    mixed = MarchRenderer(GRID, spread=False)(field, cameras())
    assert mixed.features[0, 0, 7, 31, 0] < 0.7


def test_where_rays_enter():
    origin = torch.tensor([[[0.0, 0, 0], [-10, 0, 0], [-10, 0, 0], [0, 20, 0], [-10, -10, 0]]])
    direction = torch.tensor([[[1.0, 0, 0], [1, 0, 0], [-1, 0, 0], [1, 0, 0], [math.sqrt(0.5), math.sqrt(0.5), 0]]])
    found = entry_range(origin, direction, GRID)
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.8, 0, 0, 1.8 * math.sqrt(2)]]))
    assert entry_range(torch.full((1, 1, 3), math.nan), direction[:, :1], GRID).tolist() == [[0.0]]


def test_rays_that_do_not_count_see_nothing_and_change_nothing():
    field = random_field()
    rays = pixel_rays(cameras())
    valid = torch.arange(rays.num_rays)[None] % 3 != 0
    broken = replace(rays, valid=valid, direction=torch.where(valid[..., None], rays.direction, math.nan))
    renderer = MarchRenderer(GRID)
    whole, part = renderer(field, rays), renderer(field, broken)
    torch.testing.assert_close(part.depth[valid], whole.depth[valid], rtol=0, atol=0)
    assert torch.equal(part.valid, valid) and (part.alpha[~valid] == 0).all()
    order = torch.randperm(rays.num_rays, generator=torch.Generator().manual_seed(0))
    shuffled = replace(rays, **{n: getattr(rays, n)[:, order] for n in ('origin', 'direction', 'depth_per_range', 'valid')})
    torch.testing.assert_close(renderer(field, shuffled).features, whole.features[:, order], rtol=0, atol=0)


def test_no_rays_give_a_gradient_of_zeros():
    field = random_field()
    density = torch.zeros(1, *GRID.shape, requires_grad=True)
    empty = Rays(torch.zeros(1, 0, 3), torch.zeros(1, 0, 3), torch.zeros(1, 0), torch.zeros(1, 0, dtype=torch.bool))
    out = MarchRenderer(GRID, form='dvgo')(replace(field, density=density), empty)
    assert out.features.shape == (1, 0, 4)
    assert (torch.autograd.grad(out.depth.sum() + out.features.sum(), density)[0] == 0).all()


def test_a_batch_is_its_samples():
    field, views = random_field(2), cameras(2)
    renderer = MarchRenderer(GRID, distortion='flat')
    both = renderer(field, views)
    for b in range(2):
        one = renderer(field.samples([b]), views.samples([b]))
        for name in ('features', 'depth', 'distortion'):
            torch.testing.assert_close(getattr(both, name)[b], getattr(one, name)[0], rtol=0, atol=0)


def test_mirrored_scene_and_mirrored_rays():
    field = random_field()
    rays = pixel_rays(cameras())
    mirror = torch.tensor([1.0, -1, 1])
    mirrored = replace(field, opacity=field.opacity.flip(2), features=field.features.flip(3))
    turned = replace(rays, origin=rays.origin * mirror, direction=rays.direction * mirror)
    for options in VARIANTS[1:4:2]:
        renderer = MarchRenderer(GRID, **options)
        torch.testing.assert_close(renderer(mirrored, turned).depth, renderer(field, rays).depth, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('options', [dict(form='nerf'), dict(form='dvgo', sampling='mip360', radius=1.4), dict(form='dvgo')])
def test_gradients(options):
    grid = VoxelGrid((-2.0, -2, -1, 2, 2, 1), 1.0, (4, 4, 2), frame='ego', free_index=1, class_names=('wall', 'free'))
    generator = torch.Generator().manual_seed(1)
    density = (3 * torch.rand(1, 4, 4, 2, generator=generator).double() + 11 * (options['form'] == 'dvgo')).requires_grad_()
    features = torch.rand(1, 2, 4, 4, 2, generator=generator).double().requires_grad_()
    direction = torch.nn.functional.normalize(torch.randn(1, 5, 3, generator=generator).double(), dim=-1)
    rays = Rays(0.3 * direction.flip(1), direction, torch.full((1, 5), 0.8).double(), torch.ones(1, 5, dtype=torch.bool))
    renderer = MarchRenderer(grid, distortion='width', **options)

    def render(density, features):
        background = torch.tensor([0.0, 1.0]).double()
        out = renderer(OccField(grid, density * 0, features, background, density=density), rays)
        return out.features, out.depth, out.transmittance, out.distortion

    assert torch.autograd.gradcheck(render, (density, features))


@pytest.mark.parametrize('form, sampling', [('nerf', 'uniform'), ('dvgo', 'uniform')])
def test_density_of_an_opacity(form, sampling):
    """A ray through the middle of a slab, away from its faces, loses what the opacity says per voxel."""
    opacity = torch.full((1, *GRID.shape), 0.3)
    rays = Rays(torch.tensor([[[-7.9, 0.2, 0.2]]]), torch.tensor([[[1.0, 0, 0]]]), torch.ones(1, 1), torch.ones(1, 1).bool())
    field = OccField(GRID, opacity, torch.zeros(1, 4, *GRID.shape), torch.zeros(4))
    out = MarchRenderer(GRID, form=form, sampling=sampling, max_range=4.0)(field, rays)
    assert out.transmittance.item() == pytest.approx(0.7**10, rel=1e-3)
    logits = raw_density(field, 'prob', 0.0)
    torch.testing.assert_close(logits.sigmoid(), opacity)


def test_splatting_takes_the_pixels_of_rays():
    field, views = random_field(2), cameras(2)
    generator = torch.Generator().manual_seed(0)
    uv = torch.rand(2, 50, 2, generator=generator) * torch.tensor([32.0, 14.0])
    view = torch.zeros(2, 50, dtype=torch.long)
    view[:, -1] = 7
    rays = replace(views.rays(view.clamp(max=0), uv), view=view, cameras=views)
    renderer = SplatRenderer(GRID)
    image, out = renderer(field, views), renderer(field, rays)
    column, row = uv.floor().long().unbind(-1)
    for b in range(2):
        for name in ('features', 'depth', 'alpha'):
            wanted = getattr(image, name)[b, 0, row[b], column[b]][:-1]
            torch.testing.assert_close(getattr(out, name)[b, :-1], wanted, rtol=0, atol=0)
    assert out.valid[:, :-1].all() and not out.valid[:, -1].any()
    smaller = SplatRenderer(GRID, ray_reduction=2)(field, rays)
    assert smaller.depth.shape == out.depth.shape and not torch.equal(smaller.depth, out.depth)
    with pytest.raises(ValueError, match='SplatRenderer.*cameras.*MarchRenderer'):
        renderer(field, replace(rays, cameras=None))


def test_measured_rays_meet_the_wall_with_both_renderers():
    field = OccField.from_labels(wall(), GRID)
    views = cameras()
    uv = torch.tensor([[[16.0, 7.0], [0.4, 4.4], [31.5, 4.1], [31.6, 10.5], [0.2, 10.2]]])
    rays = replace(views.rays(torch.zeros(1, 5, dtype=torch.long), uv), cameras=views)
    place = GRID.lower[0] + 32 * 0.4
    for renderer in (SplatRenderer(GRID), MarchRenderer(GRID), MarchRenderer(GRID, sampling='mip360', form='dvgo')):
        torch.testing.assert_close(renderer(field.one_hot(), rays).depth, torch.full((1, 5), place), atol=0.2, rtol=0)


@pytest.mark.parametrize(
    'options, name',
    [
        (dict(form='sdf'), 'form'),
        (dict(sampling='sphere'), 'sampling'),
        (dict(step=0.0), 'step'),
        (dict(step=math.nan), 'step'),
        (dict(max_range=-1.0), 'max_range'),
        (dict(depth='x'), 'depth'),
        (dict(distortion='wide'), 'distortion'),
        (dict(form='prob'), "form='prob'.*contracted"),
        (dict(form='dvgo', sampling='contracted'), 'dvgo'),
        (dict(radius=5.0), 'radius'),
        (dict(z_bound='ratio'), 'z_bound'),
        (dict(sampling='mip360', radius=9.0), 'limit'),
        (dict(alpha_min=2.0), 'alpha_min'),
        (dict(contracted=dict(group=0)), 'group'),
    ],
)
def test_options_that_cannot_be_meant(options, name):
    with pytest.raises(ValueError, match=name):
        MarchRenderer(GRID, **options)


def test_fields_and_views_that_do_not_fit():
    field = random_field()
    with pytest.raises(ValueError, match='1 samples.*views have 2'):
        MarchRenderer(GRID)(field, cameras(2))
    with pytest.raises(ValueError, match="sampling='contracted'.*VoxelGrid"):
        MarchRenderer(GRID, sampling='contracted')(field, cameras())
    lattice = ContractedGrid((-8, -8, -1.6, 8, 8, 1.6), (6, 6, 4))
    volume = torch.zeros(1, 6, 6, 4)
    contracted = OccField(lattice, volume, torch.zeros(1, 4, 6, 6, 4), torch.zeros(4))
    with pytest.raises(ValueError, match="sampling='uniform'.*ContractedGrid"):
        MarchRenderer(GRID)(contracted, cameras())


def test_contracted_fields_march_in_chunks_and_with_labels_of_any_source():
    """Chunks change nothing; a field without density is as opaque as its opacity says."""
    lattice = ContractedGrid((-8, -8, -1.6, 8, 8, 1.6), (12, 12, 6))
    generator = torch.Generator().manual_seed(0)
    volume = torch.rand(1, 12, 12, 6, generator=generator).requires_grad_()
    field = OccField(lattice, volume, torch.rand(1, 4, 12, 12, 6, generator=generator), torch.tensor([0.0, 0, 0, 1]))
    results = []
    for form in ('prob', 'nerf'):
        for chunk in (10**6, 50):
            renderer = MarchRenderer(GRID, form=form, sampling='contracted', contracted=dict(chunk=chunk, jitter=0.0))
            out = renderer(field, cameras())
            results.append((out.depth, torch.autograd.grad(out.depth.sum() + out.features.sum(), volume)[0]))
            assert out.alpha.max() <= 1 + 1e-6 and out.alpha.mean() > 0.9
        torch.testing.assert_close(results[-1], results[-2], rtol=1e-4, atol=1e-4)
