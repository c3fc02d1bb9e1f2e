"""LiDAR files: rows of numbers per point, the first three x, y, z in metres.

Those of nuScenes and KITTI are little-endian float32 and nothing else, those of DDAD are archives with the array ``data``.
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmdet3d.registry import DATASETS

from projects.occ.file_arrays import load_arrays, read_bytes

NUSCENES_POINT_DIMS = 5  # x, y, z, intensity, ring

KITTI_POINT_DIMS = 4  # x, y, z, reflectance


def point_dims_of(dataset: Mapping[str, Any]) -> int:
    """Numbers per point in the LiDAR files of a data set config: what its class says, nuScenes' for others."""
    return getattr(DATASETS.get(dataset['type']), 'POINT_DIMS', NUSCENES_POINT_DIMS)


def read_points(
    path: str | os.PathLike, point_dims: int, what: str, remedy: str, backend_args: dict | None = None
) -> np.ndarray:
    """Reads a LiDAR file.

    Args:
        path: The file; ``.npz`` for an archive.
        point_dims: Numbers per point D; archives know theirs.
        what: Named in errors.
        remedy: What to do if the file is missing or damaged.
        backend_args: Arguments of mmengine's file backend.

    Returns:
        (P, D) float32, of archives float64, coordinates in the LiDAR frame.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no point, or no whole number of points.
    """
    if os.fspath(path).endswith('.npz'):
        arrays = load_arrays(path, what, remedy, backend_args)
        points = arrays.get('data')
        if points is None or points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind != 'f' or not len(points):
            found = f'the arrays {sorted(arrays)}' if points is None else f'{points.dtype} {points.shape}'
            raise ValueError(
                f"{what}: '{os.fspath(path)}': expected floats (P, 3 or more) in the array 'data', found {found}; {remedy}"
            )
        return points.astype(np.float64)
    data, size = read_bytes(path, what, remedy, backend_args), 4 * point_dims
    if not data or len(data) % size:
        raise ValueError(
            f"{what}: '{os.fspath(path)}' has {len(data)} bytes; expected {size} per point ({point_dims} float32), so it is "
            f'empty, cut short or of another kind; {remedy}'
        )
    return np.frombuffer(data, dtype='<f4').reshape(-1, point_dims)
