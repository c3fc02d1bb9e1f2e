"""The most frequent class of every voxel of a training set: the predictor that never looks at an image.

Its score is the least that a network must beat, and says how much of a small or static benchmark can be learned by heart.
"""

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from .functional import voxel_confusion

Labels = np.ndarray | Tensor


def most_frequent_class(labels: Iterable[Labels], num_classes: int, ignore_index: int = 255) -> np.ndarray:
    """Most frequent class per voxel.

    Args:
        labels: Label volumes (X, Y, Z) integer of the training set, consumed one at a time.
        num_classes: Number of classes C.
        ignore_index: Label that says nothing.

    Returns:
        (X, Y, Z) uint8. Ties go to the lower id; a voxel that is labelled in no volume takes the most frequent class of all.

    Raises:
        ValueError: If there is no label, shapes differ or an id is not a class.
    """
    counts, shape = None, None
    for volume in labels:
        volume = np.asarray(volume)
        if counts is None:
            shape = volume.shape
            counts = np.zeros((volume.size, num_classes), dtype=np.int32)
            voxels = np.arange(volume.size)
        if volume.shape != shape:
            raise ValueError(f'all label volumes must have one shape, got {shape} and {volume.shape}')
        flat = volume.reshape(-1)
        known = flat != ignore_index
        if known.any() and not (0 <= flat[known].min() and flat[known].max() < num_classes):
            raise ValueError(
                f'labels hold class ids {flat[known].min()}..{flat[known].max()}, expected 0..{num_classes - 1} or '
                f'ignore_index={ignore_index}'
            )
        counts[voxels[known], flat[known]] += 1
    if counts is None:
        raise ValueError('most_frequent_class got no training label')
    prior = np.where(counts.any(1), counts.argmax(1), counts.sum(0, dtype=np.int64).argmax())
    return prior.astype(np.uint8).reshape(shape)


def score_static_prior(
    prior: np.ndarray,
    labels: Iterable[Labels | tuple[Labels, Labels | None]],
    num_classes: int,
    ignore_index: int = 255,
) -> np.ndarray:
    """Confusion matrix of one prediction used for every frame.

    Args:
        prior: (X, Y, Z) integer, from :func:`most_frequent_class`.
        labels: Label volumes (X, Y, Z) of the test set, or pairs of label and mask (X, Y, Z).
        num_classes: Number of classes C.
        ignore_index: Label that is not counted.

    Returns:
        (C, C) int64, rows = ground truth, for :func:`summarize_confusion`.

    Raises:
        ValueError: If a shape or an id does not fit, see :func:`voxel_confusion`.
    """
    hist = np.zeros((num_classes, num_classes), dtype=np.int64)
    for item in labels:
        gt, mask = item if isinstance(item, tuple) else (item, None)
        hist += voxel_confusion(prior, gt, num_classes, mask, ignore_index)
    return hist
