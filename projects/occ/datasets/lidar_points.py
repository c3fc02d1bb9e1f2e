"""LiDAR files of nuScenes and KITTI: little-endian float32, a fixed number per point, the first three x, y, z in metres."""

import os

import numpy as np

from projects.occ.file_arrays import read_bytes

NUSCENES_POINT_DIMS = 5  # x, y, z, intensity, ring
KITTI_POINT_DIMS = 4  # x, y, z, reflectance


def read_points(
    path: str | os.PathLike, point_dims: int, what: str, remedy: str, backend_args: dict | None = None
) -> np.ndarray:
    """Reads a LiDAR file.

    Args:
        path: The file.
        point_dims: Numbers per point D.
        what: Named in errors.
        remedy: What to do if the file is missing or damaged.
        backend_args: Arguments of mmengine's file backend.

    Returns:
        (P, D) float32, coordinates in the LiDAR frame.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no point, or no whole number of points.
    """
    data, size = read_bytes(path, what, remedy, backend_args), 4 * point_dims
    if not data or len(data) % size:
        raise ValueError(
            f"{what}: '{os.fspath(path)}' has {len(data)} bytes; expected {size} per point ({point_dims} float32), so it is "
            f'empty, cut short or of another kind; {remedy}'
        )
    return np.frombuffer(data, dtype='<f4').reshape(-1, point_dims)
