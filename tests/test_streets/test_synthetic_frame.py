"""Images, point clouds, boxes, labels and masks of a frame show the same world."""

import numpy as np
import pytest
from scipy import ndimage

from projects.occ.structures.frame_record import geometry_problems
from projects.streets.config import CLASS_ID, FREE
from projects.streets.geometry import transform
from projects.streets.sensors import CAMERAS, LIDAR_ELEVATIONS

FORMATS = ('occ3d', 'surroundocc')


def label2world(world, maker, name, time):
    pose = world.ego_pose(time)
    return pose if name == 'occ3d' else pose @ maker.rig.lidar2ego


def neighbourhood(flags):
    """Whether a voxel or one of its 26 neighbours is set."""
    return ndimage.binary_dilation(flags, np.ones((3, 3, 3)))


def in_box(points, box):
    """Points (P, 3) in the axes of a box (x, y, z, l, w, h, yaw) about its centre."""
    offset, cos, sin = points - box[:3], np.cos(box[6]), np.sin(box[6])
    return np.stack([cos * offset[:, 0] + sin * offset[:, 1], cos * offset[:, 1] - sin * offset[:, 0], offset[:, 2]], 1)


@pytest.mark.parametrize('name', FORMATS)
def test_pixels_end_in_voxels_of_their_class(street_frames, name):
    for world, maker, frame, time in street_frames:
        grid, labels = world.config.grids[name], frame.labels[name]
        world2label = np.linalg.inv(label2world(world, maker, name, time))
        found, classes = [], []
        for view in frame.views.values():
            hit = view.t > 0
            points = view.origin + view.directions[hit] * (view.t[hit] + 0.01)[:, None]
            index, inside = grid.point_to_index(transform(points, world2label))
            found.append(index[inside])
            classes.append(view.class_map.ravel()[hit][inside])
        index, classes = tuple(np.concatenate(found).T), np.concatenate(classes)
        assert len(classes) > 20000
        assert (labels[index] != grid.free_index).mean() > 0.96
        assert (labels[index] == classes).mean() > 0.85
        # what differs lies in a voxel that several classes share
        for c in np.unique(classes[(classes != CLASS_ID['others'])]):
            own = tuple(axis[classes == c] for axis in index)
            if len(own[0]) > 200:
                assert neighbourhood(labels == c)[own].mean() > 0.9, c
        assert frame.mask_camera[name][index].mean() > 0.97


@pytest.mark.parametrize('name', FORMATS)
def test_label_voxels_project_onto_pixels_of_their_class(street_frames, name):
    """The other way round, with the matrices that go to the info file."""
    checked = agreed = 0
    for world, _, frame, _ in street_frames:
        grid, labels, record = world.config.grids[name], frame.labels[name], frame.record
        big = np.isin(labels, [CLASS_ID[n] for n in ('car', 'bus', 'truck', 'manmade', 'vegetation', 'driveable_surface')])
        index = np.argwhere(big)
        points = grid.index_to_point(index)
        if name == 'occ3d':
            points = transform(points, np.linalg.inv(record.lidar2ego))
        for camera_name, camera in record.cameras.items():
            view = frame.views[camera_name]
            local = transform(points, camera.lidar2cam)
            front = local[:, 2] > 2
            u, v = (camera.cam2img @ local[front].T)[:2] / local[front, 2]
            height, width = view.depth.shape
            valid = (u >= 0) & (u < width) & (v >= 0) & (v < height)
            depth = view.depth[v[valid].astype(int), u[valid].astype(int)]
            # the visible surface passes through the voxel or close by
            visible = np.abs(local[front, 2][valid] - depth) < 0.87 * grid.voxel_size[0]
            pixels = view.class_map[v[valid].astype(int), u[valid].astype(int)][visible]
            wanted = labels[tuple(index[front][valid][visible].T)]
            checked += len(wanted)
            agreed += (pixels == wanted).sum()
    assert checked > 500
    assert agreed / checked > 0.8


def test_classes_have_their_colours(street_frames):
    """Vegetation is green, the road is grey and darker than markings, cones are orange."""
    colours = {}
    for _, _, frame, _ in street_frames:
        for view in frame.views.values():
            for c in np.unique(view.class_map):
                colours.setdefault(int(c), []).append(view.image[view.class_map == c])
    mean = {c: np.concatenate(parts).astype(float).mean(0) for c, parts in colours.items()}
    road, leaf, sky = (mean[CLASS_ID[n]] for n in ('driveable_surface', 'vegetation', 'free'))
    assert leaf[1] > leaf[0] and leaf[1] > leaf[2] + 15
    assert np.ptp(road) < 40
    assert sky.mean() > road.mean() + 20
    terrain = mean[CLASS_ID['terrain']]
    assert terrain[2] < terrain[1]
    for view in street_frames[0][2].views.values():
        assert view.image.dtype == np.uint8 and view.image.std() > 10


@pytest.mark.parametrize('name', FORMATS)
def test_lidar_points_lie_in_occupied_voxels(street_frames, name):
    for world, _, frame, _ in street_frames:
        grid, points = world.config.grids[name], frame.points[:, :3].astype(np.float64)
        points = transform(points, frame.record.lidar2ego) if name == 'occ3d' else points
        index, inside = grid.point_to_index(points)
        occupied = frame.labels[name] != grid.free_index
        index = tuple(index[inside].T)
        assert inside.sum() > 5000
        assert occupied[index].mean() > 0.95
        assert neighbourhood(occupied)[index].mean() > 0.999
        assert frame.mask_lidar[name][index].mean() > 0.999


