"""Agreement of the rendered prediction with the rendered label (GaussRender, eval.py)."""

import numpy as np
import torch
from torch import Tensor

from .confusion import Array, summarize_confusion

MIN_DEPTH = 0.1  # metres


def depth_errors(pred: Array, gt: Array, min_depth: float = MIN_DEPTH) -> tuple[float, int]:
    """Sum of absolute depth errors and how many pixels it is made of, to be added up over images.

    Args:
        pred: Rendered depth of the prediction, any shape, metres, float.
        gt: Rendered depth of the label, same shape.
        min_depth: A pixel counts if ``gt`` exceeds it, metres.

    Returns:
        Sum in metres (added in float64), number of pixels.

    Raises:
        ValueError: If the shapes differ.
    """
    pred, gt = (torch.as_tensor(depth) for depth in (pred, gt))
    if pred.shape != gt.shape:
        raise ValueError(f'depth images of prediction and label must have the same shape, got {_shape(pred)} and {_shape(gt)}')
    counted = gt > min_depth
    return float((pred[counted] - gt[counted]).abs().sum(dtype=torch.float64)), int(counted.sum())


def summarize_images(
    camera: np.ndarray,
    bird_eye: np.ndarray | None,
    depth_sum: float,
    depth_count: int,
    free_index: int,
    absent: str = 'exclude',
) -> dict:
    """Image metrics from what was counted over all images of a split. Fractions and metres.

    Pixels that show nothing count as free; no mask is applied.

    Args:
        camera: (C, C) counts of pixels of all cameras, rows = rendered label, columns = rendered prediction, from
            :func:`voxel_confusion` of the class images.
        bird_eye: The same for the bird's-eye images, or None.
        depth_sum: Summed depth errors of the cameras, metres, from :func:`depth_errors`.
        depth_count: Their number.
        free_index: Class id of free space.
        absent: Policy for classes that no pixel of the label shows, see :func:`summarize_confusion`.

    Returns:
        dict: ``img_mIoU``, ``img_IoU``, ``bev_mIoU``, ``bev_IoU`` (those only with ``bird_eye``), ``depth_L1`` (float, NaN
        where nothing was counted), ``img_per_class`` and ``bev_per_class`` (C,) float64, NaN = left out.
    """
    result: dict = {}
    for prefix, hist in (('img', camera), ('bev', bird_eye)):
        if hist is not None:
            summary = summarize_confusion(hist, free_index, absent)
            result.update({f'{prefix}_{key}': summary[key] for key in ('mIoU', 'IoU', 'per_class')})
    result['depth_L1'] = depth_sum / depth_count if depth_count else float('nan')
    return result


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
