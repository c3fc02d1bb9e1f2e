import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmark_classes import NUSCENES_CLASSES
from projects.occ.structures.frame_record import BoxRecord, FrameRecord
from projects.preparation.label_aggregation import LidarFrame, SceneAggregator, from_box_axes, to_box_axes
from projects.preparation.label_making import LabelSettings, make_label, transform

GRID = VoxelGrid((-16, -16, -3, 16, 16, 1), 0.5, (64, 64, 8), 'lidar', 0, class_names=('empty', *NUSCENES_CLASSES))
ROAD, WALL, CAR = 11, 15, 4
SIZE = [4.0, 2.0, 1.5]


def pose(x, yaw):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler('z', yaw).as_matrix()
    matrix[:3, 3] = [500 + x, 900.0, 1.8]
    return matrix


def car_points(side):
    """Points on one side of a car, in its own axes."""
    rng = np.random.default_rng(side + 2)
    local = rng.uniform(-0.5, 0.5, (300, 3)) * SIZE
    local[:, 1] = 0.49 * side * SIZE[1]
    return local


def make_frame(index, semantics=True, with_car=True):
    """The vehicle moves 2 m and turns by 3 degrees per frame; a car drives past and shows another side in each frame."""
    lidar2global = pose(2.0 * index, np.radians(3.0 * index))
    to_lidar = np.linalg.inv(lidar2global)
    rng = np.random.default_rng(index)
    # the world is the same in all frames: road at z = 0, a wall at y = 908 of the global frame
    road = np.column_stack([rng.uniform(492, 515, 4000), rng.uniform(892, 908, 4000), np.zeros(4000)])
    wall = np.column_stack([rng.uniform(492, 515, 1500), np.full(1500, 907.9), rng.uniform(0, 2.5, 1500)])
    # an animal without a box that was somewhere else in each frame, with the class of a pedestrian
    walker = np.array([[503 + 2.0 * index, 895.0, 0.5]]) + rng.uniform(-0.1, 0.1, (20, 3))
    car = Rotation.from_euler('z', 0.5).as_matrix()
    centre = np.array([505.0 - 3.0 * index, 904.0, 0.8])
    # centre and yaw of the car in the LiDAR frame
    box = np.array([*transform(to_lidar, centre[None])[0], *SIZE, 0.5 - np.radians(3.0 * index)])
    car_in_world = car_points(1 if index % 2 else -1) @ car.T + centre
    parts = [(road, ROAD), (wall, WALL), (walker, 7), *([(car_in_world, CAR)] if with_car else [])]
    points = transform(to_lidar, np.concatenate([part for part, _ in parts]))
    classes = np.concatenate([np.full(len(part), class_id, dtype=np.uint8) for part, class_id in parts])
    boxes = BoxRecord(box[None], ['car'], instance_tokens=['the car'])
    if not with_car:
        boxes = BoxRecord(np.zeros((0, 7)), [], instance_tokens=[])
    return LidarFrame(points, lidar2global, boxes, classes if semantics else None)


@pytest.fixture(scope='module')
def scene():
    return [make_frame(index) for index in range(3)]


def test_box_axes_are_undone():
    rng = np.random.default_rng(0)
    points, box = rng.normal(0, 5, (20, 3)), np.array([3.0, -2.0, 1.0, 4.0, 2.0, 1.5, 0.7])
    local = to_box_axes(points, box)
    np.testing.assert_allclose(from_box_axes(local, box), points, atol=1e-12)
    ahead = box[:3] + [np.cos(0.7), np.sin(0.7), 0.0]
    np.testing.assert_allclose(to_box_axes(ahead[None], box), [[1.0, 0.0, 0.0]], atol=1e-12)


def test_static_points_land_where_the_target_sees_them(scene):
    sweeps = SceneAggregator(scene).sweeps(1, GRID)
    assert len(sweeps) == 3
    to_lidar = np.linalg.inv(scene[1].lidar2global)
    for sweep in sweeps:
        in_world = transform(scene[1].lidar2global, sweep.points)
        static = sweep.members == -1
        road, wall = (static & (sweep.semantics == class_id) for class_id in (ROAD, WALL))
        assert np.abs(in_world[road, 2]).max() < 1e-9 and np.abs(in_world[wall, 1] - 907.9).max() < 1e-9
        assert (wall.sum(), road.sum() > 3500) == (1500, True)
    np.testing.assert_allclose(sweeps[0].origin, transform(to_lidar, scene[0].lidar2global[None, :3, 3])[0], atol=1e-9)
    np.testing.assert_allclose(sweeps[1].origin, 0, atol=1e-9)


def test_objects_move_along_and_are_seen_from_all_sides(scene):
    sweeps = SceneAggregator(scene).sweeps(1, GRID)
    box = scene[1].boxes.boxes[0]
    sides = []
    for sweep in sweeps:
        local = to_box_axes(sweep.points[sweep.members == 0], box)
        assert len(local) == 300 and (np.abs(local) <= np.array(SIZE) / 2 + 1e-9).all()
        sides.append(np.sign(local[:, 1]).mean())
    assert sides == [-1.0, 1.0, -1.0]


def test_things_without_a_box_count_only_in_their_own_frame(scene):
    sweeps = SceneAggregator(scene).sweeps(1, GRID)
    assert [(sweep.semantics == 7).sum() for sweep in sweeps] == [0, 20, 0]


