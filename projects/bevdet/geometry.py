"""Where the cells of a feature map lie in space: frustums, lifted points, warps between frames and the camera vector.

Everything follows from matrices ``ref2img`` (reference frame, metres -> (u*d, v*d, d, 1), pixels of the network image).
Matrices are multiplied and inverted in float64, points are computed in float32.

``reference`` selects the geometry that published weights were trained with: frustum columns from the first to the last pixel
instead of cell centres, points at the near edge of their depth bin instead of its middle, and indices truncated towards zero,
which folds a shell of one voxel below each lower bound into the first voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.occ.structures import Cameras, VoxelGrid

CAMERA_VECTOR = 27  # numbers that tell the depth network about a camera
MIN_DEPTH = 1e-3


@dataclass(frozen=True)
class DepthBins:
    """Equal bins of depth along the optical axis.

    Args:
        lower: Near edge of the first bin, metres.
        upper: Depth that no bin reaches beyond, metres.
        step: Width of a bin, metres.

    Raises:
        ValueError: If there is no whole positive number of bins.
    """

    lower: float
    upper: float
    step: float

    def __post_init__(self) -> None:
        count = (self.upper - self.lower) / self.step if self.step > 0 else 0
        if self.lower <= 0 or count < 1 or abs(count - round(count)) > 1e-6:
            raise ValueError(
                'view_encoder.depth_bins must be (lower, upper, step) in metres with 0 < lower < upper and a whole number of '
                f'steps between them, got {(self.lower, self.upper, self.step)}'
            )

    def __len__(self) -> int:
        return round((self.upper - self.lower) / self.step)

    def points(self, reference: bool = False) -> Tensor:
        """Depth (D,) at which each bin is lifted: its middle, in the reference geometry its near edge; metres."""
        return self.lower + (torch.arange(len(self)) + (0.0 if reference else 0.5)) * self.step

    def index(self, depths: Tensor) -> Tensor:
        """Bins (...) int64 of depths (...), metres; -1 where there is none: outside the range, 0 or not finite."""
        bins = ((depths - self.lower) / self.step).floor()
        return torch.where((bins >= 0) & (bins < len(self)), bins, -1).long()


def block_bins(depths: Tensor, stride: int, bins: DepthBins) -> Tensor:
    """Depth bins of the cells of a feature map: the smallest of each block of pixels inside their range counts.

    Args:
        depths: (..., H, W), depth along the optical axis, metres, 0 where unknown; H and W are multiples of ``stride``.
        stride: Pixels per cell.
        bins: Bins.

    Returns:
        (..., H / stride, W / stride) int64, -1 where a block has no depth inside the range of the bins.
    """
    known = torch.where(bins.index(depths) >= 0, depths, torch.inf)
    blocks = known.unflatten(-1, (-1, stride)).unflatten(-3, (-1, stride))
    return bins.index(blocks.amin(dim=(-3, -1)))


def frustum_pixels(size: Sequence[int], cells: Sequence[int], reference: bool = False) -> tuple[Tensor, Tensor]:
    """Columns (w,) and rows (h,) of the cells of a feature map, pixels of the network image.

    Args:
        size: (W, H) of the network image, pixels.
        cells: (w, h) of the feature map.
        reference: Spread the cells from pixel 0 to W - 1 instead of taking their centres.
    """
    if reference:
        u, v = (torch.linspace(0, length - 1, n) for length, n in zip(size, cells))
    else:
        u, v = ((torch.arange(n) + 0.5) * (length / n) for length, n in zip(size, cells))
    return u, v


def _transform(matrix: Tensor, u: Tensor, v: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Applies (..., 4, 4) matrices to (u d, v d, d, 1) for all bins, rows and columns: three times (..., D, h, w), float32."""
    # Written out instead of a matrix product: neither autocast nor TF32 may round metres here.
    rows = matrix.to(torch.float32)[..., None, None, None]
    depth = depth.float()[:, None, None]
    x, y = u.float() * depth, v.float()[:, None] * depth
    return tuple(
        rows[..., i, 0, :, :, :] * x
        + rows[..., i, 1, :, :, :] * y
        + rows[..., i, 2, :, :, :] * depth
        + rows[..., i, 3, :, :, :]
        for i in range(3)
    )


