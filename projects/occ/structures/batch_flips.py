"""Mirrored batches: the images of a batch, or its reference frame, as augmentation on the device of the model."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .occ_batch import OccBatch
from .voxel_grid import VoxelGrid


def flip_images(batch: OccBatch) -> OccBatch:
    """The batch with every network image mirrored left to right; the scene stays where it is.

    Depth maps and projections of voxels follow the pixels, cameras see through mirrored images (``warp``, ``ref2img``). Padding
    stays at the right. Original images and what belongs to them stay.
    """
    width = batch.image_sizes[..., 0].round().long()
    cameras = batch.cameras
    mirror = torch.eye(3, dtype=cameras.K.dtype, device=cameras.K.device).repeat(*width.shape, 1, 1)
    mirror[..., 0, 0] = -1
    mirror[..., 0, 2] = width.to(mirror)
    warp = mirror if cameras.warp is None else mirror @ cameras.warp
    projection = cameras.network_projection
    if projection is not None:
        projection = projection.clone()
        projection[..., 0, :] = width.to(projection)[..., None] * projection[..., 2, :] - projection[..., 0, :]
    pixels = batch.voxel_pixels
    if pixels is not None:
        pixels = torch.stack([width[..., None] - 1 - pixels[..., 0], pixels[..., 1]], dim=-1)
    return replace(
        batch,
        images=None if batch.images is None else _mirror_columns(batch.images, width),
        depths=None if batch.depths is None else _mirror_columns(batch.depths, width),
        cameras=replace(cameras, warp=warp, network_projection=projection),
        voxel_pixels=pixels,
        frustum_index=None,
    )


def mirror_grid(batch: OccBatch, grid: VoxelGrid, axes: Sequence[int]) -> OccBatch:
    """The batch with its reference frame mirrored along axes of the grid, under images that stay.

    Labels, masks, points, rays and projections of voxels follow, and ``scene`` says what was done, as after the transform
    ``RandomMirrorGrid``.

    Args:
        batch: The batch.
        grid: Its grid.
        axes: 0 for x, 1 for y; none: the batch itself.

    Raises:
        ValueError: If the grid does not reach as far to both sides along an axis.
    """
    axes = list(axes)
    if not axes:
        return batch
    lopsided = [axis for axis in axes if axis not in symmetric_axes(grid)]
    if lopsided:
        raise ValueError(
            f'the grid reaches from {grid.lower[lopsided[0]]} to {grid.upper[lopsided[0]]} m along {"xyz"[lopsided[0]]}, so it '
            'cannot be mirrored along this axis'
        )
    cameras = batch.cameras
    mirror = torch.eye(4, dtype=cameras.ref2cam.dtype, device=cameras.ref2cam.device)
    mirror[axes, axes] = -1
    signs = mirror.diagonal()[:3]
    moved = replace(
        cameras,
        ref2cam=cameras.ref2cam @ mirror,
        network_projection=None if cameras.network_projection is None else cameras.network_projection @ mirror,
    )
    rays = batch.rays
    if rays is not None:
        rays = replace(rays, origin=rays.origin * signs.to(rays.origin), direction=rays.direction * signs.to(rays.direction))
    points = batch.points and [torch.cat([cloud[:, :3] * signs.to(cloud), cloud[:, 3:]], dim=1) for cloud in batch.points]
    before = torch.eye(3).expand(batch.batch_size, 3, 3).to(mirror) if batch.scene is None else batch.scene
    over_grid = [1 + axis for axis in axes]
    return replace(
        batch,
        cameras=moved,
        scene=mirror[:3, :3] @ before,
        labels=None if batch.labels is None else batch.labels.flip(over_grid),
        masks={name: mask.flip(over_grid) for name, mask in batch.masks.items()},
        frustum_index=None if batch.frustum_index is None else batch.frustum_index.flip(over_grid),
        voxel_pixels=_mirror_table(batch.voxel_pixels, grid, axes),
        voxel_visible=_mirror_table(batch.voxel_visible, grid, axes),
        points=points,
        rays=rays,
    )


def symmetric_axes(grid: VoxelGrid) -> tuple[int, ...]:
    """Those of the axes x (0) and y (1) along which the grid reaches as far to both sides of 0."""
    return tuple(axis for axis in range(2) if abs(grid.lower[axis] + grid.upper[axis]) <= 1e-6)


def _mirror_columns(maps: Tensor, width: Tensor) -> Tensor:
    """Mirrors the first ``width`` (B, V) columns of maps (B, V, ..., H, W)."""
    column = torch.arange(maps.shape[-1], device=maps.device)
    width = width.to(maps.device)[..., None]
    source = torch.where(column < width, width - 1 - column, column)
    source = source.reshape(*source.shape[:2], *[1] * (maps.ndim - 3), -1)
    return maps.gather(-1, source.expand(maps.shape))


def _mirror_table(table: Tensor | None, grid: VoxelGrid, axes: Sequence[int]) -> Tensor | None:
    """Mirrors a table (B, V, P, ...) of voxels at a whole-number scale of the grid, z fastest."""
    if table is None:
        return None
    scale = round((grid.num_voxels / table.shape[2]) ** (1 / 3))
    volume = table.unflatten(2, tuple(n // scale for n in grid.shape))
    return volume.flip([2 + axis for axis in axes]).flatten(2, 4)
