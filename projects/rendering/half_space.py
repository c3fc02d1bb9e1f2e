"""The rule by which GaussianOcc leaves out voxels behind each of its six cameras."""

import torch
from torch import Tensor

from projects.occ.structures import Cameras

# Axis and direction in which each camera of the ring looks: front, front left, back left, back, back right, front right.
SIX_CAMERAS = ((0, 1), (1, 1), (1, 1), (0, -1), (1, -1), (1, -1))


def half_space(centers: Tensor, cameras: Cameras) -> Tensor:
    """Voxels on the side of a camera's centre to which it looks, by its place in the list.

    It saves the original half of its work and changes no picture by more than 1e-4 m of depth; the rasteriser here finds out
    by itself what an image shows. For rigs of six cameras in GaussianOcc's order only.

    Args:
        centers: (P, 3), metres, reference frame with x ahead and y to the left.
        cameras: B x 6 cameras, counter-clockwise from the front.

    Returns:
        (B, 6, P) bool.

    Raises:
        ValueError: If there are not six cameras.
    """
    if cameras.num_cameras != len(SIX_CAMERAS):
        raise ValueError(
            f"cull='half_space' knows the six cameras of GaussianOcc's rig, got {cameras.num_cameras}; leave it out"
        )
    places = torch.linalg.inv(cameras.ref2cam.double())[..., :3, 3].to(centers)
    sides = [sign * (centers[:, axis] - places[:, view, axis, None]) > 0 for view, (axis, sign) in enumerate(SIX_CAMERAS)]
    return torch.stack(sides, 1)
