"""Layout: coordinates of the street, the drive, objects that keep clear of each other, and what occurs in the labels."""

import numpy as np
import pytest

from projects.streets import World, build_config
from projects.streets.config import CLASS_ID, FREE
from projects.streets.materials import MATERIAL_CLASS
from projects.streets.objects import MODELS, OBJECT_VOXEL, build_model
from projects.streets.scene import THEMES, Axis, draw_scene

# length, width, height in metres: (low, high)
SIZES = {
    'car': ((3.5, 5.2), (1.6, 2.1), (1.3, 2.1)),
    'truck': ((5.5, 9), (2.2, 2.7), (2.7, 3.7)),
    'bus': ((9, 12.5), (2.4, 2.9), (2.8, 3.6)),
    'trailer': ((6.5, 11.5), (2.2, 2.7), (2.6, 4.0)),
    'construction_vehicle': ((5.5, 8), (2.2, 3.0), (2.6, 3.8)),
    'bicycle': ((1.4, 2.0), (0.3, 0.8), (0.9, 1.9)),
    'motorcycle': ((1.8, 2.5), (0.5, 1.0), (1.0, 1.9)),
    'pedestrian': ((0.3, 0.8), (0.4, 0.8), (1.4, 2.0)),
    'traffic_cone': ((0.3, 0.6), (0.3, 0.6), (0.6, 1.1)),
    'barrier': ((1.3, 2.6), (0.3, 0.6), (0.8, 1.2)),
}


@pytest.mark.parametrize('curvature', [0.0, 1 / 70, -1 / 90])
def test_street_coordinates_invert(curvature):
    axis = Axis(curvature)
    rng = np.random.default_rng(0)
    s, d = rng.uniform(-60, 60, 200), rng.uniform(-40, 40, 200)
    x, y, heading = axis.to_world(s, d)
    np.testing.assert_allclose(axis.to_street(x, y), (s, d), atol=1e-9)
    ahead = axis.to_world(s + 1e-4, np.zeros(200))
    here = axis.to_world(s, np.zeros(200))
    np.testing.assert_allclose(np.arctan2(ahead[1] - here[1], ahead[0] - here[0]), heading, atol=1e-4)


def test_crossing_coordinates_invert():
    config = build_config(('occ3d',))
    scene = next(scene for scene in (draw_scene(config, i) for i in range(50)) if scene.crossing is not None)
    a, b = np.random.default_rng(0).uniform(-30, 30, (2, 100))
    x, y, _ = scene.crossing.to_world(scene.axis, a, b)
    np.testing.assert_allclose(scene.crossing.to_local(scene.axis, x, y), (a, b), atol=1e-9)


def test_drive_follows_the_road_with_small_tilts():
    config = build_config(('occ3d',), frames=6)
    headings = []
    for index in range(12):
        scene = draw_scene(config, index)
        for frame in range(6):
            pose = scene.drive.pose(scene.axis, 0.5 * frame)
            np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
            s, d = scene.axis.to_street(*pose[:2, 3])
            assert pose[2, 3] == 0 and abs(d) < scene.lane_edge
            assert np.degrees(np.arccos(pose[2, 2])) < 1.5
            road = scene.axis.to_world(s, d)[2]
            headings.append(np.arctan2(pose[1, 0], pose[0, 0]) - road)
    assert 0.005 < np.std(headings) < 0.2


@pytest.mark.parametrize('frames', [4, 60])
def test_the_street_never_meets_itself(frames):
    config = build_config(('occ3d',), frames=frames)
    for index in range(20):
        scene = draw_scene(config, index)
        s = np.linspace(*scene.span(config.view_distance), 50)
        x, y, _ = scene.axis.to_world(s, np.full(50, 3.0))
        np.testing.assert_allclose(scene.axis.to_street(x, y)[0], s, atol=1e-6)


def test_the_ego_vehicle_drives_on_the_road():
    config = build_config(('occ3d',), frames=3)
    for index in range(4):
        world = World(config, index)
        for frame in range(3):
            pose = world.ego_pose(world.key_time(frame))
            # the four corners of the car, in the uppermost layer of the road and in the one above
            for x, y in ((3.8, 0.8), (3.8, -0.8), (-0.8, 0.8), (-0.8, -0.8)):
                corner = pose[:3, :3] @ [x, y, 0] + pose[:3, 3]
                ix, iy, iz = np.floor((np.array([*corner[:2], -0.1]) - world.lower) / world.voxel).astype(int)
                assert MATERIAL_CLASS[world.voxels[ix, iy, iz]] == CLASS_ID['driveable_surface']
                assert not world.voxels[ix, iy, iz + 1 : iz + 9].any()


