"""Confusion matrix of label volumes and the numbers made from it."""

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor

ABSENT_POLICIES = ('exclude', 'exclude_union', 'one', 'zero')
# Symphonies' way to make 0 / 0 zero; lowers every other IoU by less than 1e-6 / union
ZERO_POLICY_EPS = 1e-6


def _integers(values: Array, name: str) -> np.ndarray:
    """``values`` as a numpy array of integers (bool counts as 0 / 1); a CPU tensor is not copied."""
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.dtype.kind not in 'iub':
        raise TypeError(f'{name} must hold integer class ids, got {array.dtype}; take the argmax over the class logits first')
    return array


def voxel_confusion(
    pred: Array, gt: Array, num_classes: int, mask: Array | None = None, ignore_index: int | None = 255
) -> Array:
    """Counts how often each true class was predicted as each class.

    Any shape goes: volumes (X, Y, Z), batches of them or images. A cell is counted if ``gt != ignore_index`` and, with a mask,
    the mask is not zero. Ids of cells that are not counted do not matter.

    Args:
        pred: Predicted ids, any integer dtype.
        gt: True ids, same shape as ``pred``, any integer dtype.
        num_classes: Number of classes C including the free one.
        mask: Cells to count, same shape, bool or integer (not zero = count).
        ignore_index: Label in ``gt`` that is not counted; None counts every cell.

    Returns:
        (C, C) int64, rows = ground truth, columns = prediction, exact; a CPU tensor if ``pred`` is a tensor, else an array.

    Raises:
        TypeError: If ids or mask are not integers.
        ValueError: If shapes differ or a counted id is not in 0..C-1.
    """
    true, guess = _integers(gt, 'gt'), _integers(pred, 'pred')
    if guess.shape != true.shape:
        raise ValueError(
            f'pred and gt must have the same shape, got pred {guess.shape} and gt {true.shape}; '
            'check that prediction and labels belong to the same grid'
        )
    counted = np.ones(true.shape, dtype=bool) if ignore_index is None else true != ignore_index
    if mask is not None:
        seen = _integers(mask, 'mask')
        if seen.shape != true.shape:
            raise ValueError(f'mask must have the shape of gt {true.shape}, got {seen.shape}')
        counted &= seen != 0
    if counted.all():
        true, guess = true.reshape(-1), guess.reshape(-1)
    else:
        true, guess = true[counted], guess[counted]
    for name, ids in (('gt', true), ('pred', guess)):
        if ids.size and not (0 <= ids.min() and ids.max() < num_classes):
            bad = ids.max() if ids.max() >= num_classes else ids.min()
            raise ValueError(
                f'{name} holds class id {int(bad)}, expected 0..{num_classes - 1} (num_classes={num_classes}'
                + (f', ignore_index={ignore_index}' if name == 'gt' else '')
                + '); check num_classes and the label files'
            )
    code = true.astype(np.int64)
    code *= num_classes
    code += guess.astype(np.int64, copy=False)
    hist = np.bincount(code, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64, copy=False)
    return torch.from_numpy(hist) if isinstance(pred, Tensor) else hist


def _iou(seen: np.ndarray, predicted: np.ndarray, correct: np.ndarray, absent: str) -> np.ndarray:
    """correct / (seen + predicted - correct) with the policy for ``seen == 0``; arrays of one shape, float64."""
    union = seen + predicted - correct
    if absent == 'zero':
        return correct / (union + ZERO_POLICY_EPS)
    iou = correct / np.maximum(union, 1)
    if absent == 'exclude_union':
        return np.where(union == 0, np.nan, iou)
    return np.where(seen == 0, {'exclude': np.nan, 'one': 1.0}[absent], iou)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float('nan')


def summarize_confusion(hist: Array, free_index: int, absent: str = 'exclude') -> dict:
    """mIoU, geometric IoU and their parts from a confusion matrix. All values are fractions.

    The geometric values compare occupied (any class but ``free_index``) with free; the classes need not agree.

    Args:
        hist: (C, C) counts, rows = ground truth, columns = prediction, summed over **all** frames of a split.
        free_index: Id of empty space; never part of the mIoU.
        absent: What a class without a true voxel contributes. ``'exclude'``: nothing, it leaves the mean. ``'exclude_union'``:
            nothing if it was never predicted either, else 0. ``'one'``: 1 even if it was predicted (GaussRender's original
            evaluation). ``'zero'``: 0, from 1e-6 added to every denominator (Symphonies' evaluation). On the complete benchmark
            splits all four agree to nine digits.

    Returns:
        dict: ``mIoU`` (mean over all classes but free), ``IoU``, ``mIoU_with_free``, ``precision`` and
        ``recall`` (geometric), all float and NaN where nothing is left to average; ``per_class`` (C,) float64, NaN = left out;
        ``num_averaged``, the number of classes in ``mIoU``. Precision is 0 if nothing was predicted occupied; without a true
        occupied voxel recall follows ``absent`` like IoU.

    Raises:
        ValueError: If the matrix is not square, ``free_index`` is not one of its classes or the policy is unknown.
    """
    counts = _integers(hist, 'hist')
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise ValueError(f'hist must be a square matrix (classes, classes), got shape {counts.shape}')
    num_classes = counts.shape[0]
    if not 0 <= free_index < num_classes:
        raise ValueError(f'free_index must lie in 0..{num_classes - 1}, got {free_index}')
    if absent not in ABSENT_POLICIES:
        raise ValueError(f'absent must be one of {ABSENT_POLICIES}, got {absent!r}')
    counts = counts.astype(np.int64)
    seen, predicted = counts.sum(1), counts.sum(0)
    per_class = _iou(seen, predicted, np.diagonal(counts), absent)
    semantic = np.arange(num_classes) != free_index

    occupied = seen[semantic].sum()
    guessed = predicted[semantic].sum()
    both = counts[np.ix_(semantic, semantic)].sum()
    recall = both / occupied if occupied else _iou(occupied, guessed, both, absent)
    return dict(
        mIoU=_mean(per_class[semantic]),
        IoU=float(_iou(occupied, guessed, both, absent)),
        mIoU_with_free=_mean(per_class),
        precision=float(both / guessed) if guessed else 0.0,
        recall=float(recall),
        per_class=per_class,
        num_averaged=int((~np.isnan(per_class[semantic])).sum()),
    )
