"""How a prediction fills rays: what lies in front of, at and behind a known surface, and how far a surface is smeared."""

import math

import numba
import numpy as np
from torch import Tensor

from ...structures import VoxelGrid
from .ray_casting import next_axis

Array = np.ndarray | Tensor

FIELD_QUANTITIES = ('front', 'hit', 'behind', 'miss', 'spread', 'surfaces')
LABEL_QUANTITIES = ('front', 'hit', 'behind', 'surfaces', 'thickness')
# rays that are hardly covered have no spread: their few weights lie anywhere
MIN_COVERAGE = 0.05
SURFACE_OPACITY = 0.5
FREE, OCCUPIED, UNKNOWN = 0, 1, 2


def ray_profile(
    prediction: Array,
    grid: VoxelGrid,
    origins: Array,
    directions: Array,
    reference: Array,
    unknown: Array | None = None,
) -> dict[str, np.ndarray]:
    """Profiles of rays whose surface is known, with the longest voxel edge v as tolerance.

    Of opacities, every ray has samples v / 2 apart, from where it enters the grid (or begins) to where it leaves it; the voxel
    of a sample gives its step opacity ``1 - (1 - opacity) ** (1 / 2)``. A surface is a run of samples with a step opacity of
    0.5 or more; runs less than v apart are one.

    Of class ids, every ray visits the cells that it crosses, as RayIoU does; a surface is a run of occupied cells.

    Args:
        prediction: (X, Y, Z): floating, the opacity in [0, 1] of a voxel that a ray crosses along an edge of length v; or
            integer, class ids.
        grid: Voxel grid.
        origins: (R, 3), metres, in ``grid.frame``; they may lie outside the grid.
        directions: (R, 3), not zero; they are normalised.
        reference: (R,), range d of the true surface, metres, > 0.
        unknown: (X, Y, Z) bool, voxels that are taken as free whatever was predicted, or None. Of class ids only.

    Returns:
        Arrays (R,) float64. Of opacities: ``front``, ``hit``, ``behind``, the sums of blending weights at ranges below d - v,
        within d - v..d + v and above d + v; ``miss``, what light is left; ``spread``, the standard deviation of the ranges,
        metres, NaN where all weights together are below 0.05; ``surfaces``, their number. Of class ids: ``front`` (the first
        run ends before d - v), ``behind`` (it begins after d + v, or there is none), ``hit`` (else), each 0 or 1;
        ``surfaces``; ``thickness``, the length of the first run, metres, NaN if there is none.

    Raises:
        ValueError: If shapes do not fit, or opacities, rays or ranges are out of range or not finite.
    """
    prediction = _array(prediction)
    if tuple(prediction.shape) != grid.shape:
        raise ValueError(f'ray_profile: prediction must have the grid shape {grid.shape}, got {tuple(prediction.shape)}')
    start, step, reference = _rays(grid, origins, directions, reference)
    tolerance = max(grid.voxel_size)
    if prediction.dtype.kind == 'f':
        opacity = prediction.astype(np.float64)
        if not ((opacity >= 0) & (opacity <= 1)).all():
            raise ValueError('ray_profile: opacities must lie in 0..1; give activated opacities, or class ids as integers')
        values = np.empty((len(FIELD_QUANTITIES), len(start)))
        _profile_field(1 - np.sqrt(1 - opacity), start, step, reference, tolerance, values)
        return dict(zip(FIELD_QUANTITIES, values, strict=True))
    if prediction.dtype.kind not in 'iu':
        raise ValueError(f'ray_profile: prediction must be opacities (floating) or class ids, got {prediction.dtype}')
    grid.check_labels(prediction, 'ray_profile: prediction')
    codes = _codes(prediction, grid)
    if unknown is not None:
        codes[_array(unknown).astype(bool)] = UNKNOWN
    begin, end, runs, _, _ = _runs_of(codes, start, step)
    with np.errstate(invalid='ignore'):
        front = end < reference - tolerance
        behind = ~(begin <= reference + tolerance)
    return dict(
        front=front.astype(np.float64),
        hit=(~(front | behind)).astype(np.float64),
        behind=behind.astype(np.float64),
        surfaces=runs.astype(np.float64),
        thickness=end - begin,
    )


