"""The ray casters against small steps through the same voxels."""

import numpy as np
import pytest

from projects.streets.ray_cast import ObjectArrays, cast_rays
from projects.streets.world import _empty_distance, surface_points

LOWER, VOXEL, T_MAX = np.array([-3.0, 1.0, -0.5]), 0.25, 20.0


def no_objects() -> ObjectArrays:
    return ObjectArrays(
        np.zeros((0, 3)),
        np.zeros((0, 2)),
        np.zeros((0, 3)),
        np.zeros(0),
        np.zeros(0),
        np.zeros((0, 3), np.int64),
        np.zeros(0, np.int64),
        np.zeros(0, np.uint8),
    )


def cast(volume, objects, origins, directions):
    count = len(directions)
    t, material = np.empty(count, np.float32), np.empty(count, np.uint8)
    obj, normal = np.empty(count, np.int32), np.zeros((count, 3), np.float32)
    cast_rays(
        volume.reshape(-1),
        np.array(volume.shape, np.int64),
        _empty_distance(volume),
        LOWER,
        VOXEL,
        objects,
        np.arange(len(objects.voxel), dtype=np.int64),
        origins,
        directions,
        T_MAX,
        t,
        material,
        obj,
        normal,
    )
    return t, material, obj, normal


def march(inside, origin, direction, step=0.002):
    """First t at which ``inside(points)`` is not 0, and its value."""
    t = np.arange(0, T_MAX, step)
    values = inside(origin + t[:, None] * direction)
    hits = np.flatnonzero(values)
    return (t[hits[0]], values[hits[0]]) if len(hits) else (-1.0, 0)


def unit_vectors(rng, count):
    v = rng.normal(size=(count, 3))
    v[::7, 0] = 0.0  # also rays along planes of voxels
    v[::11, 1:] = 0.0
    v[::11, 0] = 1.0
    return v / np.linalg.norm(v, axis=1, keepdims=True)


@pytest.mark.parametrize('filled', [0.01, 0.05])
def test_static_hits_agree_with_marching(filled):
    rng = np.random.default_rng(0)
    volume = ((rng.random((41, 30, 19)) < filled) * rng.integers(1, 9, (41, 30, 19))).astype(np.uint8)
    size = np.array(volume.shape) * VOXEL
    origins = LOWER + rng.uniform(-0.1, 1.1, (150, 3)) * size
    directions = unit_vectors(rng, 150)
    # half of the rays aim at the inside
    aimed = LOWER + rng.uniform(0, 1, (75, 3)) * size - origins[75:]
    directions[75:] = aimed / np.linalg.norm(aimed, axis=1, keepdims=True)
    t, material, obj, _ = cast(volume, no_objects(), origins, directions)

    def inside(points):
        index = np.floor((points - LOWER) / VOXEL).astype(int)
        valid = ((index >= 0) & (index < volume.shape)).all(-1)
        values = np.zeros(len(points), int)
        values[valid] = volume[tuple(index[valid].T)]
        return values

    met = 0
    for r in range(len(t)):
        expected, value = march(inside, origins[r], directions[r])
        first = max(expected, float(t[r]))
        if (expected < 0) != (t[r] < 0):
            # only a corner cut shorter than the marching step may be missed
            assert inside_length(inside, origins[r], directions[r], first) < 0.004
            continue
        assert t[r] == pytest.approx(expected, abs=0.006)
        assert material[r] == value
        met += expected >= 0
    assert met > 20 and (obj == -1).all()


def inside_length(inside, origin, direction, t):
    steps = np.arange(-0.02, 0.04, 0.0005)
    return 0.0005 * np.count_nonzero(inside(origin + (t + steps)[:, None] * direction))