def lift_points(ref2img: Tensor, u: Tensor, v: Tensor, depth: Tensor) -> Tensor:
    """Points of the frustums in the reference frame.

    Args:
        ref2img: (B, N, 4, 4), reference frame (metres) -> (u*d, v*d, d, 1), pixels of the network image.
        u: (w,), columns of the cells, pixels.
        v: (h,), rows of the cells, pixels.
        depth: (D,), metres.

    Returns:
        (B, N, D, h, w, 3) float32, metres.
    """
    return torch.stack(_transform(torch.linalg.inv(ref2img.double()), u, v, depth), dim=-1)


def voxel_ranks(
    points: Tensor, lower: Sequence[float], voxel_size: Sequence[float], shape: Sequence[int], reference: bool
) -> Tensor:
    """Running numbers of the voxels that contain points, counting samples slowest, then z, y and x.

    Args:
        points: (B, ..., 3), metres, reference frame.
        lower: Lower corner (x, y, z) of the grid, metres.
        voxel_size: Edge lengths (x, y, z), metres.
        shape: Voxels (X, Y, Z).
        reference: Truncate towards zero instead of rounding down.

    Returns:
        (B, ...) int64, -1 for points outside the grid.
    """
    scaled = (points - points.new_tensor(lower)) / points.new_tensor(voxel_size)
    # floats are compared, because huge ones have no integer
    index = scaled.trunc() if reference else scaled.floor()
    inside = ((index >= 0) & (index < points.new_tensor([float(n) for n in shape]))).all(-1)
    x, y, z = torch.where(inside.unsqueeze(-1), index, 0).long().unbind(-1)
    sample = torch.arange(len(points), device=points.device).view(-1, *[1] * (points.dim() - 2))
    rank = ((sample * shape[2] + z) * shape[1] + y) * shape[0] + x
    return torch.where(inside, rank, -1)


def pool_voxels(depth: Tensor, context: Tensor, ranks: Tensor, shape: Sequence[int]) -> Tensor:
    """Sums the features of all cameras in the voxels that their frustum points fall into, weighted by the depth distribution.

    The points are sorted by voxel and each voxel sums its segment, so the result does not depend on scheduling.

    Args:
        depth: (B, N, D, h, w), weights.
        context: (B, N, C, h, w), features.
        ranks: (B, N, D, h, w) int64, see :func:`voxel_ranks`; points with -1 take no part.
        shape: Voxels (X, Y, Z).

    Returns:
        (B, C, Z, Y, X) float32 or wider, 0 where no point falls.
    """
    batch, _, channels = context.shape[:3]
    dtype = torch.promote_types(torch.promote_types(depth.dtype, context.dtype), torch.float32)
    flat = ranks.flatten()
    points = flat.argsort(stable=True)[int((flat < 0).sum()) :]
    cells_per_map = ranks.shape[-2] * ranks.shape[-1]
    cells = points.div(ranks.shape[2] * cells_per_map, rounding_mode='floor') * cells_per_map + points % cells_per_map
    rows = context.to(dtype).flatten(3).transpose(2, 3).flatten(0, 2)
    weighted = depth.to(dtype).flatten().index_select(0, points)[:, None] * rows.index_select(0, cells)
    x, y, z = shape
    volume = weighted.new_zeros(batch * z * y * x, channels)
    voxels, lengths = flat[points].unique_consecutive(return_counts=True)
    # without points the sum keeps the volume in the graph, with zero gradients
    sums = torch.segment_reduce(weighted, 'sum', lengths=lengths, unsafe=True) if len(points) else weighted
    return volume.index_copy(0, voxels, sums).view(batch, z, y, x, channels).permute(0, 4, 1, 2, 3)


