"""Where the voxels of a batch appear in its network images: taken from the batch, else computed from its cameras."""

import torch
from torch import Tensor

from projects.occ.structures import Cameras, OccBatch, VoxelGrid, voxel_centres

# Pixels of voxels near the camera's plane have no bound; beyond this one they are cut off. No image is that large.
_PIXEL_LIMIT = 1 << 31


def image_intrinsics(cameras: Cameras) -> Tensor:
    """Intrinsics of the network images, on the device of the cameras.

    They are what turns ``ref2cam`` into ``ref2img``, which published weights of Symphonies were trained with: ``K`` to the last
    bit where the images were not changed. Where ``ref2img`` leaves out ego motion, and is no product of intrinsics and
    ``ref2cam``, they follow from the warp of the images.

    Args:
        cameras: B x V.

    Returns:
        (B, V, 3, 3) float64, pixels.
    """
    # the unchecked inverse: ref2cam was checked, and the check would wait for a GPU
    product = cameras.ref2img.double()[..., :3, :] @ torch.linalg.inv_ex(cameras.ref2cam.double()).inverse
    K, last = product[..., :3], product.new_tensor((0.0, 0.0, 1.0))
    shift = product[..., 3].abs().amax(-1) <= 1e-3 * product.abs().amax((-2, -1))
    consistent = shift & torch.isclose(K[..., 2, :], last, rtol=1e-5, atol=1e-4).all(-1)
    unchanged = torch.isclose(K, cameras.K.double(), rtol=1e-5, atol=1e-3).all(-1).all(-1)
    K = torch.where(consistent[..., None, None], K, cameras.network_K.double())
    return torch.where(unchanged[..., None, None], cameras.K.double(), K)


def project_grid(grid: VoxelGrid, cameras: Cameras, image_sizes: Tensor, voxel_scale: int) -> tuple[Tensor, Tensor]:
    """Pixels of all voxel centres in all network images, on the device of the cameras.

    The rule is that of ``projects.occ.structures.project_voxel_centres``: centres in float32, everything after them in float64,
    pixels rounded half to even, visibility decided on the rounded pixels.

    Args:
        grid: The grid at full resolution.
        cameras: B x V.
        image_sizes: (B, V, 2), width and height of the network images before padding, pixels.
        voxel_scale: Voxels are taken this many times as long.

    Returns:
        Pixels (B, V, P, 2) int64 and visibility (B, V, P) bool.
    """
    device = cameras.ref2cam.device
    centres = torch.from_numpy(voxel_centres(grid, voxel_scale)).to(device).double()
    # sums of products instead of a matrix product, which some GPU settings compute in reduced precision
    ref2cam, K = cameras.ref2cam.double()[:, :, None], image_intrinsics(cameras)[:, :, None]
    x, y, z = ((ref2cam[..., i, :3] * centres).sum(-1) + ref2cam[..., i, 3] for i in range(3))
    columns = (K[..., 0, 0] * x + K[..., 0, 1] * y) / z + K[..., 0, 2]
    rows = (K[..., 1, 0] * x + K[..., 1, 1] * y) / z + K[..., 1, 2]
    pixels = torch.stack([columns, rows], dim=-1).round()
    pixels = pixels.nan_to_num(nan=-_PIXEL_LIMIT).clamp(-_PIXEL_LIMIT, _PIXEL_LIMIT).long()
    inside = ((pixels >= 0) & (pixels < image_sizes.round().long()[:, :, None])).all(-1)
    return pixels, inside & (z > 0)


def frustum_index(batch: OccBatch, grid: VoxelGrid, frustums: int) -> Tensor:
    """Box of the image that each voxel projects into, for batches of one camera.

    Args:
        batch: With ``frustum_index``, else with the cameras to compute it.
        grid: The grid at full resolution.
        frustums: Boxes per side of the image.

    Returns:
        (B, X, Y, Z) integer, ``row * frustums + column``; -1 for voxels that the camera does not see.

    Raises:
        ValueError: If the batch has neither, boxes of another size, or several cameras.
    """
    if batch.frustum_index is not None:
        if batch.frustums != frustums:
            raise ValueError(
                f'frustum_index of the samples {batch.tokens} divides images into {batch.frustums} boxes per side, but '
                f'loss_occ.frustums is {frustums}; the pipeline (LoadVoxelProjections.frustums) and the loss must agree'
            )
        return batch.frustum_index
    key = batch.at(0)
    if key.cameras.num_cameras != 1:
        raise ValueError(
            f'loss_occ.frustum_weight is meant for one camera, the samples {batch.tokens} have {key.cameras.num_cameras}; '
            'set it to 0 or let the pipeline write frustum_index'
        )
    pixels, visible = project_grid(grid, key.cameras, key.image_sizes, 1)
    boxes = pixels[:, 0] * frustums // key.image_sizes.round().long()
    index = torch.where(visible[:, 0], boxes[..., 1] * frustums + boxes[..., 0], -1)
    return index.view(-1, *grid.shape)
