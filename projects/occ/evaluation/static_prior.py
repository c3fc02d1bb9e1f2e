"""The most frequent class of every voxel of a training set: the predictor that never looks at an image.

Its score is the least that a network must beat, and says how much of a small or static benchmark can be learned by heart.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from ..structures import VoxelGrid
from .functional import voxel_confusion

Labels = np.ndarray | Tensor


def most_frequent_labels(labels: Iterable[Labels], grid: VoxelGrid | Mapping[str, Any]) -> np.ndarray:
    """Most frequent class per voxel.

    Args:
        labels: Label volumes (X, Y, Z) integer of the training set, consumed one at a time.
        grid: Their grid.

    Returns:
        (X, Y, Z) uint8. Ties go to the lower id; a voxel that is never labelled becomes free.

    Raises:
        ValueError: If there is no label or one does not fit the grid.
    """
    grid = VoxelGrid.build(grid)
    counts = np.zeros((grid.num_voxels, grid.num_classes), dtype=np.int32)
    voxels = np.arange(grid.num_voxels)
    frames = 0
    for frames, volume in enumerate(labels, start=1):
        grid.check_labels(volume, origin=f'training label {frames - 1}')
        flat = np.asarray(volume).reshape(-1)
        known = flat != grid.ignore_index
        counts[voxels[known], flat[known]] += 1
    if not frames:
        raise ValueError('most_frequent_labels got no training label')
    prior = np.where(counts.any(1), counts.argmax(1), grid.free_index)
    return prior.astype(np.uint8).reshape(grid.shape)


def score_static_prior(
    prior: np.ndarray,
    labels: Iterable[Labels | tuple[Labels, Labels | None]],
    grid: VoxelGrid | Mapping[str, Any],
) -> np.ndarray:
    """Confusion matrix of one prediction used for every frame.

    Args:
        prior: (X, Y, Z) integer, for example from :func:`most_frequent_labels`.
        labels: Label volumes (X, Y, Z) of the test set, or pairs of label and mask (X, Y, Z).
        grid: Their grid.

    Returns:
        (C, C) int64 for :func:`summarize_confusion`, rows = ground truth.

    Raises:
        ValueError: If there is no label or a shape does not fit.
    """
    grid = VoxelGrid.build(grid)
    hist = None
    for item in labels:
        gt, mask = item if isinstance(item, tuple) else (item, None)
        frame = np.asarray(voxel_confusion(prior, gt, grid.num_classes, mask, grid.ignore_index))
        hist = frame if hist is None else hist + frame
    if hist is None:
        raise ValueError('score_static_prior got no label')
    return hist