def first_surfaces(labels: Array, grid: VoxelGrid, origins: Array, directions: Array) -> tuple[np.ndarray, np.ndarray]:
    """The first surface of every ray in a label grid.

    Args:
        labels: (X, Y, Z) integer class ids and ``grid.ignore_index``.
        grid: Voxel grid.
        origins: (R, 3), metres, in ``grid.frame``.
        directions: (R, 3), not zero.

    Returns:
        (R,) float64, ranges at which rays enter their first occupied cell, metres; and (R,) int64, its class. A ray that meets
        nothing, begins in an occupied cell, or crosses an ignored cell first, has NaN and ``grid.ignore_index``.

    Raises:
        ValueError: If shapes or ids do not fit.
    """
    labels = _array(labels)
    grid.check_labels(labels, 'first_surfaces: labels')
    start, step, _ = _rays(grid, origins, directions, None)
    begin, _, _, cells, blocked = _runs_of(_codes(labels, grid), start, step)
    known = (begin > 0) & ~blocked
    classes = np.where(known, labels[tuple(cells.T)].astype(np.int64), grid.ignore_index)
    return np.where(known, begin, np.nan), classes


def floaters_and_holes(pred: Array, gt: Array, grid: VoxelGrid, seen: Array | None = None) -> np.ndarray:
    """Counts occupied voxels where nothing is, and missing ones.

    Args:
        pred: (X, Y, Z) integer class ids.
        gt: (X, Y, Z) integer class ids and ``grid.ignore_index``, which does not count.
        grid: Voxel grid.
        seen: (X, Y, Z), voxels that count, or None for all.

    Returns:
        (4,) int64: predicted occupied where the label is free, all predicted occupied; predicted free where the label is
        occupied, all occupied of the label.

    Raises:
        ValueError: If shapes do not fit.
    """
    pred, gt = _array(pred), _array(gt)
    counted = gt != grid.ignore_index
    if seen is not None:
        counted = counted & (_array(seen) != 0)
    if pred.shape != gt.shape or counted.shape != gt.shape:
        raise ValueError(f'floaters_and_holes: pred, gt and seen must have one shape, got {pred.shape} and {gt.shape}')
    guessed, true = (pred != grid.free_index) & counted, (gt != grid.free_index) & counted
    return np.array([(guessed & ~true).sum(), guessed.sum(), (true & ~guessed).sum(), true.sum()], dtype=np.int64)


def _array(values: Array) -> np.ndarray:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _codes(labels: np.ndarray, grid: VoxelGrid) -> np.ndarray:
    codes = np.where(labels == grid.free_index, FREE, OCCUPIED).astype(np.uint8)
    codes[labels == grid.ignore_index] = UNKNOWN
    return codes


def _rays(grid: VoxelGrid, origins: Array, directions: Array, reference: Array | None) -> tuple[np.ndarray, ...]:
    """Origins in voxels, voxels per metre of range, and ranges, checked."""
    origins, directions = (_array(values).astype(np.float64) for values in (origins, directions))
    if origins.ndim != 2 or origins.shape[1] != 3 or origins.shape != directions.shape:
        raise ValueError(f'rays must have origins and directions (R, 3), got {origins.shape} and {directions.shape}')
    length = np.linalg.norm(directions, axis=1, keepdims=True)
    if not (np.isfinite(origins).all() and np.isfinite(directions).all() and (length > 0).all()):
        raise ValueError('rays must have finite origins and finite directions that are not zero')
    if reference is not None:
        reference = _array(reference).astype(np.float64)
        if reference.shape != (len(origins),) or not (np.isfinite(reference).all() and (reference > 0).all()):
            raise ValueError(f'every one of {len(origins)} rays needs a reference range above 0 metres, got {reference.shape}')
    size = np.asarray(grid.voxel_size)
    return (origins - np.asarray(grid.lower)) / size, directions / length / size, reference


def _runs_of(codes: np.ndarray, start: np.ndarray, step: np.ndarray) -> tuple[np.ndarray, ...]:
    begin, end = np.full((2, len(start)), np.nan)
    runs = np.zeros(len(start), dtype=np.int64)
    cells = np.zeros((len(start), 3), dtype=np.int64)
    blocked = np.zeros(len(start), dtype=np.bool_)
    _follow(np.ascontiguousarray(codes), start, step, begin, end, runs, cells, blocked)
    return begin, end, runs, cells, blocked


