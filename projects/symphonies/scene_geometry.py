"""Where scene voxels, pixels and the folded scene volume meet. Everything here is free of parameters and gradients.

The scene volume has cells (X, Y, Z), flattened with z fastest. For deformable attention it is folded into an image of X * Z
rows and Y columns in which the z slices of one x are neighbouring rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from projects.occ.structures import VoxelGrid

SURFACE_ROUNDINGS = ('compatible', 'floor')
PLANE_REFERENCES = ('compatible', 'centred')


@dataclass(frozen=True)
class SceneCells:
    """Cells of the scene volume: the voxels of a grid, ``scale`` of them along x and y and ``scale * z_scale`` along z.

    Args:
        grid: The grid at full resolution.
        scale: Voxels per cell along x and y.
        z_scale: Further factor along z.

    Raises:
        ValueError: If the factors do not divide the shape of the grid.
    """

    grid: VoxelGrid
    scale: int
    z_scale: int

    def __post_init__(self) -> None:
        if any(n % factor for n, factor in zip(self.grid.shape, self.factors)):
            raise ValueError(
                f'volume_scale {self.scale} and, along z, volume_scale * downsample_z {self.factors[2]} must divide grid.shape '
                f'{self.grid.shape}'
            )

    @property
    def factors(self) -> tuple[int, int, int]:
        """Voxels per cell along x, y, z."""
        return self.scale, self.scale, self.scale * self.z_scale

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of cells (X, Y, Z)."""
        return tuple(n // factor for n, factor in zip(self.grid.shape, self.factors))

    @property
    def number(self) -> int:
        """X * Y * Z."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def plane_size(self) -> tuple[int, int]:
        """Height and width of the folded volume."""
        return self.shape[0] * self.shape[2], self.shape[1]


def back_project(depths: Tensor, intrinsics: Tensor, ref2cam: Tensor) -> Tensor:
    """Points of the reference frame behind every pixel.

    Args:
        depths: (B, H, W), along the optical axis, metres.
        intrinsics: (B, 3, 3) float64, of the same image; pixel centres have whole coordinates.
        ref2cam: (B, 4, 4) float64, reference frame -> camera, metres.

    Returns:
        (B, H, W, 3) float64, metres.
    """
    height, width = depths.shape[-2:]
    v, u = torch.meshgrid(torch.arange(height, device=depths.device), torch.arange(width, device=depths.device), indexing='ij')
    rays = torch.stack((u, v, torch.ones_like(u)), -1).double() * depths.double().unsqueeze(-1)
    # the unchecked inverse: both are cameras, and the check would wait for a GPU
    points = torch.einsum('bij,bhwj->bhwi', torch.linalg.inv_ex(intrinsics).inverse, rays)
    cam2ref = torch.linalg.inv_ex(ref2cam).inverse
    return torch.einsum('bij,bhwj->bhwi', cam2ref[:, :3, :3], points) + cam2ref[:, None, None, :3, 3]


def cells_of_points(points: Tensor, cells: SceneCells, rounding: str = 'compatible') -> Tensor:
    """Indices of the cells that points belong to.

    Args:
        points: (..., 3) float64, metres, frame of the grid.
        cells: The scene volume.
        rounding: ``'floor'``: the cell that contains the point. ``'compatible'``: as published weights were trained, half a
            voxel is subtracted before z is scaled down, and the quotient is cut off towards zero. Along x and y, cell i then
            holds what lies i + 0.5 to i + 1.5 cells above the lower corner, and cell 0 everything from -0.5 on.

    Returns:
        (..., 3) int64, outside 0..X-1, 0..Y-1, 0..Z-1 for points outside the volume.
    """
    lower = points.new_tensor(cells.grid.lower)
    size = points.new_tensor(cells.grid.voxel_size) * cells.scale
    steps = points.new_tensor((1, 1, cells.z_scale))
    if rounding == 'floor':
        index = ((points - lower) / (size * steps)).floor()
    else:
        index = (((points - lower) / size - 0.5) / steps).trunc()
    return index.nan_to_num(nan=-1e9, posinf=1e9, neginf=-1e9).clamp(-1e9, 1e9).long()


def mark_cells(index: Tensor, valid: Tensor, cells: SceneCells) -> Tensor:
    """Cells that hold at least one point.

    Args:
        index: (B, P, 3) int64 cell of every point, possibly outside.
        valid: (B, P) bool, points that count.
        cells: The scene volume.

    Returns:
        (B, X*Y*Z) bool.
    """
    shape = index.new_tensor(cells.shape)
    inside = valid & ((index >= 0) & (index < shape)).all(-1)
    flat = (index[..., 0] * shape[1] + index[..., 1]) * shape[2] + index[..., 2]
    # one cell more for the points outside, so that nothing has to be picked
    marked = torch.zeros(len(index), cells.number + 1, dtype=torch.bool, device=index.device)
    return marked.scatter(1, torch.where(inside, flat, cells.number), True)[:, :-1]


def merge_heights(pixels: Tensor, visible: Tensor, cells: SceneCells, truncate: bool = True) -> tuple[Tensor, Tensor]:
    """Brings the projection of a grid with cubic cells to the scene volume, whose cells are ``z_scale`` times as high.

    A cell takes the mean of the two voxels around its middle (of the middle voxel if ``z_scale`` is odd) and is visible if one
    of them is.

    Args:
        pixels: (B, P, 2) int64, rounded, P voxels with z fastest.
        visible: (B, P) bool.
        cells: The scene volume.
        truncate: Cut the mean off towards zero, as published weights need it.

    Returns:
        Pixels (B, X*Y*Z, 2) float32 and visibility (B, X*Y*Z) bool.
    """
    children = pixels.unflatten(1, (-1, cells.z_scale)), visible.unflatten(1, (-1, cells.z_scale))
    below, above = (cells.z_scale - 1) // 2, cells.z_scale // 2
    total = children[0][:, :, below] + children[0][:, :, above]
    mean = torch.div(total, 2, rounding_mode='trunc') if truncate else total / 2
    return mean.float(), children[1][:, :, below] | children[1][:, :, above]


def cell_indices(cells: SceneCells, device: torch.device | str | None = None) -> Tensor:
    """Indices (X*Y*Z, 3) float32 of all cells, z fastest."""
    axes = [torch.arange(n, dtype=torch.float32, device=device) for n in cells.shape]
    return torch.stack(torch.meshgrid(*axes, indexing='ij'), -1).flatten(0, 2)


def plane_reference(index: Tensor, cells: SceneCells, rule: str = 'compatible') -> Tensor:
    """Positions of cells in the folded volume.

    Args:
        index: (..., 3) cell indices; those outside the volume are moved to its border.
        cells: The scene volume.
        rule: ``'centred'``: the centre of the cell's pixel. ``'compatible'``: as published weights were trained, indices are
            scaled so that the border cells lie at 0 and 1, and z shifts the row by up to X / 2 cells along x instead of
            within one cell (it is divided by Z instead of X). Rows may lie outside [0, 1].

    Returns:
        (..., 2), column before row, [0, 1] inside the folded volume.
    """
    shape = index.new_tensor(cells.shape)
    x, y, z = (index.clamp(min=0).minimum(shape - 1)).float().unbind(-1)
    num_x, num_y, num_z = cells.shape
    if rule == 'centred':
        return torch.stack(((y + 0.5) / num_y, (x * num_z + z + 0.5) / (num_x * num_z)), -1)
    x, y, z = x / max(num_x - 1, 1), y / max(num_y - 1, 1), z / max(num_z - 1, 1)
    return torch.stack((y, x + (z - 0.5) / num_z), -1)


def fold(scene: Tensor, cells: SceneCells) -> Tensor:
    """Scene (B, X*Y*Z, C) -> pixels of the folded volume (B, X*Z*Y, C), row by row."""
    return scene.unflatten(1, cells.shape).transpose(2, 3).flatten(1, 3)


def to_volume(scene: Tensor, cells: Sequence[int]) -> Tensor:
    """Scene (B, X*Y*Z, C) -> volume (B, C, X, Y, Z)."""
    return scene.unflatten(1, cells).permute(0, 4, 1, 2, 3)
