import numpy as np
import pytest

from projects.occ.datasets.info_formats import parse_infos
from projects.occ.structures import VoxelGrid
from projects.occ.structures.frame_record import BoxRecord
from projects.preparation.label_making import LabelSettings, LidarSweep, ground_heights, in_box, make_label

NAMES = (
    'barrier bicycle bus car construction_vehicle motorcycle pedestrian traffic_cone trailer truck driveable_surface '
    'other_flat sidewalk terrain manmade vegetation'
).split()
EGO_GRID = VoxelGrid((-16, -16, -1, 16, 16, 3), 0.5, (64, 64, 8), 'ego', 17, class_names=('others', *NAMES, 'free'))
LIDAR_GRID = VoxelGrid((-16, -16, -3, 16, 16, 1), 0.5, (64, 64, 8), 'lidar', 0, class_names=('empty', *NAMES))
# in the LiDAR frame, whose sensor is 1.84 m above the ground: a car ahead and to the left, turned by 30 degrees, and a wall
CAR = np.array([-2.0, 8.0, -1.0, 4.4, 1.9, 1.6, np.radians(120)])
WALL_X = 9.0


def _cast(directions):
    """Distance at which each ray from the sensor hits the road, the wall or the car, and what it hits."""
    rays = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    with np.errstate(divide='ignore'):
        road = np.where(rays[:, 2] < 0, -1.84 / rays[:, 2], np.inf)
        wall = np.where(rays[:, 0] > 0, WALL_X / rays[:, 0], np.inf)
        wall[rays[:, 2] / rays[:, 0] * WALL_X > 0.9] = np.inf  # its upper edge
    cos, sin = np.cos(CAR[6]), np.sin(CAR[6])
    turn = np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    start, heading = -turn @ CAR[:3], rays @ turn.T
    with np.errstate(divide='ignore', invalid='ignore'):
        a, b = (-CAR[3:6] / 2 - start) / heading, (CAR[3:6] / 2 - start) / heading
    near, far = np.minimum(a, b).max(1), np.maximum(a, b).min(1)
    car = np.where((near < far) & (near > 0), near, np.inf)
    distance = np.minimum(np.minimum(road, wall), car)
    hit = np.select([distance == car, distance == wall], ['car', 'wall'], 'road')
    far = distance > 40
    return rays * np.where(far, 0, distance)[:, None], np.where(far, 'none', hit)


@pytest.fixture(scope='module')
def sweep():
    azimuth, elevation = np.meshgrid(np.radians(np.arange(0, 360, 0.5)), np.radians(np.arange(-30, 11, 1.0)))
    flat = np.cos(elevation)
    directions = np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], -1).reshape(-1, 3)
    points, hit = _cast(directions)
    noise = np.random.default_rng(0).normal(0, 0.01, points.shape)
    own = np.array([[0.3, 0.5, -0.2], [1.0, -1.0, -0.4]])  # returns from the roof of the ego vehicle
    kept = hit != 'none'
    points = np.concatenate([(points + noise)[kept], own])
    return LidarSweep(points, np.zeros(3)), np.concatenate([hit[kept], ['own', 'own']])


@pytest.fixture
def record(formats):
    record = parse_infos(formats.styles['occ-1.0']([formats.RawFrame(0)])).records[0]
    record.boxes = BoxRecord(np.stack([CAR, [0.0, -12.0, -1.0, 4, 2, 1.5, 0]]), ['car', 'truck'], np.array([100, 0]))
    return record


def _centers(grid, record):
    points = grid.centers().double().numpy()
    if grid.frame == 'ego':
        inverse = np.linalg.inv(record.lidar2ego)
        points = points @ inverse[:3, :3].T + inverse[:3, 3]
    return points


@pytest.mark.parametrize('grid', [EGO_GRID, LIDAR_GRID], ids=['ego', 'lidar'])
def test_what_is_where(sweep, record, grid):
    label = make_label([sweep[0]], record, grid, image_wh=(32, 18))
    centers, semantics = _centers(grid, record), label.semantics
    assert semantics.dtype == np.uint8 and semantics.shape == grid.shape
    car = semantics == 4
    # solid: every voxel centre in the box, and nothing further than a voxel from it
    inside = in_box(centers.reshape(-1, 3), CAR).reshape(grid.shape)
    near = in_box(centers.reshape(-1, 3), CAR, margin=0.6).reshape(grid.shape)
    assert inside.sum() > 80 and car[inside].all() and not (car & ~near).any()
    assert not (semantics == 10).any(), 'a box without points is not filled'
    road = semantics == 11
    assert road.sum() > 500 and np.abs(centers[road][:, 2] + 1.84).max() < 0.55
    wall = semantics == 15
    assert wall.sum() > 50 and np.abs(centers[wall][:, 0] - WALL_X).max() < 0.6
    # the ego vehicle's own returns are dropped
    own = np.linalg.norm(centers[..., :2], axis=-1) < 1.5
    assert not np.isin(semantics[own & (centers[..., 2] > -1.2)], [4, 15]).any()


