"""The seven numbers by which depth maps are compared with measured depth (Eigen et al.; as in GaussianOcc)."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

DEPTH_METRICS = ('abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'a1', 'a2', 'a3')


def depth_metrics(
    prediction: Tensor | np.ndarray,
    target: Tensor | np.ndarray,
    min_depth: float = 0.1,
    max_depth: float = 80.0,
    median_scaling: bool = False,
) -> np.ndarray:
    """Errors of predicted depths of one image.

    Args:
        prediction: Metres along the optical axis, any shape.
        target: Measured depths of the same shape, metres; only those between the two limits count.
        min_depth: Lower limit, metres; predictions are clamped to it.
        max_depth: Upper limit, metres.
        median_scaling: Multiply the predictions by the ratio of the two medians first, for networks that know depth up to
            scale only.

    Returns:
        (7,) float64 in the order of ``DEPTH_METRICS``; NaN if no depth counts.

    Raises:
        ValueError: If the shapes differ.
    """
    prediction, target = torch.as_tensor(prediction).double(), torch.as_tensor(target).double()
    if prediction.shape != target.shape:
        raise ValueError(
            f'predicted and measured depth must have one shape, got {tuple(prediction.shape)} and {tuple(target.shape)}'
        )
    counts = (target > min_depth) & (target < max_depth)
    if not counts.any():
        return np.full(len(DEPTH_METRICS), np.nan)
    predicted, true = prediction[counts], target[counts]
    if median_scaling:
        # of an even number of values numpy takes the middle, torch the lower one
        predicted = predicted * float(np.median(true.cpu().numpy()) / np.median(predicted.cpu().numpy()))
    predicted = predicted.clamp(min_depth, max_depth)
    error = predicted - true
    ratio = torch.maximum(true / predicted, predicted / true)
    values = [
        (error.abs() / true).mean(),
        (error**2 / true).mean(),
        (error**2).mean().sqrt(),
        ((true.log() - predicted.log()) ** 2).mean().sqrt(),
        *((ratio < 1.25**n).double().mean() for n in (1, 2, 3)),
    ]
    return torch.stack(values).cpu().numpy()


def depth_at_pixels(prediction: Tensor | np.ndarray, image_wh: Sequence[int], pixels: Tensor | np.ndarray) -> Tensor:
    """Predicted depths at pixels of an image of another size: the map is resized (bilinear, half-pixel centres) and read.

    Args:
        prediction: (h, w), metres.
        image_wh: Width and height of the image, pixels.
        pixels: (P, 2) integer column and row.

    Returns:
        (P,) float32, metres.
    """
    prediction = torch.as_tensor(prediction).float()
    width, height = (int(n) for n in image_wh)
    if prediction.shape != (height, width):
        prediction = F.interpolate(prediction[None, None], (height, width), mode='bilinear', align_corners=False)[0, 0]
    column, row = torch.as_tensor(pixels, dtype=torch.long, device=prediction.device).unbind(1)
    return prediction[row, column]


def summarize_depth_metrics(per_image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means over a data set.

    Args:
        per_image: (I, N, 7), of I frames with N cameras each; NaN where an image has no depth that counts.

    Returns:
        (N, 7), mean over the frames per camera, and (7,), mean over the cameras; NaN for a camera without any depth, which the
        latter leaves out.
    """
    per_image = np.asarray(per_image, dtype=np.float64)
    known = ~np.isnan(per_image)
    with np.errstate(invalid='ignore'):
        per_camera = np.where(known, per_image, 0).sum(0) / known.sum(0)
        there = ~np.isnan(per_camera)
        total = np.where(there, per_camera, 0).sum(0) / there.sum(0)
    return per_camera, total
