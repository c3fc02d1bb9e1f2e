"""Makes a voxel label from LiDAR points and 3D boxes.

This is **not** a published label and must not be used to report numbers: it serves end-to-end checks and demonstrations on
frames whose benchmark label is not at hand. How it is made:

1. A point takes the class of the box that contains it. Without a box it takes its own semantic class if one is given; otherwise
   a point near the estimated ground becomes ``driveable_surface`` (road, sidewalk and terrain cannot be told apart by LiDAR
   alone) and every other point ``manmade`` (walls, poles and trees alike).
2. A voxel takes the class that most of its points have; points of boxes win over others.
3. Boxes that hold LiDAR points are filled, so that vehicles are solid. Where ground was measured nearby and a ray
   passed close above, the gaps between the LiDAR's rings are closed by ground of the nearest measured height and class.
4. ``mask_lidar`` marks voxels that a LiDAR ray touched, plus all occupied ones. ``mask_camera`` marks those of them that a
   camera sees with no occupied voxel in between. What is not occupied is labelled free, observed or not, as in Occ3D.

Unlike Occ3D's release, whose road lies a voxel or two too low, heights are as measured. Several sweeps can be given, each
with the place that it was taken from, as long as their points have been brought into the key frame: ``label_aggregation.py``
does so for the frames of a scene, with moving objects taken along.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from projects.occ.structures import VoxelGrid
from projects.occ.structures.frame_record import BoxRecord, FrameRecord

from .voxel_rays import mark_traversed, mark_visible


@dataclass
class LidarSweep:
    """Points of one turn of the LiDAR.

    Attributes:
        points: (P, 3) metres, in the LiDAR frame of the key frame.
        origin: (3,) where the sensor was, same frame.
        semantics: (P,) nuScenes lidarseg classes 1..16, 0 where unknown; None if there are none.
        members: (P,) number of the key frame's box that a point belongs to, -1 for none; None if that is to be found out.
            Points that belong to a box are kept wherever they are: their object may now be where the sensor was.
        ray_ends: (R, 3) where rays from ``origin`` ended, if they are others than ``points``.
    """

    points: np.ndarray
    origin: np.ndarray
    semantics: np.ndarray | None = None
    members: np.ndarray | None = None
    ray_ends: np.ndarray | None = None


@dataclass
class LabelSettings:
    """Rules of label making, lengths in metres.

    Attributes:
        min_range: Points closer to the sensor than this, measured horizontally, hit the ego vehicle and are dropped.
        ground_height: Points up to this far above the local ground belong to it.
        ground_cell: Edge of the cells in which the local ground is sought.
        ground_fill: Gaps in the ground are closed up to this distance from measured ground.
        box_margin: Points and voxels this far outside a box still belong to it.
        min_box_points: Boxes with fewer points are not filled.
        fill_boxes: Whether voxels in boxes are filled; without it an object is what its points are.
        ground_class, other_class: Names of the classes of points without box and semantics.
    """

    min_range: float = 2.5
    ground_height: float = 0.2
    ground_cell: float = 2.0
    ground_fill: float = 2.5
    box_margin: float = 0.1
    min_box_points: int = 1
    fill_boxes: bool = True
    ground_class: str = 'driveable_surface'
    other_class: str = 'manmade'


@dataclass
class OccLabel:
    """A voxel label: ``semantics`` (X, Y, Z) uint8, ``mask_lidar`` and ``mask_camera`` (X, Y, Z) bool."""

    semantics: np.ndarray
    mask_lidar: np.ndarray
    mask_camera: np.ndarray


def make_label(
    sweeps: Sequence[LidarSweep],
    record: FrameRecord,
    grid: VoxelGrid,
    image_wh: tuple[int, int] = (1600, 900),
    settings: LabelSettings | None = None,
) -> OccLabel:
    """Makes the label of one key frame, see the module.

    Args:
        sweeps: One or more sweeps, points in the LiDAR frame of the key frame.
        record: The key frame with its cameras and boxes.
        grid: Where to make the label; its frame may be ``lidar`` or ``ego``. Classes are matched by name.
        image_wh: Width and height of the images, pixels.
        settings: The rules.

    Raises:
        ValueError: If the record has no boxes, or a class that is needed is not one of the grid's.
    """
    settings = settings or LabelSettings()
    if record.boxes is None:
        raise ValueError(f'frame {record.token} was read without boxes; use read_info_file(..., with_boxes=True)')
    missing = ({settings.ground_class, settings.other_class} | set(record.boxes.names)) - set(grid.class_names)
    if missing:
        raise ValueError(f'grid.class_names lacks {sorted(missing)}, which label making needs')
    lidar2ref = record.lidar2ego if grid.frame == 'ego' else np.eye(4)

    points, classes, members, rays = [], [], [], []
    for sweep in sweeps:
        sweep = _without_ego_vehicle(sweep, settings.min_range)
        sweep_classes, sweep_members = classify_points(sweep, record.boxes, grid, settings)
        points.append(transform(lidar2ref, sweep.points))
        classes.append(sweep_classes)
        members.append(sweep_members)
        origin = transform(lidar2ref, np.asarray(sweep.origin, dtype=np.float64)[None])[0]
        rays.append((origin, points[-1] if sweep.ray_ends is None else transform(lidar2ref, sweep.ray_ends)))

    all_members = np.concatenate(members)
    semantics = _vote(np.concatenate(points), np.concatenate(classes), all_members >= 0, grid)
    hits = np.bincount(all_members[all_members >= 0], minlength=len(record.boxes.names))
    if settings.fill_boxes:
        _fill_boxes(semantics, record.boxes, hits >= settings.min_box_points, grid, lidar2ref, settings)
    touched = np.zeros(grid.shape, dtype=bool)
    for origin, ends in rays:
        mark_traversed(touched, _to_voxels(origin, grid), _to_voxels(ends, grid))
    _fill_ground(semantics, touched, grid, settings)

    occupied = semantics != grid.free_index
    mask_lidar = touched | occupied
    mask_camera = camera_visibility(occupied, mask_lidar, record, grid, image_wh)
    return OccLabel(semantics, mask_lidar, mask_camera)


def classify_points(
    sweep: LidarSweep, boxes: BoxRecord, grid: VoxelGrid, settings: LabelSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Class ids (P,) of a sweep's points, and (P,) the number of the box that the class is from, -1 if it is from none."""
    points = sweep.points
    ground_id, other_id = (grid.class_names.index(name) for name in (settings.ground_class, settings.other_class))
    inside = np.stack([in_box(points, box, settings.box_margin) for box in boxes.boxes] or [np.zeros(len(points), dtype=bool)])
    ground = points[:, 2] - ground_heights(points[~inside.any(0)], points, settings) <= settings.ground_height
    classes = np.where(ground, ground_id, other_id)
    if sweep.semantics is not None:
        # ids 1..16 are the same in lidarseg and in both benchmarks
        classes = np.where(sweep.semantics > 0, sweep.semantics, classes)
    if sweep.members is not None:
        known = sweep.members >= 0
        box_classes = np.array([grid.class_names.index(name) for name in boxes.names], dtype=np.int64)
        classes[known] = box_classes[sweep.members[known]]
        return classes, sweep.members
    members = np.full(len(points), -1, dtype=np.int64)
    for number, (box, name, hit) in enumerate(zip(boxes.boxes, boxes.names, inside)):
        # the street under a vehicle is not the vehicle; low things such as cones are kept whole, they have few points
        hit = hit & (~ground | (box[5] < 4 * settings.ground_height))
        classes[hit] = grid.class_names.index(name)
        members[hit] = number
    return classes, members


