"""Rigid motions from six numbers, and from the ego vehicle to its cameras."""

import torch
from torch import Tensor


def rotation_from_axis_angle(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula.

    Args:
        axis_angle: (..., 3), axis times angle in radians; zero vectors give the identity and a finite gradient.

    Returns:
        (..., 3, 3).
    """
    # the norm has no gradient at zero
    at_rest = (axis_angle == 0).all(-1, keepdim=True)
    angle = torch.where(at_rest, torch.full_like(axis_angle, 1e-12), axis_angle).norm(dim=-1, keepdim=True)
    x, y, z = (axis_angle / angle).unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    axis = torch.stack([x, y, z], -1)
    outer = axis.unsqueeze(-1) * axis.unsqueeze(-2)
    cos, sin = angle.cos().unsqueeze(-1), angle.sin().unsqueeze(-1)
    eye = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return cos * eye + sin * cross + (1 - cos) * outer


def motion_matrix(axis_angle: Tensor, translation: Tensor, invert: bool = False) -> Tensor:
    """Rigid motion: rotation first, then translation.

    Args:
        axis_angle: (..., 3), radians.
        translation: (..., 3), metres.
        invert: Return the inverse motion.

    Returns:
        (..., 4, 4).
    """
    rotation = rotation_from_axis_angle(axis_angle)
    shift = translation.unsqueeze(-1)
    if invert:
        rotation = rotation.transpose(-1, -2)
        shift = -rotation @ shift
    last = torch.zeros_like(translation[..., None, :])
    last = torch.cat([last, torch.ones_like(last[..., :1])], -1)
    return torch.cat([torch.cat([rotation, shift], -1), last], -2)


def camera_motion(ego_motion: Tensor, ref2cam: Tensor) -> Tensor:
    """What a motion of the ego vehicle is for a camera that is mounted on it.

    Args:
        ego_motion: (..., 4, 4), points of the key frame -> points of another frame, in ego coordinates.
        ref2cam: (..., 4, 4), ego -> camera, metres.

    Returns:
        (..., 4, 4), points of the camera at the key frame -> of the same camera at the other frame.
    """
    return ref2cam @ ego_motion @ torch.linalg.inv(ref2cam)
