"""Occupancy labels and visibility masks of a key frame, sampled from the same world the images show."""

from dataclasses import dataclass

import numpy as np
from numba import njit

from projects.occ.structures import VoxelGrid
from projects.preparation.voxel_rays import mark_traversed

from .class_maps import NUSCENES_MAP, ClassMap
from .config import CLASS_ID, FREE
from .geometry import rotate, transform
from .ray_cast import ObjectArrays
from .world import World

# A voxel is occupied if surface of this share of one of its faces, times the class's weight, lies in it.
_MIN_COVER = 0.08
# Rays of the survey that must meet an object before all of it is labelled.
_MIN_HITS = 3


@dataclass
class Survey:
    """What a LiDAR saw of the world at the time of a key frame.

    Attributes:
        rays: Triples of origin (3,), directions (R, 3) and lengths (R,), world frame, metres.
        met: (K,) bool, objects hit often enough.
    """

    rays: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    met: np.ndarray


@njit(cache=True, nogil=True)
def _vote(votes, points, classes, weights, lower, size):
    shape = votes.shape
    for p in range(len(points)):
        ix = int(np.floor((points[p, 0] - lower[0]) / size[0]))
        iy = int(np.floor((points[p, 1] - lower[1]) / size[1]))
        iz = int(np.floor((points[p, 2] - lower[2]) / size[2]))
        if 0 <= ix < shape[0] and 0 <= iy < shape[1] and 0 <= iz < shape[2]:
            votes[ix, iy, iz, classes[p]] += weights[p]


def survey(world: World, objects: ObjectArrays, origins: list[np.ndarray], directions: np.ndarray) -> Survey:
    """Casts a dense scan from every LiDAR pose.

    Args:
        world: The scene.
        objects: The objects at the time of the key frame.
        origins: (4, 4) LiDAR -> world poses.
        directions: (R, 3) LiDAR frame.
    """
    active = np.arange(len(world.actors), dtype=np.int64)
    counts = np.zeros(len(active), dtype=np.int64)
    rays = []
    for pose in origins:
        world_directions = rotate(directions, pose[:3, :3])
        hits = world.cast(objects, pose[:3, 3], world_directions, active)
        counts += np.bincount(hits.obj[hits.obj >= 0], minlength=len(active))
        rays.append((pose[:3, 3], world_directions, ray_lengths(world, hits.t)))
    return Survey(rays, counts >= _MIN_HITS)


def ray_lengths(world: World, t: np.ndarray) -> np.ndarray:
    """Lengths of the seen part of rays: to the hit and a hair into it, or the view distance if nothing was met."""
    return np.where(t >= 0, t + 0.01, world.config.view_distance)


def seen(grid: VoxelGrid, world2label: np.ndarray, rays) -> np.ndarray:
    """Voxels passed by any of the rays up to and including where they end, (X, Y, Z) bool.

    Args:
        grid: The label grid.
        world2label: (4, 4).
        rays: Triples (origin (3,), directions (R, 3), lengths (R,)) in the world frame.
    """
    mask = np.zeros(grid.shape, dtype=bool)
    lower, size = np.asarray(grid.lower), np.asarray(grid.voxel_size)
    for origin, directions, lengths in rays:
        start = transform(origin[None], world2label)[0]
        ends = start + rotate(directions, world2label[:3, :3]) * lengths[:, None]
        mark_traversed(mask, (start - lower) / size, (ends - lower) / size)
    return mask


def label_volume(
    world: World,
    objects: ObjectArrays,
    grid: VoxelGrid,
    world2label: np.ndarray,
    look: Survey,
    classes: ClassMap = NUSCENES_MAP,
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and LiDAR visibility of one key frame.

    As in the benchmarks, only surfaces that the (accumulated) LiDAR saw are labelled; objects it saw are completed.

    Args:
        world: The scene.
        objects: The objects at the time of the key frame.
        grid: The label grid.
        world2label: (4, 4) world -> label frame.
        look: The accumulated LiDAR view.
        classes: Classes to give.

    Returns:
        Classes (X, Y, Z) uint8, ``classes.free`` where nothing is; and the voxels seen by the LiDAR (X, Y, Z) bool.
    """
    size, lower = np.asarray(grid.voxel_size), np.asarray(grid.lower)
    face = float(np.sort(size)[:2].prod())
    votes = np.zeros((*grid.shape, len(classes.weights)), dtype=np.float32)
    centre = np.linalg.inv(world2label)[:3, 3]
    reach = float(np.linalg.norm(np.maximum(np.abs(grid.lower), np.abs(grid.upper)))) + 1.0
    near = (np.abs(world.surface[:, :2] - centre[:2]) < reach).all(axis=1)

    def splat(points, point_classes, cover):
        weights = (classes.weights * np.float32(cover))[point_classes]
        _vote(votes, transform(points, world2label), point_classes, weights, lower, size)

    splat(world.surface[near], classes.material[world.surface_material[near]], world.voxel**2 / face)
    observed = seen(grid, world2label, look.rays)
    complete = np.zeros(grid.shape, dtype=bool)
    for k in np.flatnonzero(np.hypot(*(objects.centre[:, :2] - centre[:2]).T) < reach + objects.radius):
        cover = float(objects.voxel[k] ** 2) / face
        points = _object_points(world, objects, k)
        splat(points, np.full(len(points), classes.objects[world.actors[k].name], dtype=np.uint8), cover)
        if look.met[k]:
            index, valid = grid.point_to_index(transform(points, world2label))
            complete[tuple(index[valid].T)] = True
    best = votes.argmax(axis=-1).astype(np.uint8)
    occupied = np.take_along_axis(votes, best[..., None].astype(np.int64), axis=-1)[..., 0] >= _MIN_COVER
    occupied &= observed | (complete & classes.things[best])
    return np.where(occupied, best, np.uint8(classes.free)), observed


def _object_points(world: World, objects: ObjectArrays, k: int) -> np.ndarray:
    """Surface samples of object ``k``, (P, 3) float32, world frame."""
    local = world.actor_surface[k] - objects.half[k].astype(np.float32)
    c, s = objects.cos_sin[k]
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=np.float32)
    return rotate(local, rotation) + objects.centre[k].astype(np.float32)


def to_surroundocc(classes: np.ndarray, grid: VoxelGrid, rng: np.random.Generator, noise: float = 0.004) -> np.ndarray:
    """Changes the generator's classes (X, Y, Z) to SurroundOcc's.

    Free voxels become ``grid.free_index``; class 'others' and a random share ``noise`` of the occupied voxels become
    ``grid.ignore_index``, as the benchmark's noise points do.
    """
    labels = classes.copy()
    labels[classes == FREE] = grid.free_index
    labels[(classes == CLASS_ID['others']) | ((classes != FREE) & (rng.random(classes.shape) < noise))] = grid.ignore_index
    return labels


def to_kitti360(classes: np.ndarray, observed: np.ndarray, rng: np.random.Generator, noise: float = 0.004) -> np.ndarray:
    """Adds what SSCBench-KITTI-360 ignores to its classes (X, Y, Z): empty voxels that were not ``observed`` (X, Y, Z), and a
    random share ``noise`` of the occupied ones, as the benchmark's outliers; they become 255."""
    labels = classes.copy()
    labels[((classes == 0) & ~observed) | ((classes != 0) & (rng.random(classes.shape) < noise))] = 255
    return labels