def ground_heights(support: np.ndarray, points: np.ndarray, settings: LabelSettings) -> np.ndarray:
    """Height of the ground below (or above) every point.

    A plane is fitted to the lowest points of the cells around the sensor, discarding cells that do not fit; where the lowest
    points of a cell lie near that plane, their height replaces the plane's.

    Args:
        support: (S, 3) points to estimate the ground from, metres, z up.
        points: (P, 3) where to evaluate it.
        settings: Uses ``ground_cell`` and ``ground_height``.

    Returns:
        (P,) metres.
    """
    if len(support) == 0:
        return np.full(len(points), -np.inf)
    cells, member = np.unique(_cell_keys(support, settings), return_inverse=True)
    member = member.reshape(-1)
    counts = np.bincount(member)
    order = np.lexsort((support[:, 2], member))
    first = np.searchsorted(member[order], np.arange(len(cells)))
    # the 10 % quantile, robust against stray echoes below the ground
    low = support[order[first + (counts * 0.1).astype(np.int64)], 2]
    centre = np.stack([np.bincount(member, support[:, axis]) / counts for axis in range(2)], axis=1)
    design = np.column_stack([centre, np.ones(len(centre))])
    distance = np.linalg.norm(centre, axis=1)

    near = (distance < 25) & (counts >= 3)
    near = near if near.sum() >= 3 else np.ones(len(cells), dtype=bool)
    plane = np.array([0.0, 0.0, np.median(low[near])])
    for tolerance in (1.0, 0.5, 0.3, 0.2, 0.2):
        residual = low - design @ plane
        # everything else stands on the ground, so outliers above are more likely than below
        used = near & (residual < tolerance) & (residual > -2 * tolerance)
        if used.sum() < 3:
            break
        plane = np.linalg.lstsq(design[used], low[used], rcond=None)[0]
    residual = low - design @ plane
    trusted = (np.abs(residual) < settings.ground_height + 0.015 * distance) & (counts >= 3)

    height = np.column_stack([points[:, :2], np.ones(len(points))]) @ plane
    keys = _cell_keys(points, settings)
    where = np.minimum(np.searchsorted(cells, keys), len(cells) - 1)
    local = (cells[where] == keys) & trusted[where]
    return np.where(local, low[where], height)


