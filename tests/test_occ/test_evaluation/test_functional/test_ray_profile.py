"""Ray profiles against numbers worked out by hand, and against rays that are followed step by step in Python."""

import math

import numpy as np
import pytest
import torch

from projects.occ.evaluation.functional import cast_rays, first_surfaces, floaters_and_holes, ray_profile
from projects.occ.structures import VoxelGrid

V = 0.5
FREE = 2


def box(shape, voxel_size=V):
    size = np.broadcast_to(voxel_size, 3)
    return VoxelGrid(
        (0, 0, 0, *(n * s for n, s in zip(shape, size))), tuple(size), shape, 'ego', FREE, class_names=('wall', 'floor', 'free')
    )


CORRIDOR = box((40, 3, 3))
AHEAD = dict(origins=np.array([[0.01, 0.7, 0.7]]), directions=np.array([[2.0, 0.0, 0.0]]))


def corridor(*walls, thickness=1):
    labels = np.full(CORRIDOR.shape, FREE, dtype=np.uint8)
    for x in walls:
        labels[x : x + thickness] = 0
    return labels


def profile(prediction, reference=10 * V - 0.01):
    found = ray_profile(prediction, CORRIDOR, **AHEAD, reference=[reference])
    return {name: values[0] for name, values in found.items()}


def test_a_perfect_label():
    labels = corridor(10, 20)
    reference, classes = first_surfaces(labels, CORRIDOR, **AHEAD)
    assert reference == pytest.approx([10 * V - 0.01], abs=1e-12) and classes.tolist() == [0]
    assert profile(labels) == pytest.approx(dict(front=0, hit=1, behind=0, surfaces=2, thickness=V))


def test_walls_that_are_thicker_farther_or_copied():
    assert profile(corridor(10, thickness=2)) == pytest.approx(dict(front=0, hit=1, behind=0, surfaces=1, thickness=2 * V))
    # one voxel is within the tolerance; two are not, where the range is not rounded away
    assert profile(corridor(11))['hit'] == 1
    assert profile(corridor(12)) == pytest.approx(dict(front=0, hit=0, behind=1, surfaces=1, thickness=V))
    assert profile(corridor(10, 20)) == pytest.approx(dict(front=0, hit=1, behind=0, surfaces=2, thickness=V))
    assert profile(corridor(7)) == pytest.approx(dict(front=1, hit=0, behind=0, surfaces=1, thickness=V))
    nothing = profile(corridor())
    assert nothing.pop('thickness') != nothing['behind'] == 1 and (nothing['surfaces'], nothing['front']) == (0, 0)


def test_opaque_walls_as_opacities():
    wall = (corridor(10) == 0).astype(np.float32)
    found = profile(wall)
    spread = found.pop('spread')
    assert found == pytest.approx(dict(front=0, hit=1, behind=0, miss=0, surfaces=1))
    # all light stops at the first sample
    assert spread == pytest.approx(0, abs=1e-7)
    half = profile(torch.from_numpy(wall) * 0.75)
    # two samples with a step opacity of one half
    assert half['hit'] == pytest.approx(0.75) and half['miss'] == pytest.approx(0.25) and half['surfaces'] == 1
    share = np.array([0.5, 0.25]) / 0.75
    assert half['spread'] == pytest.approx(V / 2 * math.sqrt(share[0] * share[1]), abs=1e-12)
    assert profile(wall * 0.7)['surfaces'] == 0
    # 0.04 of the light is too little to say where it stops
    assert math.isnan(profile(wall * 0.04)['spread'])
    ghost = profile(wall * 0.75 + (corridor(20) == 0))
    assert ghost['surfaces'] == 2 and ghost['behind'] == pytest.approx(0.25) and ghost['miss'] == pytest.approx(0)


@pytest.mark.parametrize('density', [0.5, 1.0, 2.0])
def test_the_spread_of_even_fog_is_one_over_its_density(density):
    fog = box((2000, 1, 1), 0.1)
    opacity = np.full(fog.shape, 1 - math.exp(-density * 0.1))
    found = ray_profile(opacity, fog, [[0, 0.05, 0.05]], [[1, 0, 0]], [1.0])
    assert found['spread'] == pytest.approx([1 / density], rel=1e-3)
    assert found['front'][0] == pytest.approx(1 - math.exp(-0.9 * density), abs=0.03)
    assert sum(found[name] for name in ('front', 'hit', 'behind', 'miss')) == pytest.approx([1])
    assert found['surfaces'] == [0]


def test_gaps_shorter_than_a_voxel_join_surfaces():
    # of voxels of 0.5 x 0.5 x 1, v is 1 and samples are half a metre apart: one voxel along x is one sample
    flat = box((40, 3, 3), (0.5, 0.5, 1.0))
    opacity = np.zeros(flat.shape)
    opacity[[10, 12, 15]] = 1
    found = ray_profile(opacity, flat, [[0, 0.7, 1.5]], [[1, 0, 0]], [5.0])
    assert found['surfaces'] == [2]