def test_object_hits_agree_with_marching():
    rng = np.random.default_rng(1)
    models = [(rng.random(shape) < 0.4).astype(np.uint8) * (k + 1) for k, shape in enumerate([(9, 4, 3), (5, 5, 8)])]
    yaw, centre, voxel = np.array([0.7, -2.1]), np.array([[0.0, 3.0, 1.0], [1.0, 4.0, 1.5]]), np.array([0.2, 0.15])
    dims = np.array([model.shape for model in models], np.int64)
    half = 0.5 * dims * voxel[:, None]
    objects = ObjectArrays(
        centre,
        np.stack([np.cos(yaw), np.sin(yaw)], 1),
        half,
        np.linalg.norm(half, axis=1),
        voxel,
        dims,
        np.array([0, models[0].size], np.int64),
        np.concatenate([model.reshape(-1) for model in models]),
    )
    origins = np.array([0.5, 3.5, 1.2]) + rng.normal(0, 3, (120, 3))
    targets = centre[rng.integers(2, size=120)] + rng.normal(0, 0.4, (120, 3))
    directions = (targets - origins) / np.linalg.norm(targets - origins, axis=1, keepdims=True)
    t, material, obj, normal = cast(np.zeros((16, 16, 16), np.uint8), objects, origins, directions)

    def inside(points):
        values = np.zeros(len(points), int)
        for k, model in enumerate(models):
            c, s = np.cos(yaw[k]), np.sin(yaw[k])
            local = (points - centre[k]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
            index = np.floor((local + half[k]) / voxel[k]).astype(int)
            valid = ((index >= 0) & (index < model.shape)).all(-1)
            value = np.where(model[tuple(index[valid].T)] > 0, k + 1, 0)
            values[valid] = np.where(values[valid] > 0, values[valid], value)
        return values

    agree, met = 0, 0
    for r in range(len(t)):
        expected, value = march(inside, origins[r], directions[r])
        same = abs(float(t[r]) - expected) < 0.006 and (expected < 0 or (obj[r] == value - 1 and material[r] == value))
        agree += same
        met += expected >= 0
    # corners cut shorter than the marching step and overlapping models may differ
    assert met > 40 and agree >= 117
    facing = (normal * directions).sum(1)[t > 0]
    assert (facing <= 1e-6).all()
    np.testing.assert_allclose(np.linalg.norm(normal[t > 0], axis=1), 1, atol=1e-5)


def test_nearest_of_world_and_objects_wins():
    volume = np.zeros((40, 40, 20), np.uint8)
    volume[30, :, :] = 5  # a wall at x = 4.5
    box = ObjectArrays(
        np.array([[2.0, 5.0, 1.0]]),
        np.array([[1.0, 0.0]]),
        np.array([[0.5, 0.5, 0.5]]),
        np.array([0.87]),
        np.array([0.5]),
        np.array([[2, 2, 2]], np.int64),
        np.zeros(1, np.int64),
        np.full(8, 9, np.uint8),
    )
    origins = np.array([[-2.0, 5.0, 1.0], [-2.0, 8.0, 1.0], [5.0, 5.0, 1.0]])
    t, material, obj, normal = cast(volume, box, origins, np.array([[1.0, 0, 0], [1.0, 0, 0], [-1.0, 0, 0]]))
    np.testing.assert_allclose(t, [3.5, 6.5, 0.25], atol=1e-5)
    assert material.tolist() == [9, 5, 5] and obj.tolist() == [0, -1, -1]
    np.testing.assert_allclose(normal[:2], [[-1, 0, 0], [-1, 0, 0]], atol=1e-6)


def test_block_distance_never_skips_a_filled_block():
    rng = np.random.default_rng(3)
    volume = (rng.random((33, 25, 17)) < 0.0006).astype(np.uint8)
    distance = _empty_distance(volume)
    assert distance.shape == (5, 4, 3)
    filled = np.argwhere(volume) // 8
    for block in np.ndindex(*distance.shape):
        assert distance[block] == np.abs(filled - block).max(axis=1).min()
    assert (_empty_distance(np.zeros((9, 9, 9), np.uint8)) > 0).all()


def test_surface_points_are_the_voxels_with_a_free_side():
    volume = np.zeros((8, 8, 8), np.uint8)
    volume[2:6, 2:6, 2:6] = 3
    points, materials = surface_points(volume)
    assert len(points) == 4**3 - 2**3 and (materials == 3).all()
    np.testing.assert_array_equal(volume[tuple(np.floor(points).astype(int).T)], 3)
