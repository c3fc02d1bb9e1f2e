"""Gaussians in space -> ellipses in one image, in PyTorch operations that autograd can differentiate."""

from typing import NamedTuple

import torch
from torch import Tensor

from . import constants
from .camera import transform_points
from .settings import RasterSettings


class Ellipses(NamedTuple):
    """Projected Gaussians of one view, (M,) each; lengths in pixels.

    ``u, v``: centre, integer at pixel centres. ``z``: depth in metres. ``cov_*``: dilated covariance. ``inv_xx``: inverse of
    the variance of x given y, ``slope``: cov_xy / cov_yy; with them the exponent is a sum of squares, see :meth:`distance`.
    """

    u: Tensor
    v: Tensor
    z: Tensor
    cov_xx: Tensor
    cov_xy: Tensor
    cov_yy: Tensor
    inv_xx: Tensor
    slope: Tensor

    def pick(self, index: Tensor) -> 'Ellipses':
        """Ellipses at an index of any shape."""
        return Ellipses(*(value[index] for value in self))

    def distance(self, dx: Tensor, dy: Tensor) -> Tensor:
        """Squared Mahalanobis length of offsets (..., in pixels).

        inv_xx (dx - slope dy)^2 + dy^2 / cov_yy has no negative term, unlike k1 dx^2 + 2 k2 dx dy + k3 dy^2, in which large
        terms cancel for thin ellipses far from the pixel.
        """
        across = dx - self.slope * dy
        return self.inv_xx * across * across + dy * dy / self.cov_yy

    def radius(self) -> Tensor:
        """Three standard deviations of the longer axis rounded up, (M,) floating point."""
        mid, half = 0.5 * (self.cov_xx + self.cov_yy), 0.5 * (self.cov_xx - self.cov_yy)
        longest = mid + (half * half + self.cov_xy * self.cov_xy).clamp_min(constants.RADIUS_FLOOR).sqrt()
        return torch.ceil(constants.RADIUS_SIGMAS * longest.sqrt())


def rotation_polynomial(quats: Tensor) -> Tensor:
    """Matrix of a quaternion (w, x, y, z) used as given: zero gives the identity, other lengths a sheared matrix.

    Args:
        quats: (M, 4).

    Returns:
        (M, 3, 3).
    """
    w, x, y, z = quats.unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def clamp_limits(K: Tensor, width: int, height: int, kind: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Bounds ((x_lo, x_hi), (y_lo, y_hi)) of x / z and y / z inside the Jacobian (``RasterSettings.jacobian_clamp``)."""
    limits = []
    for axis, size in ((0, width), (1, height)):
        focal, centre = K[axis, axis], K[axis, 2]
        half = size / (2.0 * focal)
        margin = constants.CLAMP_MARGIN * half
        if kind == 'symmetric':
            limits.append((-(half + margin), half + margin))
        else:
            limits.append((-(centre / focal) - margin, (size - centre) / focal + margin))
    return limits[0], limits[1]


def _clamped_tangent(tangent: Tensor, z: Tensor, limits: tuple[Tensor, Tensor], constant: bool) -> Tensor:
    """Tangent inside the limits; ``constant``: where it was clamped, tangent * z counts as a constant in the backward pass."""
    clamped = torch.minimum(torch.maximum(tangent, limits[0]), limits[1])
    if not constant:
        return clamped
    return torch.where(clamped == tangent, tangent, (clamped * z).detach() / z)


def project(
    means: Tensor, quats: Tensor, scales: Tensor, viewmat: Tensor, K: Tensor, width: int, height: int, settings: RasterSettings
) -> Ellipses:
    """Project Gaussians with the linearised perspective map (EWA splatting).

    Args:
        means: (M, 3) reference frame, metres; all in front of the camera.
        quats: (M, 4) w, x, y, z, used as given.
        scales: (M, 3) standard deviations, metres.
        viewmat: (4, 4) reference -> camera.
        K: (3, 3) pixels.
        width: Image width in pixels (limits of the Jacobian).
        height: Image height in pixels.
        settings: Options; uses dilation, jacobian_clamp, tile_compat and scale_modifier.

    Returns:
        The ellipses, same order as the input.
    """
    x, y, z = transform_points(means, viewmat)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    tan_x, tan_y = x / z, y / z
    u = fx * tan_x + cx - 0.5
    v = fy * tan_y + cy - 0.5

    constant = settings.tile_compat is not None
    limits_x, limits_y = clamp_limits(K, width, height, settings.jacobian_clamp)
    a = _clamped_tangent(tan_x, z, limits_x, constant)
    b = _clamped_tangent(tan_y, z, limits_y, constant)

    # rows of J @ R: (fx / z) (r0 - a r2) and (fy / z) (r1 - b r2)
    rotation = viewmat[:3, :3]
    row_x = (fx / z)[:, None] * (rotation[0] - a[:, None] * rotation[2])
    row_y = (fy / z)[:, None] * (rotation[1] - b[:, None] * rotation[2])
    axes = rotation_polynomial(quats) * (settings.scale_modifier * scales)[:, None, :]
    m_x = (row_x[:, :, None] * axes).sum(1)
    m_y = (row_y[:, :, None] * axes).sum(1)

    xx, cov_xy, yy = (m_x * m_x).sum(-1), (m_x * m_y).sum(-1), (m_y * m_y).sum(-1)
    cov_xx, cov_yy = xx + settings.dilation, yy + settings.dilation
    # |m_x|^2 |m_y|^2 - (m_x m_y)^2 = |m_x x m_y|^2 (Lagrange): a sum of squares, so thin ellipses keep their digits
    cross = torch.linalg.cross(m_x, m_y)
    det = (cross * cross).sum(-1) + settings.dilation * (xx + cov_yy)
    return Ellipses(u, v, z, cov_xx, cov_xy, cov_yy, cov_yy / det, cov_xy / cov_yy)