def walked(occupied, grid, origin, direction, unknown):
    """The runs of a ray by looking at 20000 points along it."""
    direction = direction / np.linalg.norm(direction)
    t = np.linspace(0, 40, 200001)[1:]
    index, inside = grid.point_to_index(origin + t[:, None] * direction)
    index[~inside] = 0
    hit = inside & occupied[tuple(index.T)]
    hidden = inside & unknown[tuple(index.T)]
    edges = np.diff(np.concatenate([[0], hit.astype(int), [0]]))
    begins, ends = t[np.flatnonzero(edges == 1)], t[np.minimum(np.flatnonzero(edges == -1), len(t) - 1)]
    blocked = hidden.any() and (not hit.any() or t[hidden.argmax()] < t[hit.argmax()])
    return begins, ends, blocked


def test_random_rays_agree_with_small_steps():
    grid = box((12, 10, 8), (0.5, 0.4, 0.6))
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 2, 2, 2, 2, 2, 255], grid.shape).astype(np.uint8)
    origins = rng.uniform(-2, 8, (150, 3))
    directions = rng.normal(size=(150, 3))
    directions[:6] = np.eye(3)[[0, 1, 2, 0, 1, 2]] * np.array([1, 1, 1, -1, -1, -1])[:, None]
    reference, classes = first_surfaces(labels, grid, origins, directions)
    found = ray_profile(np.where(labels == 255, FREE, labels), grid, origins, directions, np.full(150, 3.0))
    seen = 0
    for i, (origin, direction) in enumerate(zip(origins, directions)):
        begins, ends, blocked = walked(labels < 2, grid, origin, direction, labels == 255)
        # steps miss what a ray touches for less than their length
        if len(begins) == found['surfaces'][i]:
            seen += 1
            if len(begins):
                assert found['thickness'][i] == pytest.approx(ends[0] - begins[0], abs=1e-3)
                assert found['behind'][i] == (begins[0] > 3.6) and found['front'][i] == (ends[0] < 2.4)
            known = len(begins) > 0 and not blocked and begins[0] > 1e-3
            assert np.isfinite(reference[i]) == known
            if known:
                assert reference[i] == pytest.approx(begins[0], abs=1e-3)
                entered = origin + (begins[0] + 1e-6) * direction / np.linalg.norm(direction)
                assert classes[i] == labels[tuple(grid.point_to_index(entered)[0])]
    assert seen > 140 and np.isfinite(reference).sum() > 10


def test_cells_are_those_of_ray_iou():
    grid = box((16, 16, 16), 1.0)
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 1] + [2] * 30, grid.shape).astype(np.uint8)
    origins, ends = rng.uniform(1, 15, (2, 500, 3)).astype(np.float32)
    labels[tuple(origins.astype(int).T)] = FREE
    _, classes, cells = cast_rays(labels, origins, ends, FREE)
    reference, found = first_surfaces(labels, grid, origins, ends.astype(float) - origins)
    hit = classes != FREE
    assert 50 < hit.sum() < 500 and (np.isfinite(reference) == hit).all() and (found[hit] == classes[hit]).all()
    directions = ends.astype(float) - origins
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    points = origins + (reference[:, None] + 1e-9) * directions
    assert (grid.point_to_index(points[hit])[0] == cells[hit]).mean() > 0.99


def test_floaters_and_holes():
    gt = np.array([0, 0, 2, 2, 255, 2, 1])[:, None, None]
    pred = np.array([0, 2, 0, 2, 0, 1, 0])[:, None, None]
    grid = box((7, 1, 1))
    assert floaters_and_holes(pred, gt, grid).tolist() == [2, 4, 1, 3]
    seen = np.array([1, 1, 1, 0, 1, 0, 1])[:, None, None]
    assert floaters_and_holes(pred, gt, grid, seen).tolist() == [1, 3, 1, 3]


def test_inputs_that_do_not_fit_are_named():
    rays = dict(AHEAD, reference=[1.0])
    for change, word in (
        (dict(reference=[0.0]), 'reference'),
        (dict(reference=[1.0, 2.0]), 'reference'),
        (dict(directions=np.zeros((1, 3))), 'directions'),
        (dict(origins=np.full((1, 3), np.nan)), 'origins'),
    ):
        with pytest.raises(ValueError, match=word):
            ray_profile(corridor(10), CORRIDOR, **dict(rays, **change))
    with pytest.raises(ValueError, match='opacities'):
        ray_profile(np.full(CORRIDOR.shape, 1.5), CORRIDOR, **rays)
    with pytest.raises(ValueError, match='shape'):
        ray_profile(np.zeros((2, 2, 2)), CORRIDOR, **rays)
    with pytest.raises(ValueError, match='class id 7'):
        ray_profile(np.full(CORRIDOR.shape, 7), CORRIDOR, **rays)
    assert all(
        len(values) == 0 for values in ray_profile(corridor(1), CORRIDOR, np.zeros((0, 3)), np.zeros((0, 3)), []).values()
    )
