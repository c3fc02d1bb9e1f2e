"""Sums of ray profiles by class and range: what metrics keep of a frame, and the numbers made from them."""

from collections.abc import Sequence

import numpy as np

from ...structures import VoxelGrid
from .ray_casting import ray_directions
from .ray_profile import FIELD_QUANTITIES, LABEL_QUANTITIES, Array, first_surfaces, ray_profile

RANGE_BANDS = (10.0, 20.0, 40.0)
"""Upper borders of all range bands but the last one, metres."""
HARD = (*LABEL_QUANTITIES, 'label_surfaces', 'label_thickness')


def query_rays(origins: Array) -> tuple[np.ndarray, np.ndarray]:
    """The rays of RayIoU from places.

    Args:
        origins: (T, 3), metres.

    Returns:
        Origins and unit directions (T * 14040, 3) float64.
    """
    directions = ray_directions().astype(np.float64)
    origins = np.asarray(origins, dtype=np.float64).reshape(-1, 3)
    return np.repeat(origins, len(directions), axis=0), np.tile(directions, (len(origins), 1))


def profile_sums(
    pred: Array,
    gt: Array,
    grid: VoxelGrid,
    origins: Array,
    directions: Array,
    reference: Array | None = None,
    opacity: Array | None = None,
) -> dict[str, np.ndarray]:
    """Profiles of the rays of one frame, summed up by class and range of their surfaces.

    Args:
        pred: (X, Y, Z) predicted class ids.
        gt: (X, Y, Z) true class ids; voxels that it ignores are free in both, and rays that meet one of them before anything
            else do not count.
        grid: Voxel grid.
        origins: (R, 3), metres, in ``grid.frame``.
        directions: (R, 3).
        reference: (R,), measured ranges, metres, NaN where there is none; the class of a measured surface is that of the label
            at its place. None: ranges and classes of the first surfaces of the label.
        opacity: (X, Y, Z) predicted opacity in [0, 1], or None.

    Returns:
        ``hard`` and, with opacities, ``soft``: (Q, C + 1, bands, 2) float64, sums and numbers of the quantities ``HARD`` or
        ``FIELD_QUANTITIES``; the last class stands for surfaces that the label does not know.
    """
    gt = np.asarray(gt)
    if reference is None:
        reference, classes = first_surfaces(gt, grid, origins, directions)
    else:
        reference = np.asarray(reference, dtype=np.float64)
        length = np.linalg.norm(directions, axis=1, keepdims=True)
        index, inside = grid.point_to_index(
            origins + np.where(np.isnan(reference), 0, reference)[:, None] * directions / length
        )
        reference = np.where(inside & (reference > 0), reference, np.nan)
        classes = np.where(inside, gt[tuple(np.where(inside[:, None], index, 0).T)].astype(np.int64), grid.free_index)
    kept = ~np.isnan(reference)
    origins, directions, reference, classes = origins[kept], directions[kept], reference[kept], classes[kept]
    classes = np.where((classes == grid.free_index) | (classes == grid.ignore_index), grid.num_classes, classes)
    bands = np.searchsorted(RANGE_BANDS, reference, side='right')
    place = classes * (len(RANGE_BANDS) + 1) + bands
    unknown = gt == grid.ignore_index
    found = ray_profile(pred, grid, origins, directions, reference, unknown)
    label = ray_profile(gt, grid, origins, directions, reference, unknown)
    # beside the predicted one, so over the same rays
    beside = np.where(np.isnan(found['thickness']), np.nan, label['thickness'])
    found.update(label_surfaces=label['surfaces'], label_thickness=beside)
    found['thickness'] = np.where(np.isnan(beside), np.nan, found['thickness'])
    result = dict(hard=_sum_up([found[name] for name in HARD], place, grid))
    if opacity is not None:
        soft = ray_profile(opacity, grid, origins, directions, reference)
        result['soft'] = _sum_up([soft[name] for name in FIELD_QUANTITIES], place, grid)
    return result


def _sum_up(quantities: Sequence[np.ndarray], place: np.ndarray, grid: VoxelGrid) -> np.ndarray:
    shape = (grid.num_classes + 1, len(RANGE_BANDS) + 1)
    table = np.empty((len(quantities), *shape, 2))
    for row, values in zip(table, quantities):
        known = ~np.isnan(values)
        row[..., 0] = np.bincount(place[known], values[known], minlength=shape[0] * shape[1]).reshape(shape)
        row[..., 1] = np.bincount(place[known], minlength=shape[0] * shape[1]).reshape(shape)
    return table


def profile_means(hard: np.ndarray, soft: np.ndarray | None = None) -> dict[str, float]:
    """Means over rays.

    Args:
        hard: (Q, ..., 2), sums and numbers of the quantities ``HARD``, over frames; all other axes are summed up.
        soft: (Q', ..., 2), of ``FIELD_QUANTITIES``, or None.

    Returns:
        Of class ids ``ray_front``, ``ray_hit``, ``ray_behind``, ``ray_surfaces``, ``ray_surfaces_label``, ``ray_thickness``,
        ``ray_thickness_label`` (metres) and ``ray_thickness_ratio``. Of opacities ``ray_spread`` (metres), ``ray_miss`` and,
        ending in ``_soft``, front, hit, behind and surfaces; ``ray_spread_left_out``, the number of rays without spread.
        ``rays``, their number. NaN where there is none.
    """

    def means(table: np.ndarray, names: Sequence[str]) -> dict[str, tuple[float, float]]:
        totals = table.reshape(len(names), -1, 2).sum(1)
        return {name: (total / count if count else float('nan'), count) for name, (total, count) in zip(names, totals.tolist())}

    found = means(hard, HARD)
    result = {f'ray_{name}': found[name][0] for name in LABEL_QUANTITIES}
    result.update(ray_surfaces_label=found['label_surfaces'][0], ray_thickness_label=found['label_thickness'][0])
    label = result['ray_thickness_label']
    result['ray_thickness_ratio'] = result['ray_thickness'] / label if label else float('nan')
    result['rays'] = int(found['front'][1])
    if soft is not None:
        found = means(soft, FIELD_QUANTITIES)
        result.update({f'ray_{name}_soft': found[name][0] for name in ('front', 'hit', 'behind', 'surfaces')})
        result.update(ray_miss=found['miss'][0], ray_spread=found['spread'][0])
        result['ray_spread_left_out'] = int(found['front'][1] - found['spread'][1])
    return result
