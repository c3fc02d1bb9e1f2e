"""Ray marching through fields on a contracted grid, in PyTorch operations (OccNeRF's renderer)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from projects.occ.structures import ContractedGrid, Rays

from .splat import load_rasterizer

# Samples of a ray are skipped when no axis has moved on by this much over the number of its vertices, of -1 to 1.
SKIPPED_SHARE = 0.4
LAST_STEP = 1e4
"""Metres of the last step where steps have a length."""


@dataclass(frozen=True)
class ContractedSampling:
    """Where rays are looked up.

    Args:
        step: Distance of samples in voxels of the linear range.
        near: Depth of the first sample, metres.
        jitter: In training samples of a ray move together by up to this share of ``step``, forwards or backwards.
        group: Features are looked up once for so many samples, at their mean position; 1: at every sample. OccNeRF: 4.
        chunk: Rays that are looked up at once; more are recomputed in the backward pass.

    Raises:
        ValueError: If a number is out of range.
    """

    step: float = 0.5
    near: float = 0.1
    jitter: float = 0.1
    group: int = 1
    chunk: int = 4096

    def __post_init__(self) -> None:
        if self.step <= 0 or self.near < 0 or self.jitter < 0 or self.group < 1 or self.chunk < 1:
            raise ValueError(
                f'renderer.contracted: step, group and chunk must be positive, near and jitter not below 0: {self}'
            )

    def depths(self, grid: ContractedGrid) -> tuple[Tensor, float]:
        """Depths (N,) float64 of the samples without ``near``, and the edge of a voxel, metres."""
        low, high = grid.point_cloud_range[:3], grid.point_cloud_range[3:]
        extent = [b - a for a, b in zip(low, high)]
        voxel = (math.prod(extent) / int(math.prod(grid.shape) * grid.ratio**3)) ** (1 / 3)
        diagonal = math.dist(low, high)
        count = int(diagonal / 2 / self.step / voxel / grid.ratio)
        line = ContractedGrid((-diagonal,) * 3 + (diagonal,) * 3, (2, 2, 2), grid.ratio, (0.1,) * 3)
        share = torch.linspace(0, 1 - 0.5 / grid.shape[0], count, dtype=torch.float64)
        return line.expand(share[:, None].expand(-1, 3))[:, 0], voxel


def march_contracted(
    density: Tensor, features: Tensor, grid: ContractedGrid, rays: Rays, form: str, sampling: ContractedSampling, training: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Marches.

    Args:
        density: (B, X, Y, Z), as ``form`` reads it.
        features: (B, X, Y, Z, C).
        grid: Its contracted grid.
        rays: (B, R); those that are not finite see empty space.
        form: ``'nerf'`` or ``'prob'``.
        sampling: Where to look.
        training: Whether samples are moved by chance.

    Returns:
        Features (B, R, C), range (B, R) in metres, light (B, R) that is left, and distortion (B, R) over depths in metres.
    """
    depths, voxel = sampling.depths(grid)
    depths = depths.to(density)
    origin, direction = rays.origin, rays.direction / rays.depth_per_range[..., None]
    shift = torch.zeros_like(rays.depth_per_range)
    if training and sampling.jitter:
        shift = (torch.rand_like(shift) * 2 - 1) * sampling.jitter * sampling.step * voxel
    parts = []
    for b in range(len(density)):
        # one volume of density and features, as grid_sample wants it
        volume = torch.cat([density[b, ..., None], features[b]], -1).movedim(-1, 0)[None]
        rows = []
        for start in range(0, max(1, rays.num_rays), sampling.chunk):
            part = slice(start, start + sampling.chunk)
            given = (volume, origin[b, part], direction[b, part], shift[b, part], depths, grid, form, sampling)
            many = torch.is_grad_enabled() and volume.requires_grad and rays.num_rays > sampling.chunk
            rows.append(checkpoint(_march, *given, use_reentrant=False) if many else _march(*given))
        parts.append([torch.cat(values) for values in zip(*rows)])
    sums, depth, light, distortion = (torch.stack(values) for values in zip(*parts))
    return sums, depth / rays.depth_per_range, light, distortion


def _look_up(volume: Tensor, contracted: Tensor) -> Tensor:
    """(n, S, C) of a volume (1, C, X, Y, Z) at contracted positions (n, S, 3), zeros outside."""
    values = F.grid_sample(volume, contracted.flip(-1)[None, :, :, None], padding_mode='zeros', align_corners=True)
    return values[0, ..., 0].permute(1, 2, 0)


def _march(volume, origin, direction, shift, depths, grid, form, sampling):
    """March (n, 3) rays through one volume (1, 1 + C, X, Y, Z)."""
    rasterizer = load_rasterizer()
    finite = (origin.isfinite().all(-1) & direction.isfinite().all(-1))[:, None]
    z = (depths + shift[:, None]).clamp(min=0) + sampling.near
    points = torch.where(finite[..., None], origin[:, None] + direction[:, None] * z[..., None], 0.0)
    contracted = grid.contract(points)
    cell = contracted.new_tensor([SKIPPED_SHARE / n for n in grid.shape])
    moved = contracted.diff(dim=1, prepend=torch.zeros_like(contracted[:, :1])).abs()
    kept = (moved > cell).any(-1) & finite
    length = direction.norm(dim=-1, keepdim=True).nan_to_num(0.0)
    width = F.pad(z.diff(dim=1) * length, (0, 1), value=LAST_STEP)
    values = _look_up(volume[:, :1], contracted)[..., 0]
    if form == 'prob':
        probability = torch.where(kept, values.sigmoid(), 0.0)
        # whatever is left is at the horizon, if that was not looked at
        last = torch.where(kept[:, -1], probability[:, -1], finite[:, 0].to(probability))
        weights, light, _ = rasterizer.probability_weights(torch.cat([probability[:, :-1], last[:, None]], 1))
    else:
        weights, light, _ = rasterizer.ray_weights(torch.where(kept, values.clamp(min=0) * width, 0.0))
    places, shares = contracted, weights
    if sampling.group > 1:
        # what is left over behind the last whole group has no features
        whole = z.shape[1] // sampling.group * sampling.group

        def grouped(x: Tensor) -> Tensor:
            return x[:, :whole].unflatten(1, (-1, sampling.group))

        places = grid.contract(grouped(points).mean(2))
        shares = torch.where(grouped(kept).any(2), grouped(weights).sum(2), 0.0)
    sums = torch.einsum('ns,nsc->nc', shares, _look_up(volume[:, 1:], places))
    return sums, (weights * z).sum(-1), light, rasterizer.ray_distortion(weights, z, width)
