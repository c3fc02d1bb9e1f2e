"""Ray queries: where points lie, what is looked up, the loss by hand, gradients, what does not count, and refusals."""

import math

import pytest
import torch

from projects.occ.structures import OccBatch, OccField, OccPrediction, Rays, VoxelGrid
from projects.rendering import DensityField, MeasuredRays, RayQueries, RayQueryTarget, RenderSupervision, SampledCameras
from projects.rendering.ray_queries import point_cross_entropy, trilinear

GRID = VoxelGrid(
    point_cloud_range=(-8.0, -8.0, -1.6, 8.0, 8.0, 1.6),
    voxel_size=0.4,
    shape=(40, 40, 8),
    frame='ego',
    free_index=3,
    class_names=('wall', 'tree', 'car', 'free'),
)


def rays(depth, origin=(0.0, 0.0, 0.2), direction=(1.0, 0.0, 0.0), labels=None, dtype=torch.float64):
    """Rays from one point in one direction, measured at ``depth``."""
    depth = torch.tensor([depth], dtype=dtype)
    lead = depth.shape
    direction = torch.tensor(direction, dtype=dtype)
    return Rays(
        origin=torch.tensor(origin, dtype=dtype).expand(*lead, 3),
        direction=(direction / direction.norm()).expand(*lead, 3),
        depth_per_range=torch.full(lead, 0.8, dtype=dtype),
        valid=torch.ones(lead, dtype=torch.bool),
        depth=depth,
        labels=torch.zeros(lead, dtype=torch.long) if labels is None else torch.tensor([labels]),
    )


def joined(parts, dim):
    """Rays of several samples (0) or more rays of one (1)."""
    names = ('origin', 'direction', 'depth_per_range', 'valid', 'depth', 'labels')
    return Rays(**{name: torch.cat([getattr(part, name) for part in parts], dim) for name in names})


