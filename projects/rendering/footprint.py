"""The footprint that Gaussians have in GaussianOcc's released renderer, whose vertical field of view is the horizontal one."""

import torch
import torch.nn.functional as F
from torch import Tensor

FOV_Y = ('own', 'x')


def quaternion_of(rotation: Tensor) -> Tensor:
    """Unit quaternion (4,) w, x, y, z of a rotation matrix (3, 3)."""
    m = rotation
    # of the four ways to write it, the one without cancellation
    trace = m[0, 0] + m[1, 1] + m[2, 2]
    choices = torch.stack([trace, m[0, 0], m[1, 1], m[2, 2]])
    i = int(choices.argmax())
    if i == 0:
        q = torch.stack([1 + trace, m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
    elif i == 1:
        q = torch.stack([m[2, 1] - m[1, 2], 1 + m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]])
    elif i == 2:
        q = torch.stack([m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], 1 + m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1]])
    else:
        q = torch.stack([m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], 1 + m[2, 2] - m[0, 0] - m[1, 1]])
    return F.normalize(q, dim=0)


def horizontal_footprint(
    means: Tensor, scales: Tensor, ref2cam: Tensor, K: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor]:
    """Shapes of Gaussians that a correct rasteriser draws as the released one draws round ones.

    There, projected heights are ``(height / width) (fx / fy)`` times what they should be (0.56 on nuScenes), while centres are
    right. Published weights were trained with it.

    Args:
        means: (G, 3), metres, reference frame.
        scales: (G, 3), standard deviations of round Gaussians, metres; the first column is read.
        ref2cam: (4, 4).
        K: (3, 3), pixels.
        width: Of the image, pixels.
        height: Of the image, pixels.

    Returns:
        Standard deviations (G, 3), metres, and unit quaternions (G, 4) w, x, y, z; without gradient to ``means``.
    """
    with torch.no_grad():
        # double precision: far and flat Gaussians would lose their short axis
        means, ref2cam, K = means.double(), ref2cam.double(), K.double()
        x, y, z = (means @ ref2cam[:3, :3].T + ref2cam[:3, 3]).unbind(1)
        slope = y / torch.where(z.abs() < 1e-6, torch.full_like(z, 1e-6), z)
        tan_x, tan_y = width / (2 * K[0, 0]), height / (2 * K[1, 1])
        rho = height / width * K[0, 0] / K[1, 1]
        own = torch.maximum(torch.minimum(slope, 1.3 * tan_y), -1.3 * tan_y)
        theirs = torch.maximum(torch.minimum(slope, 1.3 * tan_x), -1.3 * tan_x)
        shear = own - rho * theirs
        # covariance in the camera's y and z: [[rho^2 + e^2, e], [e, 1]]
        top = rho**2 + shear**2
        half = 0.5 * torch.atan2(2 * shear, top - 1)
        middle, radius = (top + 1) / 2, torch.sqrt(((top - 1) / 2) ** 2 + shear**2)
        first, second = middle + radius, (middle - radius).clamp(min=0)
        shape = torch.stack([torch.ones_like(first), first.sqrt(), second.sqrt()], 1)
        w, i, j, k = quaternion_of(ref2cam[:3, :3].T)
        cos, sin = (half / 2).cos(), (half / 2).sin()
        quats = torch.stack([w * cos - i * sin, w * sin + i * cos, j * cos + k * sin, k * cos - j * sin], 1)
    return scales[:, :1] * shape.to(scales), quats.to(scales)