def test_label_has_no_trail_and_covers_both_sides(scene):
    record = FrameRecord('t', 0.0, 'x.pcd.bin', np.eye(4), scene[1].lidar2global, boxes=scene[1].boxes)
    settings = LabelSettings(fill_boxes=False)
    aggregator = SceneAggregator(scene, settings)
    alone, together = (make_label(aggregator.sweeps(1, GRID, use), record, GRID, settings=settings) for use in ([], None))
    box = scene[1].boxes.boxes[0]
    for label, both in ((alone, False), (together, True)):
        local = to_box_axes(GRID.index_to_point(np.argwhere(label.semantics == CAR)), box)
        assert (np.abs(local) <= np.array(SIZE) / 2 + 0.5).all(), 'a trail of the car'
        assert (local[:, 1] < -0.5).any() == both and (local[:, 1] > 0.5).any()
    # more road and more of the air is known
    assert (together.semantics == ROAD).sum() > (alone.semantics == ROAD).sum()
    assert together.mask_lidar.sum() > 1.05 * alone.mask_lidar.sum()


def test_an_object_that_is_gone_is_left_out():
    frames = [make_frame(0), make_frame(1, with_car=False)]
    sweeps = SceneAggregator(frames).sweeps(1, GRID)
    assert all((sweep.members == -1).all() for sweep in sweeps) and (sweeps[0].semantics == CAR).sum() == 0
    # without point classes its points are recognised by their own frame's box
    frames = [make_frame(0, semantics=False), make_frame(1, semantics=False, with_car=False)]
    points = transform(frames[1].lidar2global, SceneAggregator(frames).sweeps(1, GRID)[0].points)
    turn = Rotation.from_euler('z', 0.5).as_matrix()
    inside = np.abs((points - [505.0, 904.0, 0.8]) @ turn) < np.array(SIZE) / 2 - 0.02
    assert (inside.all(1) & (points[:, 2] > 0.3)).sum() == 0


def test_frames_far_away_are_left_out(scene):
    far = LidarFrame(scene[0].points, pose(400.0, 0.0), scene[0].boxes, scene[0].semantics)
    assert len(SceneAggregator([*scene, far]).sweeps(1, GRID)) == 3


def test_boxes_need_names_only_across_frames(scene):
    nameless = [LidarFrame(f.points, f.lidar2global, BoxRecord(f.boxes.boxes, f.boxes.names), f.semantics) for f in scene]
    aggregator = SceneAggregator(nameless)
    for frames in (None, [0]):
        with pytest.raises(ValueError, match=r'frame 0 has boxes without instance_tokens, .* single frames \(--window 0\)'):
            aggregator.sweeps(1, GRID, frames)
    (alone,), (named,) = aggregator.sweeps(1, GRID, [1]), SceneAggregator(scene).sweeps(1, GRID, [1])
    assert (alone.members == 0).sum() == 300
    assert np.array_equal(alone.points, named.points) and np.array_equal(alone.members, named.members)
    assert len(SceneAggregator(nameless[1:2]).sweeps(0, GRID)[0].points) == len(named.points)


def test_an_object_where_the_vehicle_was_keeps_its_points():
    # a car follows 8 m behind the vehicle, both drive 4 m per frame: in frame 2 it is where the vehicle was in frame 0
    box = np.array([[-8.0, 0.0, -1.0, *SIZE, 0.0]])
    boxes = BoxRecord(box, ['car'], instance_tokens=['c'])
    # and a return from the vehicle itself
    points = np.concatenate([car_points(1) + box[0, :3], [[0.5, 0.5, 0.0]]])
    classes = np.append(np.full(300, CAR), WALL)
    frames = [LidarFrame(points, pose(4.0 * index, 0.0), boxes, classes) for index in range(3)]
    settings = LabelSettings(fill_boxes=False)
    record = FrameRecord('t', 0.0, 'x.pcd.bin', np.eye(4), frames[2].lidar2global, boxes=boxes)
    sweeps = SceneAggregator(frames, settings).sweeps(2, GRID)
    assert [(sweep.members == 0).sum() for sweep in sweeps] == [300, 300, 300]
    past = make_label(sweeps[:1], record, GRID, settings=settings)
    now = make_label(sweeps[2:], record, GRID, settings=settings)
    assert set(np.unique(now.semantics)) == {0, CAR} and np.array_equal(past.semantics, now.semantics)


def test_points_of_other_times_do_not_fill_the_place_of_an_object(scene):
    # a wall's point where the car is in frame 1; the road under the car stays
    box = scene[1].boxes.boxes[0]
    there = transform(scene[1].lidar2global, np.array([box[:3], box[:3] - [0, 0, 0.7]]))
    points = np.concatenate([scene[0].points, transform(np.linalg.inv(scene[0].lidar2global), there)])
    classes = np.concatenate([scene[0].semantics, np.array([WALL, ROAD], dtype=np.uint8)])
    other = LidarFrame(points, scene[0].lidar2global, scene[0].boxes, classes)
    sweep = SceneAggregator([other, scene[1]]).sweeps(1, GRID)[0]
    distance = np.linalg.norm(sweep.points[:, None] - [box[:3], box[:3] - [0, 0, 0.7]], axis=-1).min(0)
    assert distance[0] > 0.1 and distance[1] < 1e-6
    # in its own frame the same point counts
    own = LidarFrame(points, scene[0].lidar2global, scene[0].boxes, classes)
    assert (SceneAggregator([own, scene[1]]).sweeps(0, GRID)[0].semantics == WALL).sum() == 1501
