"""Ray casting through the world's voxels and through oriented voxel models (digital differential analysers in numba).

All kernels are single threaded and release the GIL, so that frames run in parallel threads with bitwise equal results.
Numba caches compiled code per file: after a change here, touch ``shading.py`` too, which calls these functions.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

BLOCK = 8  # edge of the blocks used to skip empty space, in voxels
_STEP = 1e-5  # metres added to a position on a face so that it falls into the next voxel


class ObjectArrays(NamedTuple):
    """K oriented voxel models at one moment, world frame, metres.

    centre (K, 3) of the box; cos_sin (K, 2) of the yaw; half (K, 3) half edges; radius (K,) of the bounding sphere; voxel (K,)
    edge; dims (K, 3) int64; offset (K,) int64 into ``data``; data (sum of voxels,) uint8 material ids, z fastest.
    """

    centre: np.ndarray
    cos_sin: np.ndarray
    half: np.ndarray
    radius: np.ndarray
    voxel: np.ndarray
    dims: np.ndarray
    offset: np.ndarray
    data: np.ndarray


@njit(cache=True, nogil=True)
def _clip(o, d, size, t0, t1):
    """Part of [t0, t1] in which o + t d lies in [0, size]."""
    if d > 0.0:
        return max(t0, -o / d), min(t1, (size - o) / d)
    if d < 0.0:
        return max(t0, (size - o) / d), min(t1, -o / d)
    if o < 0.0 or o >= size:
        return 1.0, 0.0
    return t0, t1


@njit(cache=True, nogil=True)
def _dda(volume, base, dims, lo, hi, o, d, t, t1, axis):
    """Walks voxels of ``volume`` (flat, at ``base``) inside the index box lo..hi from ``t`` on.

    Returns (hit, t, axis, ix, iy, iz): the first non-zero voxel, or where the box was left.
    """
    ix, iy, iz = (
        int(np.floor(o[0] + d[0] * (t + _STEP))),
        int(np.floor(o[1] + d[1] * (t + _STEP))),
        int(np.floor(o[2] + d[2] * (t + _STEP))),
    )
    ix, iy, iz = min(max(ix, lo[0]), hi[0] - 1), min(max(iy, lo[1]), hi[1] - 1), min(max(iz, lo[2]), hi[2] - 1)
    big = 1e30
    sx, sy, sz = (1 if d[0] > 0 else -1), (1 if d[1] > 0 else -1), (1 if d[2] > 0 else -1)
    dx = abs(1.0 / d[0]) if d[0] != 0.0 else big
    dy = abs(1.0 / d[1]) if d[1] != 0.0 else big
    dz = abs(1.0 / d[2]) if d[2] != 0.0 else big
    tx = (ix + (sx > 0) - o[0]) / d[0] if d[0] != 0.0 else big
    ty = (iy + (sy > 0) - o[1]) / d[1] if d[1] != 0.0 else big
    tz = (iz + (sz > 0) - o[2]) / d[2] if d[2] != 0.0 else big
    while True:
        if volume[base + (ix * dims[1] + iy) * dims[2] + iz] != 0:
            return True, t, axis, ix, iy, iz
        if tx <= ty and tx <= tz:
            t = tx
            tx += dx
            ix += sx
            axis = 0
            if ix < lo[0] or ix >= hi[0]:
                break
        elif ty <= tz:
            t = ty
            ty += dy
            iy += sy
            axis = 1
            if iy < lo[1] or iy >= hi[1]:
                break
        else:
            t = tz
            tz += dz
            iz += sz
            axis = 2
            if iz < lo[2] or iz >= hi[2]:
                break
        if t > t1:
            break
    return False, t, axis, ix, iy, iz


@njit(cache=True, nogil=True)
def trace_static(flat, dims, coarse, o, d, t_max):
    """First non-empty voxel of the world along a ray.

    Args:
        flat: World voxels, flattened, z fastest.
        dims: Their shape.
        coarse: Distance in blocks to the next non-empty block (0 = not empty), per block.
        o: Origin in voxels.
        d: Direction in voxels per metre.
        t_max: Length of the ray, metres.

    Returns:
        (t in metres or -1, material, axis of the face, ix, iy, iz).
    """
    t, t1 = 0.0, t_max
    axis = 2
    enter = 0.0
    for a in range(3):
        before = enter
        enter, t1 = _clip(o[a], d[a], float(dims[a]), enter, t1)
        if enter > before:
            axis = a
    t = enter
    lo = np.empty(3, np.int64)
    hi = np.empty(3, np.int64)
    while t < t1:
        skip = 0
        for a in range(3):
            index = int(np.floor(o[a] + d[a] * (t + _STEP)))
            index = min(max(index, 0), dims[a] - 1)
            lo[a] = index // BLOCK
        skip = coarse[lo[0], lo[1], lo[2]]
        if skip > 0:
            exit_t = 1e30
            for a in range(3):
                if d[a] > 0.0:
                    face = ((lo[a] + skip) * BLOCK - o[a]) / d[a]
                elif d[a] < 0.0:
                    face = ((lo[a] - skip + 1) * BLOCK - o[a]) / d[a]
                else:
                    continue
                if face < exit_t:
                    exit_t = face
                    axis = a
            t = max(exit_t, t) + _STEP
            continue
        for a in range(3):
            lo[a] *= BLOCK
            hi[a] = min(lo[a] + BLOCK, dims[a])
        hit, t, axis, ix, iy, iz = _dda(flat, 0, dims, lo, hi, o, d, t, t1, axis)
        if hit:
            return t, flat[(ix * dims[1] + iy) * dims[2] + iz], axis, ix, iy, iz
    return -1.0, 0, 0, 0, 0, 0


@njit(cache=True, nogil=True)
def trace_objects(objects, active, origin, direction, t_max):
    """First voxel of the objects ``active`` (indices) along a ray in world metres: (t or -1, material, object, axis)."""
    best, best_material, best_object, best_axis = t_max, 0, -1, 0
    o = np.empty(3)
    d = np.empty(3)
    lo = np.zeros(3, np.int64)
    for k in active:
        rx, ry, rz = objects.centre[k, 0] - origin[0], objects.centre[k, 1] - origin[1], objects.centre[k, 2] - origin[2]
        along = rx * direction[0] + ry * direction[1] + rz * direction[2]
        radius = objects.radius[k]
        if along < -radius or along - radius > best:
            continue
        if rx * rx + ry * ry + rz * rz - along * along > radius * radius:
            continue
        c, s = objects.cos_sin[k, 0], objects.cos_sin[k, 1]
        voxel = objects.voxel[k]
        o[0] = (-c * rx - s * ry + objects.half[k, 0]) / voxel
        o[1] = (s * rx - c * ry + objects.half[k, 1]) / voxel
        o[2] = (-rz + objects.half[k, 2]) / voxel
        d[0] = (c * direction[0] + s * direction[1]) / voxel
        d[1] = (-s * direction[0] + c * direction[1]) / voxel
        d[2] = direction[2] / voxel
        t0, t1 = 0.0, best
        axis = 2
        for a in range(3):
            before = t0
            t0, t1 = _clip(o[a], d[a], float(objects.dims[k, a]), t0, t1)
            if t0 > before:
                axis = a
        if t0 >= t1:
            continue
        dims = objects.dims[k]
        hit, t, axis, ix, iy, iz = _dda(objects.data, objects.offset[k], dims, lo, dims, o, d, t0, t1, axis)
        if hit and t < best:
            best, best_object, best_axis = t, k, axis
            best_material = objects.data[objects.offset[k] + (ix * dims[1] + iy) * dims[2] + iz]
    if best_object < 0:
        return -1.0, 0, -1, 0
    return best, best_material, best_object, best_axis


@njit(cache=True, nogil=True)
def _smooth_normal(flat, dims, ix, iy, iz, out):
    """Direction from filled to empty voxels in a 5x5x5 neighbourhood: round crowns and walls at any angle shade smoothly."""
    nx, ny, nz = 0.0, 0.0, 0.0
    for a in range(-2, 3):
        x = min(max(ix + a, 0), dims[0] - 1)
        for b in range(-2, 3):
            y = min(max(iy + b, 0), dims[1] - 1)
            row = (x * dims[1] + y) * dims[2]
            for c in range(-2, 3):
                z = iz + c
                if z < 0 or (z < dims[2] and flat[row + z] != 0):
                    nx -= a
                    ny -= b
                    nz -= c
    norm = np.sqrt(nx * nx + ny * ny + nz * nz)
    if norm > 1e-6:
        out[0] = 0.35 * out[0] + 0.65 * nx / norm
        out[1] = 0.35 * out[1] + 0.65 * ny / norm
        out[2] = 0.35 * out[2] + 0.65 * nz / norm
        norm = np.sqrt(out[0] ** 2 + out[1] ** 2 + out[2] ** 2)
        if norm > 1e-6:
            for a in range(3):
                out[a] /= norm


@njit(cache=True, nogil=True)
def cast_rays(flat, dims, coarse, lower, voxel, objects, active, origins, directions, t_max, t, material, obj, normal):
    """Casts R rays into the world and its objects.

    Args:
        flat, dims, coarse, lower, voxel: The static world, see :class:`~.world.World`; lower corner and voxel edge in metres.
        objects: :class:`ObjectArrays`.
        active: (A,) int64 indices of the objects that may be hit.
        origins: (R, 3) or (1, 3) for a common origin, world metres.
        directions: (R, 3) unit vectors.
        t_max: Length of the rays, metres.
        t: Output (R,) float32, distance in metres, -1 = nothing hit.
        material: Output (R,) uint8.
        obj: Output (R,) int32 object index, -1 = static world.
        normal: Output (R, 3) float32 surface normals; pass an array of length 0 if they are not needed.
    """
    o = np.empty(3)
    d = np.empty(3)
    n = np.empty(3)
    for r in range(len(directions)):
        origin = origins[r if len(origins) > 1 else 0]
        direction = directions[r]
        for a in range(3):
            o[a] = (origin[a] - lower[a]) / voxel
            d[a] = direction[a] / voxel
        ts, ms, axis, ix, iy, iz = trace_static(flat, dims, coarse, o, d, t_max)
        limit = ts if ts >= 0.0 else t_max
        to, mo, k, object_axis = trace_objects(objects, active, origin, direction, limit)
        if k >= 0:
            t[r], material[r], obj[r] = to, mo, k
        else:
            t[r], material[r], obj[r] = ts, ms, -1
        if len(normal) == 0 or t[r] < 0:
            continue
        n[:] = 0.0
        if k >= 0:
            c, s = objects.cos_sin[k, 0], objects.cos_sin[k, 1]
            if object_axis == 0:
                n[0], n[1] = c, s
            elif object_axis == 1:
                n[0], n[1] = -s, c
            else:
                n[2] = 1.0
            if n[0] * direction[0] + n[1] * direction[1] + n[2] * direction[2] > 0:
                for a in range(3):
                    n[a] = -n[a]
        else:
            n[axis] = -1.0 if direction[axis] > 0 else 1.0
            _smooth_normal(flat, dims, ix, iy, iz, n)
        for a in range(3):
            normal[r, a] = n[a]
