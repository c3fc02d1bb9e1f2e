"""Rays through a voxel grid, as RayIoU casts them (SparseOcc, lib/dvr; arXiv 2312.17118)."""

import math

import numba
import numpy as np

MAX_STEPS = 1001
NUM_AZIMUTHS = 360


def ray_pitches() -> np.ndarray:
    """Pitch angles of the query rays, (39,) float64, radians.

    The first ten meet a plane one metre below at distances of 1 to 10 m; then the last step is repeated up to 0.21 rad.
    """
    pitches = [math.atan(k) - math.pi / 2 for k in range(1, 11)]
    step = pitches[-1] - pitches[-2]
    while pitches[-1] < 0.21:
        pitches.append(pitches[-1] + step)
    return np.array(pitches)


def ray_directions() -> np.ndarray:
    """Unit directions of the query rays, (39 * 360, 3) float32, pitch-major, x forward, y left, z up."""
    pitch = ray_pitches()[:, None]
    azimuth = np.deg2rad(np.arange(NUM_AZIMUTHS))[None]
    directions = (
        np.cos(pitch) * np.cos(azimuth),
        np.cos(pitch) * np.sin(azimuth),
        np.broadcast_to(np.sin(pitch), (len(pitch), NUM_AZIMUTHS)),
    )
    return np.stack(directions, axis=-1).reshape(-1, 3).astype(np.float32)


def cast_rays(
    labels: np.ndarray, origins: np.ndarray, ends: np.ndarray, free_index: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follows rays to the first occupied voxel.

    A ray starts in the cell that its origin truncates to (towards zero) and visits cell after cell, ties between axes going
    to the later axis. It ends in the first occupied cell, or in the last cell of the grid; its depth is where it *leaves*
    that cell. A ray that never meets the grid has depth -1 and the label of voxel (0, 0, 0), as in the original.

    Args:
        labels: (X, Y, Z) uint8 class ids.
        origins: (R, 3) float32, voxel units: the lower corner of the grid is 0, a voxel is 1 wide.
        ends: (R, 3) float32, voxel units; another point on each ray, different from its origin.
        free_index: Id of empty space.

    Returns:
        Depths (R,) float64 in voxel units, labels (R,) uint8 and cells (R, 3) int64.
    """
    labels = np.ascontiguousarray(labels, dtype=np.uint8)
    origins = np.ascontiguousarray(origins, dtype=np.float32)
    ends = np.ascontiguousarray(ends, dtype=np.float32)
    if origins.ndim != 2 or origins.shape != ends.shape or origins.shape[1] != 3:
        raise ValueError(f'origins and ends must both be (R, 3), got {origins.shape} and {ends.shape}')
    depths = np.empty(len(origins))
    cells = np.empty((len(origins), 3), dtype=np.int64)
    _cast(labels, origins, ends, free_index, depths, cells)
    return depths, labels[cells[:, 0], cells[:, 1], cells[:, 2]], cells


@numba.njit(cache=True, inline='always')
def next_axis(t_x, t_y, t_z):
    """Axis across which a ray leaves its cell, from the ranges of the three next borders; ties go to the later axis."""
    if t_x < t_y:
        return 0 if t_x < t_z else 2
    return 1 if t_y < t_z else 2


@numba.njit(cache=True, parallel=True, error_model='numpy')
def _cast(labels, origins, ends, free_index, depths, cells):
    nx, ny, nz = labels.shape
    for r in numba.prange(len(origins)):
        ox, oy, oz = np.float64(origins[r, 0]), np.float64(origins[r, 1]), np.float64(origins[r, 2])
        dx, dy, dz = np.float64(ends[r, 0]) - ox, np.float64(ends[r, 1]) - oy, np.float64(ends[r, 2]) - oz
        length = math.sqrt(dx * dx + dy * dy + dz * dz)
        dx, dy, dz = dx / length, dy / length, dz / length
        x, y, z = int(ox), int(oy), int(oz)
        step_x, step_y, step_z = 1 if dx >= 0 else -1, 1 if dy >= 0 else -1, 1 if dz >= 0 else -1
        t_x = (x + (step_x > 0) - ox) / dx if dx != 0 else np.inf
        t_y = (y + (step_y > 0) - oy) / dy if dy != 0 else np.inf
        t_z = (z + (step_z > 0) - oz) / dz if dz != 0 else np.inf
        delta_x = step_x / dx if dx != 0 else np.inf
        delta_y = step_y / dy if dy != 0 else np.inf
        delta_z = step_z / dz if dz != 0 else np.inf
        depth = -1.0
        cx, cy, cz = 0, 0, 0
        entered = False
        for _ in range(MAX_STEPS):
            inside = 0 <= x < nx and 0 <= y < ny and 0 <= z < nz
            if entered and not inside:
                break
            axis = next_axis(t_x, t_y, t_z)
            leave = t_x if axis == 0 else (t_y if axis == 1 else t_z)
            if inside:
                entered = True
                depth, cx, cy, cz = leave, x, y, z
                if labels[x, y, z] != free_index:
                    break
            if axis == 0:
                x += step_x
                t_x += delta_x
            elif axis == 1:
                y += step_y
                t_y += delta_y
            else:
                z += step_z
                t_z += delta_z
        depths[r] = depth
        cells[r, 0], cells[r, 1], cells[r, 2] = cx, cy, cz