def warp_cells(warp: Tensor, u: Tensor, v: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of frustum points in another image.

    Args:
        warp: (..., 4, 4), (u*d, v*d, d, 1) of one image -> that of the other one, pixels and metres.
        u: (w,), columns of the cells, pixels.
        v: (h,), rows of the cells, pixels.
        depth: (D,), metres.

    Returns:
        Positions (..., D, h, w, 2), pixels of the other image, x before y; bool (..., D, h, w), False where the point lies
        behind the other camera and its position means nothing.
    """
    x, y, z = _transform(warp, u, v, depth)
    front = z >= MIN_DEPTH
    z = torch.where(front, z, 1.0)
    return torch.stack((x / z, y / z), dim=-1), front


def normalise_positions(pixels: Tensor, front: Tensor, size: Sequence[int], reference: bool = False) -> Tensor:
    """Positions in the unit of ``grid_sample``, which is called with ``align_corners=reference``.

    Args:
        pixels: (..., 2), x before y, pixels of the network image.
        front: (...) bool; where False the position becomes -2, far outside.
        size: (W, H) of the network image, pixels.
        reference: Corners of the map are the first and last pixel.

    Returns:
        (..., 2), [-1, 1] inside the image.
    """
    extent = pixels.new_tensor([float(length - (1 if reference else 0)) for length in size])
    return torch.where(front.unsqueeze(-1), pixels / extent * 2 - 1, -2.0)


def camera_vector(cameras: Cameras, scene: Tensor | None = None) -> Tensor:
    """What the depth network is told about each camera.

    Args:
        cameras: N cameras of each of B samples.
        scene: (B, 3, 3), augmentation of the scene, see ``OccBatch``; None: there is none.

    Returns:
        (B, N, 27) float32: focal lengths and centre of the original images, pixels; the upper two rows of the warp from
        original to network pixels; entries 00, 01, 10, 11 and 22 of ``scene``; the upper three rows of the pose camera ->
        reference frame without augmentation of the scene, metres. Matrices row by row.
    """
    eye = torch.eye(3, dtype=torch.float64, device=cameras.K.device)
    warp = eye.expand_as(cameras.K) if cameras.warp is None else cameras.warp
    scene = eye.expand(cameras.batch_size, 3, 3) if scene is None else scene.double()
    pose = torch.linalg.inv(scene)[:, None] @ torch.linalg.inv(cameras.ref2cam.double())[..., :3, :]
    optics = torch.stack([cameras.K[..., i, j] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2))], dim=-1)
    flips = torch.stack([scene[:, i, j] for i, j in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 2))], dim=-1)
    parts = (optics, warp[..., :2, :].flatten(2), flips[:, None].expand(-1, cameras.num_cameras, -1), pose.flatten(2))
    return torch.cat([part.float() for part in parts], dim=-1)


def lift_grid(grid: VoxelGrid, shape: Sequence[int] | None) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Shape (X, Y, Z) and voxel edges (x, y, z), metres, of the volume that features are lifted into.

    Args:
        grid: Grid of the labels, whose range is kept.
        shape: Other numbers of voxels (X, Y, Z), or None for those of the grid.
    """
    shape = grid.shape if shape is None else tuple(int(n) for n in shape)
    return shape, tuple(extent / n for extent, n in zip(grid.extent, shape))


def inside_image(positions: Tensor) -> Tensor:
    """Bool (...), True where positions (..., 2) in the unit of ``grid_sample`` lie inside the image."""
    return (positions.abs() <= 1).all(-1)


def resize_volume(volume: Tensor, size: Sequence[int]) -> Tensor:
    """Trilinear, corner-aligned resizing of a volume (B, C, Z, Y, X) to ``size`` (Z, Y, X); itself if it fits."""
    if tuple(volume.shape[2:]) == tuple(size):
        return volume
    return F.interpolate(volume, size=tuple(size), mode='trilinear', align_corners=True)
