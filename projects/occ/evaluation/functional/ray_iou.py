"""RayIoU: IoU over LiDAR-like query rays instead of voxels (SparseOcc, arXiv 2312.17118, loaders/ray_metrics.py)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from ...structures import VoxelGrid
from .ray_casting import cast_rays, ray_directions
from .ray_casting_torch import cast_rays_torch

Array = np.ndarray | Tensor


@dataclass
class RayCounts:
    """Rays of one or more frames, by class; rays whose ground truth is free are not counted.

    Attributes:
        tp: (T, C) int64, rays with the right class and a depth error below each of the T thresholds.
        gt: (C,) int64, rays by true class.
        pred: (C,) int64, rays by predicted class.
    """

    tp: np.ndarray
    gt: np.ndarray
    pred: np.ndarray

    def __add__(self, other: 'RayCounts') -> 'RayCounts':
        return RayCounts(self.tp + other.tp, self.gt + other.gt, self.pred + other.pred)


def count_rays(pred: Array, gt: Array, origins: Array, grid: VoxelGrid, thresholds: Sequence[float] = (1, 2, 4)) -> RayCounts:
    """Casts the query rays of one frame through prediction and label.

    Rays whose first occupied voxel in the label is ``grid.ignore_index`` are dropped like those that meet nothing.

    Args:
        pred: (X, Y, Z) integer class ids. Arrays and CPU tensors go through a compiled loop, tensors on a GPU stay there.
        gt: (X, Y, Z) integer class ids.
        origins: (T, 3), metres, in ``grid.frame``.
        grid: Voxel grid; RayIoU is published for Occ3D-nuScenes only, other grids are an extension.
        thresholds: Depth errors that count as right, metres.

    Raises:
        TypeError: If ids are not integers.
        ValueError: If a shape or an id does not fit.
    """
    pred, gt = _labels(pred, 'pred', grid), _labels(gt, 'gt', grid)
    origins = np.asarray(origins.cpu().numpy() if isinstance(origins, Tensor) else origins, dtype=np.float64)
    if origins.ndim != 2 or origins.shape[1] != 3 or not np.isfinite(origins).all():
        raise ValueError(f'origins must be finite and (T, 3) in metres, got shape {origins.shape}')
    size = np.array(grid.voxel_size, dtype=np.float32)
    if not np.all(size == size[0]):
        raise ValueError(f'RayIoU needs cubic voxels, got {grid.voxel_size}')
    directions = ray_directions().astype(np.float64)
    ends = (origins[:, None] + directions).reshape(-1, 3)
    starts = np.repeat(origins, len(directions), axis=0)
    # to voxel units, rounded once as in the original, by the float32 edge length
    starts, ends = (((points - grid.lower) / size.astype(np.float64)).astype(np.float32) for points in (starts, ends))
    (depth_gt, label_gt), (depth_pred, label_pred) = _cast_both(gt, pred, starts, ends, grid.free_index)
    kept = (label_gt != grid.free_index) & (label_gt != grid.ignore_index)
    label_gt, label_pred = label_gt[kept], label_pred[kept]
    error = np.abs(depth_pred[kept].astype(np.float32) * size[0] - depth_gt[kept].astype(np.float32) * size[0])
    right = label_gt == label_pred
    classes = grid.num_classes
    tp = [np.bincount(label_gt[right & (error < t)], minlength=classes)[:classes] for t in thresholds]
    counts = (np.bincount(labels, minlength=classes)[:classes] for labels in (label_gt, label_pred))
    return RayCounts(np.stack(tp).astype(np.int64), *counts)


def _labels(values: Array, name: str, grid: VoxelGrid) -> Array:
    """Checked ids: a tensor that lies on a GPU stays there, all else becomes an array; a CPU tensor is not copied."""
    if isinstance(values, Tensor):
        integer = not (values.is_floating_point() or values.is_complex())
        values = values.numpy() if integer and values.device.type == 'cpu' else values
    else:
        values = np.asarray(values)
        integer = values.dtype.kind in 'iub'
    if not integer:
        raise TypeError(f'{name} must hold integer class ids, got {values.dtype}; take the argmax over the class logits first')
    if tuple(values.shape) != grid.shape:
        raise ValueError(f'{name} must have the grid shape {grid.shape}, got {tuple(values.shape)}')
    grid.check_labels(values, name)
    return values


def _cast_both(
    gt: Array, pred: Array, starts: np.ndarray, ends: np.ndarray, free_index: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Depths (R,) and labels (R,) of the rays in label and prediction, on the device where the prediction lies."""
    if not isinstance(pred, Tensor):
        gt = gt.cpu().numpy() if isinstance(gt, Tensor) else gt
        return [cast_rays(labels, starts, ends, free_index)[:2] for labels in (gt, pred)]
    both = torch.stack([torch.as_tensor(labels, device=pred.device).to(torch.uint8) for labels in (gt, pred)])
    depths, hits, _ = cast_rays_torch(both, torch.from_numpy(starts), torch.from_numpy(ends), free_index)
    return list(zip(depths.cpu().numpy(), hits.cpu().numpy(), strict=True))


def summarize_rays(counts: RayCounts, grid: VoxelGrid, thresholds: Sequence[float] = (1, 2, 4)) -> dict:
    """RayIoU from counts.

    Returns:
        ``RayIoU`` (mean over classes and thresholds), ``RayIoU@<t>``, and ``per_class`` (T, C) float64 with NaN for free space
        and for classes that are neither true nor predicted; they are left out of the means. Fractions.
    """
    union = counts.gt + counts.pred - counts.tp
    iou = np.full(counts.tp.shape, np.nan)
    np.divide(counts.tp, union, out=iou, where=union > 0)
    iou[:, grid.free_index] = np.nan

    def mean(values: np.ndarray) -> float:
        return float(values[~np.isnan(values)].mean()) if (~np.isnan(values)).any() else float('nan')

    result = {'RayIoU': mean(iou)}
    result.update({f'RayIoU@{t:g}': mean(row) for t, row in zip(thresholds, iou)})
    return {**result, 'per_class': iou}


def ray_iou(
    preds: Iterable[Array],
    gts: Iterable[Array],
    origins: Iterable[Array],
    grid: VoxelGrid | dict,
    thresholds: Sequence[float] = (1, 2, 4),
) -> dict:
    """RayIoU over frames; memory does not grow with their number.

    Args:
        preds: Predicted class ids of each frame, (X, Y, Z) integer, see :func:`count_rays`.
        gts: True class ids of each frame, (X, Y, Z) integer.
        origins: Query origins of each frame, (T, 3) metres in ``grid.frame``, see :func:`lidar_origins`.
        grid: Voxel grid, or its config dict.
        thresholds: Depth errors that count as right, metres.

    Returns:
        See :func:`summarize_rays`.

    Raises:
        TypeError: If ids are not integers.
        ValueError: If there is no frame, or the three do not have the same number of frames, or a shape or an id does not fit.
    """
    grid = VoxelGrid.build(grid)
    total = None
    for index, frame in enumerate(zip_longest(preds, gts, origins)):
        missing = [name for name, item in zip(('preds', 'gts', 'origins'), frame, strict=True) if item is None]
        if missing:
            raise ValueError(
                f'preds, gts and origins must have one entry per frame, but {" and ".join(missing)} have only {index}'
            )
        counts = count_rays(*frame, grid, thresholds)
        total = counts if total is None else total + counts
    if total is None:
        raise ValueError('ray_iou got no frame')
    return summarize_rays(total, grid, thresholds)