@pytest.mark.parametrize('grid', [EGO_GRID, LIDAR_GRID], ids=['ego', 'lidar'])
def test_masks_say_what_was_seen(sweep, record, grid):
    label = make_label([sweep[0]], record, grid, image_wh=(32, 18))
    centers = _centers(grid, record)
    assert label.mask_lidar.dtype == label.mask_camera.dtype == bool
    assert not (label.mask_camera & ~label.mask_lidar).any()
    assert label.mask_lidar[label.semantics != grid.free_index].all()
    # air between sensor and car is seen; behind the wall nothing is
    way = np.linalg.norm(centers - CAR[:3] * 0.6, axis=-1)
    seen = np.unravel_index(way.argmin(), grid.shape)
    assert label.mask_lidar[seen] and label.semantics[seen] == grid.free_index
    assert not label.mask_lidar[(centers[..., 0] > WALL_X + 1) & (centers[..., 2] < 0)].any()
    assert label.mask_camera.sum() > 1000
    # the front camera cannot see through the car
    shadow = np.unravel_index(np.linalg.norm(centers - CAR[:3] * [1.6, 1.6, 1.0], axis=-1).argmin(), grid.shape)
    assert not label.mask_camera[shadow]


def test_semantics_of_points_win_over_the_rules_but_not_over_boxes(sweep, record):
    points, hit = sweep
    semantics = np.select([hit == 'road', hit == 'wall'], [13, 16], 0).astype(np.uint8)
    label = make_label([LidarSweep(points.points, points.origin, semantics)], record, EGO_GRID)
    counts = np.bincount(label.semantics.ravel(), minlength=18)
    assert counts[13] > 500 and counts[16] > 50 and counts[4] > 80
    assert counts[11] + counts[15] < 20


def test_more_sweeps_see_more(sweep, record):
    full = sweep[0]
    halves = [LidarSweep(full.points[part::2], full.origin) for part in range(2)]
    single = make_label(halves[:1], record, EGO_GRID)
    both, whole = make_label(halves, record, EGO_GRID), make_label([full], record, EGO_GRID)
    assert (single.mask_lidar & ~both.mask_lidar).sum() < 10
    assert both.mask_lidar.sum() > single.mask_lidar.sum()
    assert (both.semantics != whole.semantics).mean() < 0.002
    # a sweep from elsewhere casts its rays from there
    moved = make_label([LidarSweep(full.points, np.array([0.0, 6.0, 0.5]))], record, EGO_GRID)
    assert (moved.mask_lidar != whole.mask_lidar).sum() > 1000


def test_ground_follows_a_slope_and_ignores_objects():
    rng = np.random.default_rng(0)
    xy = rng.uniform(-30, 30, (6000, 2))
    ground = np.column_stack([xy, -1.8 + 0.03 * xy[:, 0]]) + rng.normal(0, 0.02, (6000, 3))
    objects = rng.uniform([4, 4, -1.5], [9, 9, 2], (1500, 3))
    stray = np.column_stack([rng.uniform(-20, 20, (30, 2)), rng.uniform(-6, -3, 30)])
    points = np.concatenate([ground, objects, stray])
    heights = ground_heights(points, points, LabelSettings())
    truth = -1.8 + 0.03 * points[:, 0]
    error = np.abs(heights - truth)
    assert np.quantile(error[:6000], 0.99) < 0.12 and np.median(error[6000:7500]) < 0.12
    assert ground_heights(points[:0], points, LabelSettings()).max() == -np.inf


def test_errors(sweep, record):
    grid = VoxelGrid(
        (-16, -16, -1, 16, 16, 3), 0.5, (64, 64, 8), 'ego', 2, class_names=('manmade', 'driveable_surface', 'free')
    )
    with pytest.raises(ValueError, match=r"grid\.class_names lacks \['car', 'truck'\]"):
        make_label([sweep[0]], record, grid)
    record.boxes = None
    with pytest.raises(ValueError, match='token00 was read without boxes.*with_boxes=True'):
        make_label([sweep[0]], record, EGO_GRID)
