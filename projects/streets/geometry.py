"""Rigid transforms. Products with many points are written out: a threaded BLAS need not give the same bits every time."""

import numpy as np


def rotation_zyx(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation matrix Rz(yaw) Ry(pitch) Rx(roll), (3, 3)."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def rotate(vectors: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """Applies a (3, 3) matrix to vectors (P, 3) of any float type, which the result keeps."""
    r = rotation.astype(vectors.dtype)
    x, y, z = vectors[:, 0], vectors[:, 1], vectors[:, 2]
    return np.stack([r[i, 0] * x + r[i, 1] * y + r[i, 2] * z for i in range(3)], axis=1)


def transform(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Applies a (4, 4) rigid transform to points (P, 3)."""
    return rotate(points, matrix[:3, :3]) + matrix[:3, 3].astype(points.dtype)


def spherical(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Unit vectors (P, 3) of angles (P,) in rad; azimuth from x to y."""
    return np.stack([np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], axis=1)
