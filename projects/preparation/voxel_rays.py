"""Rays through a voxel grid: what a LiDAR or a camera has seen (Amanatides and Woo's traversal, compiled by numba).

All coordinates are in voxels: a point of the grid frame minus ``grid.lower``, divided by ``grid.voxel_size``.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _enter(origin, direction, shape):
    """Parameters [t0, t1] within [0, 1] in which ``origin + t * direction`` is inside the grid; t0 > t1 if never."""
    t0, t1 = 0.0, 1.0
    for axis in range(3):
        o, d, n = origin[axis], direction[axis], float(shape[axis])
        if d == 0.0:
            if o < 0.0 or o >= n:
                return 1.0, 0.0
            continue
        a, b = -o / d, (n - o) / d
        t0, t1 = max(t0, min(a, b)), min(t1, max(a, b))
    return t0, t1


@njit(cache=True, nogil=True)
def _start(origin, direction, shape, t0, index, step, t_next, t_delta):
    """Fills the state of a traversal that begins at parameter ``t0``."""
    for axis in range(3):
        o, d = origin[axis], direction[axis]
        cell = int(np.floor(o + t0 * d))
        index[axis] = min(max(cell, 0), shape[axis] - 1)
        if d > 0.0:
            step[axis], t_delta[axis], t_next[axis] = 1, 1.0 / d, (index[axis] + 1 - o) / d
        elif d < 0.0:
            step[axis], t_delta[axis], t_next[axis] = -1, -1.0 / d, (index[axis] - o) / d
        else:
            step[axis], t_delta[axis], t_next[axis] = 0, np.inf, np.inf


@njit(cache=True, nogil=True)
def _advance(index, step, t_next, t_delta):
    """Moves to the next voxel and returns the parameter at which it is entered."""
    axis = 0
    if t_next[1] < t_next[axis]:
        axis = 1
    if t_next[2] < t_next[axis]:
        axis = 2
    t = t_next[axis]
    index[axis] += step[axis]
    t_next[axis] += t_delta[axis]
    return t


@njit(cache=True, nogil=True)
def _inside(index, shape):
    return 0 <= index[0] < shape[0] and 0 <= index[1] < shape[1] and 0 <= index[2] < shape[2]


@njit(cache=True, nogil=True)
def mark_traversed(seen: np.ndarray, origin: np.ndarray, points: np.ndarray) -> None:
    """Marks every voxel that the straight ways from ``origin`` to ``points`` touch, the last one included.

    Args:
        seen: (X, Y, Z) bool, changed in place.
        origin: (3,) float64, voxels; may lie outside.
        points: (P, 3) float64, voxels; may lie outside.
    """
    shape = seen.shape
    index, step = np.zeros(3, np.int64), np.zeros(3, np.int64)
    t_next, t_delta = np.zeros(3), np.zeros(3)
    for p in range(points.shape[0]):
        direction = points[p] - origin
        t0, t1 = _enter(origin, direction, shape)
        if t0 > t1:
            continue
        _start(origin, direction, shape, t0, index, step, t_next, t_delta)
        t = t0
        while t <= t1 and _inside(index, shape):
            seen[index[0], index[1], index[2]] = True
            t = _advance(index, step, t_next, t_delta)


@njit(cache=True, nogil=True)
def _reaches(occupied, origin, point, target, index, step, t_next, t_delta):
    """Whether the way from ``origin`` to ``point`` in voxel ``target`` crosses no occupied voxel before ``target``."""
    shape = occupied.shape
    direction = point - origin
    t0, t1 = _enter(origin, direction, shape)
    if t0 > t1:
        return False
    _start(origin, direction, shape, t0, index, step, t_next, t_delta)
    t = t0
    while t <= t1 and _inside(index, shape):
        if index[0] == target[0] and index[1] == target[1] and index[2] == target[2]:
            return True
        if occupied[index[0], index[1], index[2]]:
            return False
        t = _advance(index, step, t_next, t_delta)
    return False


@njit(cache=True, nogil=True)
def mark_visible(visible: np.ndarray, occupied: np.ndarray, origin: np.ndarray, candidates: np.ndarray) -> None:
    """Marks the candidate voxels that are seen from ``origin`` with no other occupied voxel in between.

    Looked at are the voxel's centre and the centres of the faces that are turned to ``origin``: on a flat road the way to the
    centre of a voxel leads through its neighbours, the way to its upper face does not.

    Args:
        visible: (X, Y, Z) bool, changed in place.
        occupied: (X, Y, Z) bool.
        origin: (3,) float64, voxels; may lie outside.
        candidates: (K, 3) int64 voxel indices.
    """
    index, step = np.zeros(3, np.int64), np.zeros(3, np.int64)
    t_next, t_delta = np.zeros(3), np.zeros(3)
    inset = 1e-3  # keeps a face's centre inside its voxel
    for k in range(candidates.shape[0]):
        target = candidates[k]
        seen = _reaches(occupied, origin, target + 0.5, target, index, step, t_next, t_delta)
        for axis in range(3):
            if seen:
                break
            point = target + 0.5
            if origin[axis] > target[axis] + 1:
                point[axis] = target[axis] + 1 - inset
            elif origin[axis] < target[axis]:
                point[axis] = target[axis] + inset
            else:
                continue
            seen = _reaches(occupied, origin, point, target, index, step, t_next, t_delta)
        if seen:
            visible[target[0], target[1], target[2]] = True