def field(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    opacity = torch.rand(1, *GRID.shape, generator=generator, dtype=dtype)
    features = torch.randn(1, 4, *GRID.shape, generator=generator, dtype=dtype)
    return OccField(GRID, opacity, features, torch.zeros(4, dtype=dtype))


def test_points_lie_in_their_strata_in_front_of_the_surface():
    part = RayQueries(GRID, near=0.5)
    t, counts = part.points(rays([4.0] * 200))
    surface = 4.0 / 0.8
    assert t.shape == (1, 200, 9) and counts.all()
    assert torch.allclose(t[..., -1], torch.tensor(surface + 0.2, dtype=t.dtype))
    edges = 0.5 + (surface - 0.4 - 0.5) * torch.arange(9, dtype=t.dtype) / 8
    assert (t[..., :-1] >= edges[:-1]).all() and (t[..., :-1] <= edges[1:]).all()
    # uniform within each of them
    assert torch.allclose(t[..., :-1].mean((0, 1)), (edges[1:] + edges[:-1]) / 2, atol=0.05)


def test_the_hit_point_lies_inside_the_voxel_of_the_surface():
    # the face of a voxel is measured at right angles
    t, _ = RayQueries(GRID).points(rays([4.0 * 0.8]))
    index, inside = GRID.point_to_index([[float(t[0, 0, -1]), 0.0, 0.2]])
    assert inside.all() and index[0].tolist() == [30, 20, 4]


def test_what_lies_outside_the_grid_is_not_asked():
    part = RayQueries(GRID)
    # a surface behind the border: the way to it inside the grid is free
    t, counts = part.points(rays([20.0]))
    assert counts[..., :-1].all() and not counts[..., -1].any() and float(t[..., :-1].max()) < 8
    # from outside: points begin where the ray enters
    t, counts = part.points(rays([12.0], origin=(-12.0, 0.0, 0.2)))
    assert counts.all() and float(t[..., 0].min()) > 4
    # a ray that never enters, one that is not measured, one that is too short for free points
    assert not part.points(rays([5.0], origin=(0.0, 20.0, 0.2)))[1].any()
    assert not part.points(rays([0.0]))[1].any()
    assert part.points(rays([0.1]))[1].tolist() == [[[False] * 8 + [True]]]
    # sky, if asked for
    t, counts = RayQueries(GRID, open_rays=True).points(rays([0.0]))
    assert counts[..., :-1].all() and not counts[..., -1].any() and float(t.max()) < 8


def test_look_up_between_centres():
    part = field()
    centers = GRID.centers(dtype=torch.float64)
    found = trilinear(part.features, centers[3:6, 7, 2].view(1, 3, 1, 3), GRID)[0, :, 0]
    torch.testing.assert_close(found, part.features[0, :, 3:6, 7, 2].T)
    middle = (centers[3, 7, 2] + centers[4, 7, 2]) / 2
    found = trilinear(part.features, middle.view(1, 1, 1, 3), GRID)[0, 0, 0]
    torch.testing.assert_close(found, part.features[0, :, 3:5, 7, 2].mean(1))


def test_the_loss_by_hand():
    opacity = torch.tensor([[[0.1, 0.3, 0.9], [0.2, torch.nan, torch.nan], [torch.nan, torch.nan, torch.nan]]])
    value, valid = point_cross_entropy(opacity, torch.zeros(1, 3, 1), None, 1)
    first = -(math.log(0.9) + math.log(0.7)) / 2 - math.log(0.9)
    assert valid.all() and value.item() == pytest.approx((first - math.log(0.8) / 2) / 2, rel=1e-6)
    nothing, valid = point_cross_entropy(opacity[:, 2:], torch.zeros(1, 1, 1), None, 1)
    assert nothing.item() == 0 and not valid.any()
    certain, _ = point_cross_entropy(torch.tensor([[[1.0, 0.0]]]), torch.zeros(1, 1, 1), None, 1)
    assert certain.isfinite().all() and certain.item() > 20


def test_gradients_reach_what_is_looked_up_and_nothing_else():
    part, measured = RayQueries(GRID, free_points=2), rays([4.0, 20.0, 0.0])
    start = field()
    torch.manual_seed(0)
    t, asked = part.points(measured)

    def lookup(opacity, features):
        torch.manual_seed(0)
        found = part(OccField(GRID, opacity, features, start.background), measured)
        kept = found.opacity[asked]
        return kept, found.features[found.valid]

    small = OccField(GRID, start.opacity.clone().requires_grad_(), start.features.clone().requires_grad_(), start.background)
    sum(value.sum() for value in lookup(small.opacity, small.features)).backward()
    touched = small.opacity.grad != 0
    assert touched.sum() <= 8 * asked.sum() and touched[:, :, 18:22].sum() == touched.sum()
    assert small.features.grad.abs().sum() > 0
    # finite differences at the voxels that matter
    index = touched.nonzero()[0]
    step = torch.zeros_like(start.opacity)
    step[tuple(index)] = 1e-6
    change = sum(v.sum() for v in lookup(start.opacity + step, start.features)) - sum(
        v.sum() for v in lookup(start.opacity - step, start.features)
    )
    assert float(change) / 2e-6 == pytest.approx(float(small.opacity.grad[tuple(index)]), rel=1e-6)


def supervision(**options):
    return RenderSupervision(
        field=DensityField(GRID, source='logits', features='logits'),
        views=MeasuredRays(),
        renderer=RayQueries(GRID, **options),
        target=RayQueryTarget(GRID),
        terms=dict(
            loss_ray_points=dict(function='point_cross_entropy', view='ray', quantity='opacity'),
            loss_ray_sem=dict(function='cross_entropy', view='ray', quantity='features'),
        ),
    )


def test_training_a_field_digs_free_space_and_finds_the_surface():
    torch.manual_seed(0)
    logits = torch.zeros(1, 4, *GRID.shape, requires_grad=True)
    ways = [(1.0, y / 20, 0.0) for y in range(-4, 5)]
    parts = [rays([3.2], direction=way, labels=[1], dtype=torch.float32) for way in ways]
    measured = joined(parts, 1)
    batch = OccBatch(cameras=None, rays=measured, tokens=['a'])
    model, optimizer = supervision(), torch.optim.Adam([logits], lr=0.2)
    for _ in range(60):
        losses = model.loss(OccPrediction([logits]), batch)
        assert set(losses) == {'loss_ray_points', 'loss_ray_sem'}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    labels = logits.argmax(1)[0]
    way = labels[20:, 20, 4]
    # free up to four metres ahead, then a tree, and nothing is said of what lies behind it
    assert (way[1:9] == 3).all() and way[10] == 1 and (logits[0, :, 35:] == 0).all()


def test_losses_without_any_ray_are_zero_and_connected():
    logits = torch.zeros(1, 4, *GRID.shape, requires_grad=True)
    batch = OccBatch(cameras=None, rays=rays([60.0], dtype=torch.float32), tokens=['a'])
    losses = supervision().loss(OccPrediction([logits]), batch)
    assert all(value.item() == 0 for value in losses.values())
    sum(losses.values()).backward()
    assert float(logits.grad.abs().sum()) == 0


def test_a_batch_of_two_is_two_singles():
    torch.manual_seed(3)
    logits = torch.randn(2, 4, *GRID.shape)
    two = [rays([3.0, 4.0], dtype=torch.float32), rays([5.0, 20.0], direction=(0.0, 1.0, 0.0), dtype=torch.float32)]
    both = joined(two, 0)
    model = supervision(free_points=4000)
    whole = model.loss(OccPrediction([logits]), OccBatch(cameras=None, rays=both, tokens=['a', 'b']))
    single = [model.loss(OccPrediction([logits[i : i + 1]]), OccBatch(cameras=None, rays=two[i], tokens=['a'])) for i in (0, 1)]
    for name, value in whole.items():
        # the draws differ, and many points make that small
        assert float(value) == pytest.approx(float(sum(s[name] for s in single)) / 2, rel=5e-3)


def test_parts_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match='SampledCameras gives Cameras, but RayQueries'):
        RenderSupervision(
            DensityField(GRID, source='logits'),
            SampledCameras(GRID),
            RayQueries(GRID),
            RayQueryTarget(GRID),
            dict(a=dict(function='point_cross_entropy', quantity='opacity')),
        )
    with pytest.raises(ValueError, match='depth'):
        RenderSupervision(
            DensityField(GRID, source='logits'),
            MeasuredRays(),
            RayQueries(GRID),
            RayQueryTarget(GRID),
            dict(a=dict(function='silog', view='ray', quantity='depth')),
        )
    with pytest.raises(ValueError, match='free_points'):
        RayQueries(GRID, free_points=0)
    no_depth = rays([3.0])
    object.__setattr__(no_depth, 'depth', None)
    with pytest.raises(ValueError, match='depths'):
        RayQueries(GRID)(field(), no_depth)
    other = VoxelGrid((-8, -8, -1.6, 8, 8, 1.6), 0.8, (20, 20, 4), 'ego', 3, class_names=GRID.class_names)
    with pytest.raises(ValueError, match='shape'):
        RayQueries(other)(field(), rays([3.0]))
