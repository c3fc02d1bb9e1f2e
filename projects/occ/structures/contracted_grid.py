"""Vertices of a grid that is linear inside a range and reaches to the horizon outside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class ContractedGrid:
    """A grid over a contracted space, axis by axis: the inner part is linear, the rest holds everything farther out.

    An axis runs from -1 to 1 in contracted coordinates, and its vertices lie at ``2 i / (n - 1) - 1``, so that the first and
    the last one would be at infinity; they are drawn in by ``margin``. Volumes are indexed ``volume[..., ix, iy, iz]``. The
    contraction is that of OccNeRF and GaussianOcc.

    Args:
        point_cloud_range: Linear range (x_min, y_min, z_min, x_max, y_max, z_max), metres.
        shape: Number of vertices (X, Y, Z).
        ratio: Share of an axis that the linear range takes, between 0 and 1.
        margin: Steps by which the outermost vertices of x, y, z are drawn in.

    Raises:
        ValueError: If a number cannot be meant.
    """

    point_cloud_range: tuple[float, ...]
    shape: tuple[int, int, int]
    ratio: float = 0.66667
    margin: tuple[float, float, float] = (0.5, 0.5, 0.05)

    def __post_init__(self) -> None:
        values = tuple(float(v) for v in self.point_cloud_range)
        shape = tuple(int(n) for n in self.shape)
        margin = tuple(float(m) for m in self.margin)
        if len(values) != 6 or any(low >= high for low, high in zip(values[:3], values[3:])):
            raise ValueError(
                f'contraction.point_cloud_range must be (x_min, y_min, z_min, x_max, y_max, z_max) with min < max, got {values}'
            )
        if len(shape) != 3 or min(shape) < 2:
            raise ValueError(f'contraction.shape must be three numbers of vertices, at least 2 each, got {shape}')
        if not 0 < self.ratio < 1:
            raise ValueError(f'contraction.ratio must lie between 0 and 1, got {self.ratio}')
        if len(margin) != 3 or any(not 0 < m < (n - 1) / 2 for m, n in zip(margin, shape)):
            raise ValueError(
                f'contraction.margin must be three numbers above 0 and below half an axis, got {margin} for {shape}'
            )
        for key, value in (('point_cloud_range', values), ('shape', shape), ('margin', margin)):
            object.__setattr__(self, key, value)

    @classmethod
    def build(cls, grid: Union['ContractedGrid', Mapping[str, Any]]) -> 'ContractedGrid':
        """Returns ``grid`` itself or the grid that a config dict describes.

        Raises:
            TypeError: If ``grid`` is neither, or the dict has missing or unknown keys.
        """
        if isinstance(grid, cls):
            return grid
        if not isinstance(grid, Mapping):
            raise TypeError(f'contraction must be a ContractedGrid or a dict of its fields, got {type(grid).__name__}')
        try:
            return cls(**grid)
        except TypeError as error:
            raise TypeError(f'contraction must have the keys {tuple(cls.__dataclass_fields__)}: {error}') from None

    @property
    def num_voxels(self) -> int:
        """X * Y * Z."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def border(self) -> float:
        """End of the linear part in units in which the contracted axis ends at ``1 + border``."""
        return self.ratio / (1 - self.ratio)

    def _range(self, like: Tensor) -> tuple[Tensor, Tensor]:
        low, high = like.new_tensor(self.point_cloud_range[:3]), like.new_tensor(self.point_cloud_range[3:])
        return low, high - low

    def contract(self, points: Tensor) -> Tensor:
        """Contracted coordinates.

        Args:
            points: (..., 3), metres.

        Returns:
            (..., 3), each between -1 and 1.
        """
        low, extent = self._range(points)
        border = self.border
        scaled = border * (2 * (points - low) / extent - 1)
        beyond = scaled.abs() > border
        # clamped, so that the branch that is not taken has no infinite gradient
        outside = scaled.sign() * (1 + border - 1 / (scaled.abs().clamp(min=border) + 1 - border))
        return torch.where(beyond, outside, scaled) / (1 + border)

    def expand(self, contracted: Tensor) -> Tensor:
        """Metric points of contracted coordinates, the inverse of :meth:`contract`.

        Args:
            contracted: (..., 3), each between -1 and 1, without the ends.

        Returns:
            (..., 3), metres.
        """
        low, extent = self._range(contracted)
        border = self.border
        scaled = contracted * (1 + border)
        outside = scaled.sign() * (border - 1 + 1 / (border + 1 - scaled.abs().clamp(min=border)))
        linear = torch.where(scaled.abs() > border, outside, scaled)
        return 0.5 * (linear / border + 1) * extent + low

    def centers(self, device: str | torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Metric positions of all vertices, (X, Y, Z, 3), computed in double precision because the outer ones are far away."""
        axes = []
        for size, margin in zip(self.shape, self.margin):
            index = torch.arange(size, device=device, dtype=torch.float64).clamp(margin, size - 1 - margin)
            axes.append(2 * index / (size - 1) - 1)
        return self.expand(torch.stack(torch.meshgrid(*axes, indexing='ij'), dim=-1)).to(dtype)

    def sample(self, volume: Tensor, points: Tensor) -> Tensor:
        """Looks a volume up at metric points, trilinear.

        Args:
            volume: (B, C, X, Y, Z), values at the vertices.
            points: (..., 3), metres, the same for all of the batch.

        Returns:
            (B, C, ...).

        Raises:
            ValueError: If the volume is not one over this grid.
        """
        if tuple(volume.shape[-3:]) != self.shape:
            raise ValueError(f'the volume must be (B, C, {", ".join(map(str, self.shape))}), got {tuple(volume.shape)}')
        # torch names the last axis of a volume first
        where = self.contract(points).flip(-1).reshape(1, -1, 1, 1, 3).expand(len(volume), -1, -1, -1, -1)
        values = F.grid_sample(volume, where.to(volume.dtype), mode='bilinear', padding_mode='zeros', align_corners=True)
        return values.reshape(*volume.shape[:2], *points.shape[:-1])

    def gaussian_scales(self, points: Tensor, scale: float, steps: Sequence[tuple[float, float]]) -> Tensor:
        """Radii of the Gaussians at vertices: larger where the vertices lie farther apart.

        Args:
            points: (..., 3), metres.
            scale: Standard deviation inside, metres.
            steps: Pairs (distance from the origin in metres, factor), from near to far; the last one that is exceeded counts.
                GaussianOcc: (60, 4), (80, 8).

        Returns:
            (...), metres.
        """
        distance = points.norm(dim=-1)
        scales = torch.full_like(distance, scale)
        for beyond, factor in steps:
            scales = torch.where(distance > beyond, scale * factor, scales)
        return scales