def test_scenes_differ_and_repeat():
    config = build_config(('occ3d',))
    scenes = [draw_scene(config, index) for index in range(40)]
    assert {scene.theme for scene in scenes} == set(THEMES)
    assert {scene.light for scene in scenes} == {'day', 'overcast', 'dusk'}
    assert 8 < sum(scene.crossing is not None for scene in scenes) < 32
    assert 8 < sum(scene.axis.curvature != 0 for scene in scenes) < 32
    assert {len(scene.lanes) for scene in scenes} == {2, 4}
    again = draw_scene(config, 3)
    assert (again.drive, again.sides, again.lots) == (scenes[3].drive, scenes[3].sides, scenes[3].lots)


@pytest.mark.parametrize('name', MODELS)
def test_models_have_the_size_of_their_class_and_fill_their_box(name):
    rng = np.random.default_rng(0)
    for _ in range(8):
        model, paints = build_model(name, rng)
        for n, (low, high) in zip(model.shape, SIZES[name]):
            assert low <= n * OBJECT_VOXEL <= high
        assert model.dtype == np.uint8 and paints.shape == (2, 3)
        for axis in range(3):
            assert model.take(0, axis).any() and model.take(-1, axis).any()


def test_objects_keep_clear_of_each_other_and_of_the_ego_vehicle():
    config = build_config(('occ3d',))
    for index in range(6):
        world = World(config, index)
        scene, actors = world.scene, world.actors
        assert len(actors) > 8
        for time in (0.0, scene.duration):
            ego = scene.drive.pose(scene.axis, time)
            cells = {}
            for k, actor in enumerate(actors):
                x, y, yaw = actor.pose(scene, time)
                length, width, _ = actor.size
                # cells of 0.25 m well inside the box
                u, v = np.meshgrid(
                    np.arange(-length / 2 + 0.3, length / 2 - 0.2, 0.2), np.arange(-width / 2 + 0.3, width / 2 - 0.2, 0.2)
                )
                px, py = x + np.cos(yaw) * u - np.sin(yaw) * v, y + np.sin(yaw) * u + np.cos(yaw) * v
                local = np.stack([px - ego[0, 3], py - ego[1, 3]], -1) @ ego[:2, :2]
                assert not ((local[..., 0] > -1) & (local[..., 0] < 4) & (np.abs(local[..., 1]) < 0.9)).any()
                for cell in {(round(a / 0.25), round(b / 0.25)) for a, b in zip(px.ravel(), py.ravel())}:
                    assert cells.setdefault(cell, k) == k


def test_objects_stand_on_the_ground_and_not_in_walls_or_trunks():
    config = build_config(('occ3d',))
    for index in range(4):
        world = World(config, index)
        objects = world.objects_at(0.0)
        for k, actor in enumerate(world.actors):
            layer = int((0.9 - world.lower[2]) / world.voxel)
            x, y, bottom = objects.centre[k, 0], objects.centre[k, 1], objects.centre[k, 2] - objects.half[k, 2]
            ix, iy = int((x - world.lower[0]) / world.voxel), int((y - world.lower[1]) / world.voxel)
            ground = int(round((bottom - world.lower[2]) / world.voxel))
            assert world.voxels[ix, iy, ground - 1] > 0 and world.voxels[ix, iy, ground] == 0, actor.name
            assert world.voxels[ix, iy, max(layer, ground)] == 0, actor.name


def test_all_classes_occur_in_the_labels(street_labels):
    frames_with = {name: sum((labels == index).any() for labels in street_labels) for name, index in CLASS_ID.items()}
    assert min(frames_with.values()) >= 3, frames_with
    for name in ('driveable_surface', 'manmade', 'vegetation', 'free'):
        assert frames_with[name] >= 8, frames_with


def test_most_frequent_class_per_voxel_is_a_poor_guess(street_labels):
    train, val = np.stack(street_labels[:7]), np.stack(street_labels[7:])
    counts = np.stack([(train == c).sum(0) for c in range(FREE + 1)])
    prior = counts.argmax(0)
    occupied = val != FREE
    accuracy = (np.broadcast_to(prior, val.shape) == val)[occupied].mean()
    # road in front of the car is easy to guess, most else is not
    assert 0.05 < accuracy < 0.5
    ious = []
    for c in range(FREE):
        if (val == c).any():
            ious.append(((prior == c) & (val == c)).sum() / ((prior == c) | (val == c)).sum())
    assert np.mean(ious) < 0.2