def _cell_keys(points: np.ndarray, settings: LabelSettings) -> np.ndarray:
    """One integer per point that names its ground cell."""
    cells = np.floor(points[:, :2] / settings.ground_cell).astype(np.int64)
    return cells[:, 0] * (1 << 20) + cells[:, 1]


def in_box(points: np.ndarray, box: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """(P,) bool: which points (P, 3) lie in ``box`` (x, y, z of the centre, l, w, h, yaw), enlarged by ``margin`` metres."""
    offset = points - box[:3]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    along = offset[:, 0] * cos + offset[:, 1] * sin
    across = offset[:, 1] * cos - offset[:, 0] * sin
    half = box[3:6] / 2 + margin
    return (np.abs(along) <= half[0]) & (np.abs(across) <= half[1]) & (np.abs(offset[:, 2]) <= half[2])


def camera_visibility(
    occupied: np.ndarray, candidates: np.ndarray, record: FrameRecord, grid: VoxelGrid, image_wh: tuple[int, int]
) -> np.ndarray:
    """(X, Y, Z) bool: candidate voxels whose centre lies in an image of ``record`` and that no occupied voxel hides."""
    ref2lidar = np.linalg.inv(record.lidar2ego) if grid.frame == 'ego' else np.eye(4)
    index = np.argwhere(candidates)
    centers = grid.index_to_point(index)
    visible = np.zeros(grid.shape, dtype=bool)
    for camera in record.cameras.values():
        ref2cam = camera.lidar2cam @ ref2lidar
        in_camera = transform(ref2cam, centers)
        front = in_camera[:, 2] > 1e-3
        pixels = in_camera[front] @ camera.cam2img.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        front[front] = ((pixels >= 0) & (pixels < np.array(image_wh))).all(1)
        origin = np.linalg.inv(ref2cam)[:3, 3]
        mark_visible(visible, occupied, _to_voxels(origin, grid), index[front])
    return visible


def _without_ego_vehicle(sweep: LidarSweep, min_range: float) -> LidarSweep:
    points = np.asarray(sweep.points, dtype=np.float64)
    keep = np.linalg.norm(points[:, :2] - np.asarray(sweep.origin)[:2], axis=1) >= min_range
    if sweep.members is not None:
        keep |= sweep.members >= 0
    semantics, members = (None if values is None else values[keep] for values in (sweep.semantics, sweep.members))
    return LidarSweep(points[keep], sweep.origin, semantics, members, sweep.ray_ends)


def _vote(points: np.ndarray, classes: np.ndarray, from_box: np.ndarray, grid: VoxelGrid) -> np.ndarray:
    """Most frequent class per voxel; a point of a box counts more than any number of others."""
    index, inside = grid.point_to_index(points)
    flat = np.ravel_multi_index(tuple(index[inside].T), grid.shape)
    weight = np.where(from_box[inside], len(points) + 1, 1)
    votes, where = np.unique(flat * grid.num_classes + classes[inside], return_inverse=True)
    count = np.bincount(where.reshape(-1), weights=weight, minlength=len(votes))
    order = np.argsort(count, kind='stable')  # the winner is written last
    semantics = np.full(grid.num_voxels, grid.free_index, dtype=np.uint8)
    for_voxel, class_id = votes[order] // grid.num_classes, votes[order] % grid.num_classes
    semantics[for_voxel] = class_id
    return semantics.reshape(grid.shape)


def _fill_boxes(
    semantics: np.ndarray,
    boxes: BoxRecord,
    hit: np.ndarray,
    grid: VoxelGrid,
    lidar2ref: np.ndarray,
    settings: LabelSettings,
) -> None:
    """Gives the voxels whose centre lies in a box that was hit (K,) bool the box's class."""
    ref2lidar = np.linalg.inv(lidar2ref)
    signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
    for box, name in ((boxes.boxes[index], boxes.names[index]) for index in np.flatnonzero(hit)):
        cos, sin = np.cos(box[6]), np.sin(box[6])
        half = signs * (box[3:6] / 2 + settings.box_margin)
        corners = box[:3] + half @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
        index, _ = grid.point_to_index(transform(lidar2ref, corners))
        first, last = np.maximum(index.min(0), 0), np.minimum(index.max(0) + 1, grid.shape)
        if (first >= last).any():
            continue
        around = np.stack(np.meshgrid(*map(np.arange, first, last), indexing='ij'), axis=-1).reshape(-1, 3)
        inside = in_box(transform(ref2lidar, grid.index_to_point(around)), box, settings.box_margin)
        semantics[tuple(around[inside].T)] = grid.class_names.index(name)


def _fill_ground(semantics: np.ndarray, touched: np.ndarray, grid: VoxelGrid, settings: LabelSettings) -> None:
    """Closes gaps between measured ground voxels, column by column.

    A gap is where nothing else is at that height and a ray passed close above, so that nothing is invented behind walls.
    """
    ground_ids = [
        index
        for index, name in enumerate(grid.class_names)
        if name in ('driveable_surface', 'other_flat', 'sidewalk', 'terrain', settings.ground_class)
    ]
    ground = np.isin(semantics, ground_ids)
    known = ground.any(2)
    if not known.any():
        return
    level = ground.argmax(2)
    distance, (near_x, near_y) = ndimage.distance_transform_edt(~known, sampling=grid.voxel_size[:2], return_indices=True)
    x, y = np.nonzero((distance > 0) & (distance <= settings.ground_fill))
    z = level[near_x[x, y], near_y[x, y]]
    top = grid.shape[2] - 1
    passed = touched[x, y, z] | touched[x, y, np.minimum(z + 1, top)] | touched[x, y, np.minimum(z + 2, top)]
    gap = passed & (semantics[x, y, z] == grid.free_index)
    x, y, z = x[gap], y[gap], z[gap]
    semantics[x, y, z] = semantics[near_x[x, y], near_y[x, y], z]


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (P, 3) moved by a (4, 4) matrix."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _to_voxels(points: np.ndarray, grid: VoxelGrid) -> np.ndarray:
    return np.ascontiguousarray((points - np.asarray(grid.lower)) / np.asarray(grid.voxel_size))
