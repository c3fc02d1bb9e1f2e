"""Where the voxels of a sample appear in its network images: taken from the sample, else computed from its cameras."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from projects.occ.structures import (
    OccDataSample,
    VoxelGrid,
    frustum_indices,
    network_intrinsics,
    project_voxel_centres,
)


def image_intrinsics(cameras: Mapping[str, Any]) -> np.ndarray:
    """Intrinsics of the network images, see ``projects.occ.structures.network_intrinsics``.

    Args:
        cameras: ``ref2img`` (..., 4, 4), ``ref2cam`` (..., 4, 4) and ``cam2img`` (..., 3, 3), the last one of the original
            images; arrays or tensors.

    Returns:
        (..., 3, 3) float64.

    Raises:
        ValueError: If a matrix is missing, or they contradict each other.
    """
    missing = [key for key in ('ref2img', 'ref2cam', 'cam2img') if key not in cameras]
    if missing:
        raise ValueError(
            f'projecting voxels needs the cameras of a sample, but {missing} is missing; add it to meta_keys of PackOccInputs'
        )
    ref2img, ref2cam, original = (_array(cameras[key]) for key in ('ref2img', 'ref2cam', 'cam2img'))
    intrinsics = np.empty_like(original)
    for index in np.ndindex(original.shape[:-2]):
        intrinsics[index] = network_intrinsics(ref2img[index], ref2cam[index], original[index])
    return intrinsics


def project_grid(grid: VoxelGrid, cameras: Mapping[str, Any], voxel_scale: int) -> tuple[Tensor, Tensor]:
    """Pixels of all voxel centres in all network images of a batch, see ``project_voxel_centres``.

    Args:
        grid: The grid at full resolution.
        cameras: As for :func:`image_intrinsics`, batched (B, N, ...), and ``img_wh`` (B, N, 2), pixels.
        voxel_scale: Voxels are taken this many times as long.

    Returns:
        Pixels (B, N, P, 2) int64 and visibility (B, N, P) bool, on the CPU.
    """
    intrinsics = image_intrinsics(cameras)
    ref2cam, sizes = (_array(cameras[key]) for key in ('ref2cam', 'img_wh'))
    pixels, visible = [], []
    for index in np.ndindex(intrinsics.shape[:2]):
        projection = project_voxel_centres(grid, ref2cam[index], intrinsics[index], _size(sizes[index]), voxel_scale)
        pixels.append(torch.from_numpy(projection.pixels))
        visible.append(torch.from_numpy(projection.visible))
    return torch.stack(pixels).unflatten(0, intrinsics.shape[:2]), torch.stack(visible).unflatten(0, intrinsics.shape[:2])


def sample_frustum_index(sample: OccDataSample, grid: VoxelGrid, frustums: int) -> Tensor:
    """Box of the image that each voxel projects into, for a sample with one camera.

    Args:
        sample: With ``frustum_index``, else with the cameras to compute it.
        grid: The grid at full resolution.
        frustums: Boxes per side of the image.

    Returns:
        (X, Y, Z) int16, ``row * frustums + column``; -1 for voxels that the camera does not see.

    Raises:
        ValueError: If the sample has neither, or several cameras.
    """
    if 'frustum_index' in sample:
        return sample.frustum_index
    cameras = sample.metainfo
    intrinsics = image_intrinsics(cameras)
    if len(intrinsics) != 1:
        raise ValueError(
            f'loss_occ.frustum_weight is meant for one camera, sample {sample.get("token", "?")} has {len(intrinsics)}; '
            'set it to 0 or let the pipeline write frustum_index'
        )
    size = _size(np.asarray(cameras['img_wh'])[0])
    projection = project_voxel_centres(grid, _array(cameras['ref2cam'])[0], intrinsics[0], size)
    return torch.from_numpy(frustum_indices(projection, size, frustums)).view(grid.shape)


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.cpu() if isinstance(value, Tensor) else value, dtype=np.float64)


def _size(size: np.ndarray) -> tuple[int, int]:
    return tuple(int(round(float(n))) for n in size)