def test_lidar_has_rings_and_range(street_frames):
    for world, _, frame, _ in street_frames:
        points = frame.points
        assert points.dtype == np.float32 and points.shape[1] == 5 and len(points) > 15000
        ring = points[:, 4].astype(int)
        assert set(ring) == set(range(32))
        elevation = np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1]))
        np.testing.assert_allclose(elevation, LIDAR_ELEVATIONS[ring], atol=2e-3)
        assert points[:, 3].min() >= 0 and points[:, 3].max() <= 255
        distance = np.linalg.norm(points[:, :3], axis=1)
        assert distance.min() > 0.9 and distance.max() < world.config.view_distance + 0.2


@pytest.mark.parametrize('name', FORMATS)
def test_boxes_contain_the_voxels_of_their_objects(street_frames, name):
    for world, _, frame, _ in street_frames:
        grid, labels, boxes = world.config.grids[name], frame.labels[name], frame.record.boxes
        for c in (CLASS_ID[n] for n in ('car', 'bus', 'truck', 'pedestrian', 'barrier', 'trailer')):
            index = np.argwhere(labels == c)
            points = grid.index_to_point(index)
            points = transform(points, np.linalg.inv(frame.record.lidar2ego)) if name == 'occ3d' else points
            covered = np.zeros(len(points), dtype=bool)
            for box, box_name in zip(boxes.boxes, boxes.names):
                if CLASS_ID[box_name] != c:
                    continue
                local = in_box(points, box)
                covered |= (np.abs(local) <= box[3:6] / 2 + 0.87 * grid.voxel_size[0]).all(1)
            assert covered.all()
        assert (boxes.num_lidar_pts > 0).any() and boxes.num_lidar_pts.shape == (len(boxes.names),)


def test_boxes_point_where_their_objects_move(street_frames):
    moving = 0
    for _, _, frame, _ in street_frames:
        assert frame.record.boxes.velocities.shape == (len(frame.record.boxes.names), 2)
        for box, name, velocity in zip(frame.record.boxes.boxes, frame.record.boxes.names, frame.record.boxes.velocities):
            if name in ('car', 'truck', 'bus', 'motorcycle') and np.hypot(*velocity) > 1:
                difference = np.arctan2(velocity[1], velocity[0]) - box[6]
                assert abs(np.arctan2(np.sin(difference), np.cos(difference))) < 0.15
                moving += 1
    assert moving > 0


def test_box_counts_are_the_points_inside(street_frames):
    for _, _, frame, _ in street_frames:
        boxes, points = frame.record.boxes, frame.points[:, :3].astype(np.float64)
        for box, name, count in zip(boxes.boxes, boxes.names, boxes.num_lidar_pts):
            if name not in ('car', 'bus', 'truck') or np.hypot(*box[:2]) > 25:
                continue
            local = in_box(points, box)
            inside = (np.abs(local) <= box[3:6] / 2 + [0.1, 0.1, 0.05]).all(1).sum()
            # the enlarged box also takes a few points of the road
            assert 0.9 * count <= inside <= 1.3 * count + 25


@pytest.mark.parametrize('name', FORMATS)
def test_masks(street_frames, name):
    for world, _, frame, _ in street_frames:
        grid, labels = world.config.grids[name], frame.labels[name]
        camera, lidar = frame.mask_camera[name], frame.mask_lidar[name]
        assert camera.shape == lidar.shape == grid.shape and camera.dtype == lidar.dtype == bool
        assert not (camera & ~lidar).any()
        assert 0.1 < camera.mean() < lidar.mean() < 0.95
        occupied = labels != grid.free_index
        assert (occupied & lidar).sum() / occupied.sum() > 0.8
        # the unseen rest is labelled free, but for the far sides of objects that were seen
        unseen = labels[~lidar]
        things = [*range(1, 11), grid.ignore_index, 0]
        assert np.isin(unseen[unseen != grid.free_index], things).all()


def test_seen_free_voxels_are_empty_in_the_world(street_frames):
    """Rays pass through the free voxels they mark: no surface sample of the static world in most of them."""
    for world, _, frame, time in street_frames:
        grid = world.config.grids['occ3d']
        index, inside = grid.point_to_index(transform(world.surface.astype(np.float64), np.linalg.inv(world.ego_pose(time))))
        counts = np.zeros(grid.shape, int)
        np.add.at(counts, tuple(index[inside].T), 1)
        seen_free = frame.mask_camera['occ3d'] & (frame.labels['occ3d'] == FREE)
        assert (counts[seen_free] == 0).mean() > 0.99


def test_records_are_consistent(street_frames):
    for world, maker, frame, time in street_frames:
        record = frame.record
        assert list(record.cameras) == list(CAMERAS)
        assert geometry_problems(record) == []
        np.testing.assert_allclose(record.ego2global, world.scene.to_global @ world.ego_pose(time), atol=1e-9)
        assert record.prev == maker.sample_token(0) and record.next == '' and len(record.token) == 32
        stamps = [camera.timestamp for camera in record.cameras.values()]
        assert all(-0.05 < stamp - record.timestamp <= 0 for stamp in stamps) and len(set(stamps)) == 6
        for camera in record.cameras.values():
            static = np.linalg.inv(camera.cam2ego) @ record.lidar2ego
            shift = np.linalg.norm(static[:3, 3] - camera.lidar2cam[:3, 3])
            assert shift < 0.7
        # forward is +y of the LiDAR and +x of the ego vehicle
        np.testing.assert_allclose(record.lidar2ego[:3, 1], [1, 0, 0], atol=0.03)
        # FRONT looks ahead, BACK behind, LEFT to the left
        forward = {name: camera.cam2ego[:3, 2] for name, camera in record.cameras.items()}
        assert forward['CAM_FRONT'][0] > 0.99 and forward['CAM_BACK'][0] < -0.99
        assert forward['CAM_FRONT_LEFT'][1] > 0.7 and forward['CAM_BACK_RIGHT'][1] < -0.8
