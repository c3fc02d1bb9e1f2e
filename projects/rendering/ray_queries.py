"""Supervision along measured rays without rendering: a field is looked up at points in front of the surface and inside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projects.occ.structures import Cameras, OccBatch, OccField, Rays, VoxelGrid

from .losses import TAKES, VIEW_ERRORS
from .rendered import Rendered
from .targets import RayTarget
from .targets.target import Values

# a look-up that is certain must not make a loss of infinity
MARGIN = 1e-6


@dataclass(frozen=True)
class QueriedRays(Rendered):
    """What a field holds at the points of rays; ``features`` are those of the hit points, ``alpha`` their opacity.

    Attributes:
        opacity: (B, R, K + 1), of the K free points and, last, of the hit point; NaN at points that do not count.
    """

    opacity: Tensor | None = None


class RayQueries(nn.Module):
    """Takes the place of a renderer, but only looks a field up.

    On a ray with a measured range d there are K free points at ranges that are stratified-uniform in (near, d - v), v the
    longest edge of a voxel, as far as the ray is inside the grid; and one hit point at d + v / 2, inside the voxel of the
    surface. Nothing is asked behind it. Opacity and features are trilinear between voxel centres.

    Args:
        grid: Voxel grid or the dict that describes it.
        free_points: K.
        near: Free points begin at this range, metres.
        open_rays: Whether rays without a measured depth (sky) are free up to the border of the grid; only if the data set gives
            such rays: ``MeasuredRays`` leaves rays of depth 0 out.

    Raises:
        ValueError: If there is no free point, or ``near`` is negative.
    """

    accepts = (Rays,)
    quantities = ('opacity', 'features', 'alpha')

    def __init__(
        self, grid: VoxelGrid | Mapping[str, Any], free_points: int = 8, near: float = 0.0, open_rays: bool = False
    ) -> None:
        super().__init__()
        self.grid = VoxelGrid.build(grid)
        if free_points < 1 or not near >= 0:
            raise ValueError(f'renderer.free_points must be at least 1 and near at least 0, got {free_points} and {near}')
        self.free_points, self.near, self.open_rays = free_points, float(near), open_rays

    def forward(self, field: OccField, rays: Rays, known: Tensor | None = None, cull: str | None = None) -> QueriedRays:
        """Looks B fields up.

        Args:
            field: On the grid, with a gradient to opacity and features.
            rays: (B, R), with measured ``depth``.
            known: (B, X, Y, Z) bool, voxels that may be asked, or None for all: points in others do not count.
            cull: Not needed.

        Returns:
            QueriedRays: ``depth`` is the range of the hit point along the optical axis, measured and without gradient.

        Raises:
            ValueError: If the rays have no depths, or the field lies on another grid.
        """
        if rays.depth is None:
            raise ValueError('RayQueries needs measured depths of rays, but these rays have none')
        if not isinstance(field.grid, VoxelGrid) or tuple(field.opacity.shape[1:]) != self.grid.shape:
            raise ValueError(
                f'RayQueries looks fields up on a grid of shape {self.grid.shape}, got one of {tuple(field.opacity.shape[1:])}'
            )
        field = field.one_hot()
        t, asked = self.points(rays)
        points = rays.origin.unsqueeze(2) + t.unsqueeze(-1) * rays.direction.unsqueeze(2)
        with torch.autocast(points.device.type, enabled=False):
            opacity = trilinear(field.opacity.unsqueeze(1), points.to(field.opacity.dtype), self.grid)[..., 0]
            features = trilinear(field.features, points[:, :, -1:].to(field.features.dtype), self.grid)[:, :, 0]
        if known is not None:
            asked = asked & (trilinear(known.unsqueeze(1).to(points.dtype), points, self.grid, 'nearest')[..., 0] > 0.5)
        hit = asked[..., -1]
        depth = torch.where(hit, t[..., -1] * rays.depth_per_range, 0.0)
        return QueriedRays(features, depth, opacity[..., -1], valid=hit, opacity=opacity.masked_fill(~asked, torch.nan))

    @torch.no_grad()
    def points(self, rays: Rays) -> tuple[Tensor, Tensor]:
        """Draws the points of rays.

        Returns:
            Ranges (B, R, K + 1), metres, increasing, the hit point last; and a bool tensor alike, points that count.
        """
        voxel, count = max(self.grid.voxel_size), self.free_points
        enter, leave = self._inside(rays)
        measured = rays.valid & rays.depth.isfinite() & (rays.depth > 0)
        distance = torch.where(measured, rays.depth / rays.depth_per_range, torch.inf)
        begin, end = enter.clamp(min=self.near), torch.minimum(distance - voxel, leave)
        free = rays.valid & (end > begin) & (measured | self.open_rays)
        begin, end = (torch.where(free, bound, 0.0) for bound in (begin, end))
        places = torch.arange(count, device=begin.device, dtype=begin.dtype)
        places = (places + torch.rand(*begin.shape, count, device=begin.device, dtype=begin.dtype)) / count
        inside = measured & (distance + voxel / 2 > enter) & (distance + voxel / 2 < leave)
        hit = torch.where(inside, distance + voxel / 2, 0.0)
        t = torch.cat([begin.unsqueeze(-1) + places * (end - begin).unsqueeze(-1), hit.unsqueeze(-1)], -1)
        return t, torch.cat([free.unsqueeze(-1).expand(*free.shape, count), inside.unsqueeze(-1)], -1)

    def _inside(self, rays: Rays) -> tuple[Tensor, Tensor]:
        """Ranges (B, R) between which rays are inside the grid; the first is the larger one if they never are."""
        lower, upper = (rays.origin.new_tensor(corner) for corner in (self.grid.lower, self.grid.upper))
        # a direction of 0 gives infinities of the right signs, on the border itself NaN, which counts as outside
        a, b = ((bound - rays.origin) / rays.direction for bound in (lower, upper))
        enter, leave = torch.minimum(a, b).amax(-1), torch.maximum(a, b).amin(-1)
        outside = enter.isnan() | leave.isnan()
        return enter.clamp(min=0).masked_fill(outside, torch.inf), leave.masked_fill(outside, 0.0)


def trilinear(volume: Tensor, points: Tensor, grid: VoxelGrid, mode: str = 'bilinear') -> Tensor:
    """Looks volumes up between voxel centres; beyond the outer centres their values continue.

    Args:
        volume: (B, C, X, Y, Z).
        points: (B, R, S, 3), metres.
        grid: Its grid.
        mode: ``'bilinear'`` (which is trilinear here) or ``'nearest'``.

    Returns:
        (B, R, S, C).
    """
    lower, extent = points.new_tensor(grid.lower), points.new_tensor(grid.extent)
    # grid_sample names the last axis first
    places = (2 * (points - lower) / extent - 1).flip(-1).unsqueeze(1)
    found = F.grid_sample(volume, places, mode=mode, padding_mode='border', align_corners=False)
    return found[:, :, 0].movedim(1, -1)


class RayQueryTarget(RayTarget):
    """What the points of measured rays should be: free in front of the surface, occupied inside it, of its class there.

    Args:
        grid: Voxel grid or the dict that describes it.
        labels: Whether rays have classes.
    """

    value_kinds = {'features': 'class ids', 'opacity': 'points'}

    def __init__(self, grid: VoxelGrid | Mapping[str, Any], labels: bool = True) -> None:
        super().__init__(grid, depth='z', labels=labels)
        self.quantities = ('opacity', *(('features',) if labels else ()))

    def __call__(
        self, batch: OccBatch, views: Cameras | Rays, renderer: Callable[[OccField, Cameras | Rays], Rendered]
    ) -> dict[str, Values]:
        """Values of the rays.

        Returns:
            ``features``: class ids (B, R) int64, where there is one; ``opacity``: (B, R, 1), 1 where a depth was measured.
        """
        values = super().__call__(batch, views, renderer)
        depth, measured = values.pop('depth')
        return dict(values, opacity=(measured.to(depth.dtype).unsqueeze(-1), None))


def point_cross_entropy(pred: Tensor, value: Tensor, mask: Tensor | None, lead: int) -> tuple[Tensor, Tensor]:
    """Binary cross entropy of the opacity at the points of rays: free points weigh 1 / K each, the hit point 1.

    Args:
        pred: (B, R, K + 1), opacities, the hit point last, NaN at points that do not count.
        value: Not needed: what a point should be follows from its place.
        mask: Not needed: rays whose surface lies outside the grid have free points.
        lead: 1.

    Returns:
        Means over the rays with a point that counts, (B,), and whether there is one.
    """
    there = ~pred.isnan()
    with torch.autocast(pred.device.type, enabled=False):
        pred = torch.where(there, pred, 0.5).clamp(MARGIN, 1 - MARGIN)
        errors = torch.cat([-torch.log1p(-pred[..., :-1]) / (pred.shape[-1] - 1), -pred[..., -1:].log()], -1)
    errors = torch.where(there, errors, 0.0).sum(-1)
    rays = there.any(-1).sum(-1)
    return errors.sum(-1) / rays.clamp(min=1), rays > 0


VIEW_ERRORS['point_cross_entropy'] = point_cross_entropy
TAKES['point_cross_entropy'] = (('opacity',), 'points')
