"""Small camera helpers.

Camera frame: x right, y down, z forward, metres. The pixel in row r and column c has its centre at (c + 0.5, r + 0.5).
"""

import math

import torch
from torch import Tensor


def fov_to_focal(fov: float, size: int) -> float:
    """Focal length in pixels of a field of view (radians) that spans ``size`` pixels around the optical axis."""
    return size / (2.0 * math.tan(fov / 2.0))


def focal_to_fov(focal: float, size: int) -> float:
    """Field of view in radians of ``size`` pixels centred on the optical axis; the principal point plays no role."""
    return 2.0 * math.atan(size / (2.0 * focal))


def intrinsic_matrix(
    fx: float | Tensor, fy: float | Tensor, cx: float | Tensor, cy: float | Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Intrinsics (3, 3) in pixels from focal lengths and principal point."""
    K = torch.zeros(3, 3, dtype=dtype)
    K[0, 0], K[1, 1], K[0, 2], K[1, 2], K[2, 2] = fx, fy, cx, cy, 1.0
    return K


def intrinsics_from_projection(projection: Tensor, tan_fov_x: float, tan_fov_y: float, width: int, height: int) -> Tensor:
    """Recover the intrinsics behind the arguments of the classic rasteriser interface.

    Args:
        projection: (4, 4) perspective matrix P acting on column vectors of the camera frame (not the transpose that the classic
            interface passes around), with P02 = 2 cx / W - 1 and P12 = 2 cy / H - 1.
        tan_fov_x: tan(fov_x / 2), the focal length is W / (2 tan_fov_x).
        tan_fov_y: The same for y.
        width: Image width W in pixels.
        height: Image height H in pixels.

    Returns:
        (3, 3) intrinsics in pixels.
    """
    fx, fy = width / (2.0 * tan_fov_x), height / (2.0 * tan_fov_y)
    cx = (projection[0, 2] + 1.0) * width / 2.0
    cy = (projection[1, 2] + 1.0) * height / 2.0
    return intrinsic_matrix(fx, fy, cx, cy, dtype=projection.dtype).to(projection.device)


def projection_matrix(K: Tensor, width: int, height: int, near: float = 0.1, far: float = 100.0) -> Tensor:
    """Off-centre perspective matrix (4, 4), column-vector form, of intrinsics ``K`` (3, 3) in pixels."""
    P = K.new_zeros(4, 4)
    P[0, 0] = 2.0 * K[0, 0] / width
    P[1, 1] = 2.0 * K[1, 1] / height
    P[0, 2] = 2.0 * K[0, 2] / width - 1.0
    P[1, 2] = 2.0 * K[1, 2] / height - 1.0
    P[2, 2] = far / (far - near)
    P[2, 3] = -far * near / (far - near)
    P[3, 2] = 1.0
    return P


def transform_points(points: Tensor, viewmat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Camera coordinates of points, rounded operation by operation.

    A matrix product may fuse or reorder its sums, which would change the depth order of near-ties. Every backend evaluates
    ((m0 x + m1 y) + m2 z) + t instead.

    Args:
        points: (G, 3) reference frame, metres.
        viewmat: (4, 4) reference -> camera, column vectors.

    Returns:
        x, y, z, each (G,), metres.
    """
    x, y, z = points.unbind(-1)
    row = viewmat.unbind(0)
    return tuple(((r[0] * x + r[1] * y) + r[2] * z) + r[3] for r in row[:3])