@numba.njit(cache=True, parallel=True, error_model='numpy')
def _follow(codes, start, step, begin, end, runs, cells, blocked):
    """Fills, for every ray, where its first run of occupied cells begins and ends, how many there are, the first occupied cell,
    and whether a cell of unknown content came before it."""
    nx, ny, nz = codes.shape
    for r in numba.prange(len(start)):
        ox, oy, oz = start[r, 0], start[r, 1], start[r, 2]
        dx, dy, dz = step[r, 0], step[r, 1], step[r, 2]
        x, y, z = int(math.floor(ox)), int(math.floor(oy)), int(math.floor(oz))
        sx, sy, sz = 1 if dx >= 0 else -1, 1 if dy >= 0 else -1, 1 if dz >= 0 else -1
        t_x = (x + (sx > 0) - ox) / dx if dx != 0 else np.inf
        t_y = (y + (sy > 0) - oy) / dy if dy != 0 else np.inf
        t_z = (z + (sz > 0) - oz) / dz if dz != 0 else np.inf
        delta_x = sx / dx if dx != 0 else np.inf
        delta_y = sy / dy if dy != 0 else np.inf
        delta_z = sz / dz if dz != 0 else np.inf
        entry, inside_run = 0.0, False
        while True:
            # beyond the far side, or beside the grid and parallel to it
            if x >= nx and sx > 0 or x < 0 and (sx < 0 or dx == 0):
                break
            if y >= ny and sy > 0 or y < 0 and (sy < 0 or dy == 0):
                break
            if z >= nz and sz > 0 or z < 0 and (sz < 0 or dz == 0):
                break
            axis = next_axis(t_x, t_y, t_z)
            leave = t_x if axis == 0 else (t_y if axis == 1 else t_z)
            code = 0
            if 0 <= x < nx and 0 <= y < ny and 0 <= z < nz:
                code = codes[x, y, z]
            if code == 1:
                if not inside_run:
                    runs[r] += 1
                    if runs[r] == 1:
                        begin[r] = entry
                        cells[r, 0], cells[r, 1], cells[r, 2] = x, y, z
                if runs[r] == 1:
                    end[r] = leave
            elif code == 2 and runs[r] == 0:
                blocked[r] = True
            inside_run = code == 1
            entry = leave
            if axis == 0:
                x += sx
                t_x += delta_x
            elif axis == 1:
                y += sy
                t_y += delta_y
            else:
                z += sz
                t_z += delta_z


@numba.njit(cache=True, parallel=True, error_model='numpy')
def _profile_field(alphas, start, step, reference, tolerance, values):
    nx, ny, nz = alphas.shape
    spacing = tolerance / 2
    for r in numba.prange(len(start)):
        near, far = 0.0, np.inf
        for axis in range(3):
            o, d, n = start[r, axis], step[r, axis], alphas.shape[axis]
            if d != 0:
                a, b = -o / d, (n - o) / d
                near, far = max(near, min(a, b)), min(far, max(a, b))
            elif o < 0 or o >= n:
                far = -1.0
        d = reference[r]
        light, front, hit, behind, first, second = 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
        surfaces, gap = 0, 2
        k = 0
        t = near + spacing / 2
        while t < far:
            x = min(max(int(math.floor(start[r, 0] + step[r, 0] * t)), 0), nx - 1)
            y = min(max(int(math.floor(start[r, 1] + step[r, 1] * t)), 0), ny - 1)
            z = min(max(int(math.floor(start[r, 2] + step[r, 2] * t)), 0), nz - 1)
            alpha = alphas[x, y, z]
            weight = light * alpha
            light *= 1 - alpha
            if t < d - tolerance:
                front += weight
            elif t > d + tolerance:
                behind += weight
            else:
                hit += weight
            # about d, so that little is lost in the difference of squares
            first += weight * (t - d)
            second += weight * (t - d) * (t - d)
            if alpha >= SURFACE_OPACITY:
                # two samples in between are a gap of v
                if gap >= 2:
                    surfaces += 1
                gap = 0
            else:
                gap += 1
            k += 1
            t = near + (k + 0.5) * spacing
        total = front + hit + behind
        values[0, r], values[1, r], values[2, r], values[3, r] = front, hit, behind, light
        values[4, r] = np.nan
        if total >= MIN_COVERAGE:
            mean = first / total
            values[4, r] = math.sqrt(max(second / total - mean * mean, 0.0))
        values[5, r] = surfaces
