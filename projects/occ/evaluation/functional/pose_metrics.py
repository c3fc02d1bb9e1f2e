"""How far a predicted motion is from the given one."""

import numpy as np
import torch
from torch import Tensor

POSE_METRICS = ('translation_error', 'rotation_error', 'translation_ratio')


def pose_metrics(prediction: Tensor | np.ndarray, target: Tensor | np.ndarray) -> np.ndarray:
    """Errors of rigid motions.

    Args:
        prediction: (..., 4, 4), translations in metres.
        target: The same shape.

    Returns:
        (..., 3) float64: distance of the two translations in metres; angle of the rotation between the two in degrees; length
        of the predicted translation over that of the given one, NaN below a given millimetre.

    Raises:
        ValueError: If the shapes differ or are none of matrices.
    """
    prediction, target = torch.as_tensor(prediction).double().cpu(), torch.as_tensor(target).double().cpu()
    if prediction.shape != target.shape or prediction.shape[-2:] != (4, 4):
        raise ValueError(
            f'predicted and given motions must be (..., 4, 4) of one shape, got {tuple(prediction.shape)} and '
            f'{tuple(target.shape)}'
        )
    between = target[..., :3, :3].transpose(-1, -2) @ prediction[..., :3, :3]
    # of small angles the cosine knows half of the digits only
    skew = between - between.transpose(-1, -2)
    sine = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1).norm(dim=-1) / 2
    cosine = (between.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    ours, given = prediction[..., :3, 3], target[..., :3, 3]
    length = given.norm(dim=-1)
    ratio = torch.where(length < 1e-3, torch.nan, ours.norm(dim=-1) / length)
    return torch.stack([(ours - given).norm(dim=-1), torch.rad2deg(torch.atan2(sine, cosine)), ratio], -1).numpy()
