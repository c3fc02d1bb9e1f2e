"""Where the centres of a voxel grid appear in an image."""

from dataclasses import dataclass

import numpy as np

from .voxel_grid import VoxelGrid

# Pixels of voxels near the camera's plane have no bound; beyond this one they are cut off. No image is that large.
_PIXEL_LIMIT = 1 << 31


@dataclass(frozen=True)
class VoxelProjection:
    """Projection of P voxel centres into one camera, voxels flattened with z fastest.

    Attributes:
        pixels: (P, 2) int64, column u and row v, rounded. Voxels that are not visible have any value, huge or negative.
        depth: (P,) float32, z in the camera frame, metres; not positive behind the camera.
        visible: (P,) bool, the rounded pixel lies inside the image and the depth is positive.
    """

    pixels: np.ndarray
    depth: np.ndarray
    visible: np.ndarray


def network_intrinsics(ref2img: np.ndarray, ref2cam: np.ndarray, cam2img: np.ndarray) -> np.ndarray:
    """Intrinsics of the network's image; resizing, cropping and flipping are in ``ref2img`` alone.

    Args:
        ref2img: (4, 4), reference frame -> (u*d, v*d, d, 1) in the network's image, pixels.
        ref2cam: (4, 4), reference frame -> camera, metres.
        cam2img: (3, 3), of the original image, pixels.

    Returns:
        (3, 3) float64; ``cam2img`` to the last bit if the image was not changed.

    Raises:
        ValueError: If ``ref2img`` is not intrinsics times ``ref2cam`` (the compatible matrices of Occ3D are not).
    """
    product = np.asarray(ref2img, dtype=np.float64)[:3] @ np.linalg.inv(np.asarray(ref2cam, dtype=np.float64))
    if np.abs(product[:, 3]).max() > 1e-3 * np.abs(product).max() or not np.allclose(product[2, :3], (0, 0, 1), atol=1e-4):
        raise ValueError(
            'ref2img is not intrinsics times ref2cam, so the intrinsics of the network image are unknown: ref2img times the '
            f'inverse of ref2cam is {product.tolist()}; take exact matrices (those of Occ3D leave out ego motion by default)'
        )
    cam2img = np.asarray(cam2img, dtype=np.float64)
    # the matrices of a data sample are rounded to float32
    return cam2img if np.allclose(product[:, :3], cam2img, rtol=1e-5, atol=1e-3) else product[:, :3]


def scaled_shape(grid: VoxelGrid, voxel_scale: int) -> tuple[int, int, int]:
    """Shape (X, Y, Z) of the grid whose voxels are ``voxel_scale`` times as long as those of ``grid``.

    Raises:
        ValueError: If ``voxel_scale`` is no positive whole number, or does not divide the shape of ``grid``.
    """
    if int(voxel_scale) != voxel_scale or voxel_scale < 1 or any(n % int(voxel_scale) for n in grid.shape):
        raise ValueError(f'voxel_scale must be a positive whole number that divides grid.shape {grid.shape}, got {voxel_scale}')
    return tuple(n // int(voxel_scale) for n in grid.shape)


def project_voxel_centres(
    grid: VoxelGrid, ref2cam: np.ndarray, cam2img: np.ndarray, image_wh: tuple[int, int], voxel_scale: int = 1
) -> VoxelProjection:
    """Projects the centres of all voxels into an image.

    Follows the loader of Symphonies (``ssc_pl/utils/helper.py``): centres in float32, everything after them in float64,
    pixels rounded half to even (so a pixel's centre has whole coordinates, unlike in the rest of this code base), visibility
    decided on the rounded pixels. The number of voxels is that of the grid; the original rounds a quotient of floats up.

    Args:
        grid: The grid at full resolution.
        ref2cam: (4, 4), frame of the grid -> camera (x right, y down, z forward), metres.
        cam2img: (3, 3), intrinsics, pixels; its last row is (0, 0, 1).
        image_wh: Width and height of the image, pixels.
        voxel_scale: Voxels are taken ``voxel_scale`` times as long as those of ``grid``.

    Returns:
        One entry per voxel of the (scaled) grid.

    Raises:
        ValueError: If the scale does not divide the grid, or a matrix has another shape or a value that is not finite.
    """
    ref2cam, cam2img = np.asarray(ref2cam, dtype=np.float64), np.asarray(cam2img, dtype=np.float64)
    for name, matrix, shape in (('ref2cam', ref2cam, (4, 4)), ('cam2img', cam2img, (3, 3))):
        if matrix.shape != shape or not np.isfinite(matrix).all():
            raise ValueError(f'{name} must be a finite {shape} matrix of one camera, got {matrix.shape}: {matrix.tolist()}')
    if not np.allclose(cam2img[2], (0, 0, 1)):
        raise ValueError(f'cam2img must have the last row (0, 0, 1), got {cam2img[2].tolist()}')
    centres = voxel_centres(grid, voxel_scale)
    x, y, z = ref2cam[:3, :3] @ centres.T.astype(np.float64) + ref2cam[:3, 3:]
    with np.errstate(divide='ignore', invalid='ignore'):
        columns = (cam2img[0, 0] * x + cam2img[0, 1] * y) / z + cam2img[0, 2]
        rows = (cam2img[1, 0] * x + cam2img[1, 1] * y) / z + cam2img[1, 2]
    pixels = np.round(np.stack([columns, rows], axis=-1))
    pixels = np.clip(np.nan_to_num(pixels, nan=-_PIXEL_LIMIT), -_PIXEL_LIMIT, _PIXEL_LIMIT).astype(np.int64)
    inside = ((pixels >= 0) & (pixels < np.asarray(image_wh, dtype=np.int64))).all(-1)
    return VoxelProjection(pixels, z.astype(np.float32), inside & (z > 0))


def frustum_indices(projection: VoxelProjection, image_wh: tuple[int, int], frustums: int = 8) -> np.ndarray:
    """Which of ``frustums`` x ``frustums`` equal boxes of the image a voxel projects into.

    Box k of a row covers the columns ``[k * W / frustums, (k + 1) * W / frustums)`` and likewise for rows.

    Args:
        projection: Of P voxels, into an image of ``image_wh``.
        image_wh: Width and height of the image, pixels.
        frustums: Number of boxes per side.

    Returns:
        (P,) int16, ``row * frustums + column`` of the box; -1 for voxels that are not visible.

    Raises:
        ValueError: If ``frustums`` is not in 1..181 (the largest whose indices fit int16).
    """
    if int(frustums) != frustums or not 1 <= frustums <= 181:
        raise ValueError(f'frustums must be a whole number in 1..181 (boxes per side of the image), got {frustums}')
    boxes = projection.pixels[projection.visible] * int(frustums) // np.asarray(image_wh, dtype=np.int64)
    indices = np.full(len(projection.visible), -1, dtype=np.int16)
    indices[projection.visible] = boxes[:, 1] * int(frustums) + boxes[:, 0]
    return indices


def voxel_centres(grid: VoxelGrid, voxel_scale: int = 1) -> np.ndarray:
    """Centres (P, 3) float32 of voxels ``voxel_scale`` times as long as those of ``grid``, metres, z fastest."""
    shape = scaled_shape(grid, voxel_scale)
    lower = np.float32(grid.lower).astype(np.float64)
    size = np.asarray(grid.voxel_size) * voxel_scale
    axes = [(lower[i] + size[i] * np.arange(shape[i]) + 0.5 * size[i]).astype(np.float32) for i in range(3)]
    return np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1).reshape(-1, 3)
