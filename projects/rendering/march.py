"""Ray marching: voxel fields to what rays and pixels see, by volume rendering."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projects.occ.structures import Cameras, ContractedGrid, OccField, Rays, VoxelGrid

from .march_contracted import ContractedSampling, march_contracted
from .rendered import Rendered
from .splat import load_rasterizer, shown_voxels

FORMS = ('nerf', 'dvgo', 'prob')
SAMPLINGS = ('uniform', 'mip360', 'contracted')
DEPTHS = ('z', 'range')
Z_BOUNDS = ('grid', 'ratio')
DISTORTIONS = ('width', 'count', 'flat')
# Limits of opacities that become densities. The upper one is that of the splatting renderer; a rule that is applied behind the
# interpolation makes single voxels thinner. The lower one is what that rule makes of the zeros outside the grid.
MAX_OPACITY = dict(nerf=0.99, dvgo=1 - 1e-6)
MIN_OPACITY = dict(nerf=0.0, dvgo=1e-6)
# Prefers empty space however near other voxels are.
EMPTY_LOGIT = -1e4


class MarchRenderer(nn.Module):
    """Renders fields by marching along rays, front to back, with trilinear look-up.

    A field's ``density`` is used as the form asks for it. Fields without one, labels for example, get the density that makes a
    ray lose ``opacity`` of its light when it crosses a voxel, at most 99 % as in the splatting renderer (``nerf``). Voxels that
    are not shown (``known``, ``keep``) are empty and have the features of the background. Gradients reach density and features,
    and no pose. Sources: NeRF (``nerf``), DVGO and RenderOcc (``dvgo``, ``mip360``), OccNeRF (``prob``, ``contracted``).

    Args:
        grid: Voxel grid or the dict that describes it: how densely rays are sampled. Fields may have another resolution.
        form: How density becomes opacity. ``'nerf'``: ``1 - exp(-max(density, 0) step)``, density per metre; ``'dvgo'``:
            ``1 - exp(-interval softplus(density + shift))``, see ``MarchSettings``; ``'prob'``: probabilities
            ``sigmoid(density)`` are added up until they reach 1, which needs a field that reaches to the horizon
            (``sampling='contracted'``). GaussianOcc's renderer ``density`` is ``'nerf'`` on a contracted field.
        sampling: ``'uniform'``: from where a ray enters the grid, ``step`` voxels apart; ``'mip360'``: even inside a sphere,
            ever farther apart outside, which is contracted into the grid; ``'contracted'``: for fields on a
            :class:`ContractedGrid`, whose contraction says the positions.
        step: Distance of samples in voxels, along the shortest edge (``'uniform'``) or along x.
        radius: Radius of the sphere of ``'mip360'``, metres; None: the shorter horizontal half extent minus one metre.
        max_range: Metres that a ray is followed inside the grid (``'uniform'``); None: its diagonal.
        align_corners: False: a voxel's value sits at its centre. True: outer centres sit on the borders of the grid, half a
            voxel off, as RenderOcc looks volumes up. Contracted grids are always looked up between vertices.
        depth: What ``Rendered.depth`` is: ``'z'``, along the optical axis, like measured depths and splatted ones; ``'range'``,
            along the ray, as RenderOcc compares with depths along the axis.
        depth_mode: ``'range'`` adds up ranges; ``'contracted'`` ``radius t / (radius + t)``, as RenderOcc's code does.
        z_bound: ``'grid'``: true height of the grid; ``'ratio'``: height times radius over half width, as RenderOcc.
        interval: Step in voxels in the rule of ``'dvgo'``; None: ``step``.
        last_step: Of ``'nerf'``: length of the last step, ``'repeat'`` or ``'inf'``.
        alpha_min: Samples of at most this opacity are skipped; RenderOcc: 1e-7.
        transmittance_min: A ray ends behind the sample that takes its light below this; RenderOcc: 1e-3. 0: never.
        weight_min: Samples of at most this weight count for the light alone; RenderOcc: 1e-7.
        distortion: How wide samples are in the self term of ``Rendered.distortion``: ``'width'`` as they are; ``'count'``, one
            over the samples of the ray; ``'flat'``, one over the samples of all rays of a scene, as RenderOcc's code; or a
            number. None: there is no distortion.
        contracted: Further arguments of :class:`ContractedSampling`.
        spread: Voxels that let light pass have the features of opaque ones beside them. Interpolation begins to see a surface
            half a voxel in front of it, and would mix its features with those of empty space. None: for fields whose density
            follows from their opacity; networks with a density of their own learn features on both sides.
        backend: ``'cpu'``, ``'cuda'`` or ``'reference'`` (slow); None: the compiled one of the device.

    Raises:
        ValueError: If an option is unknown or out of range, or options exclude each other.
    """

    accepts = (Rays, Cameras)

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        form: str = 'nerf',
        sampling: str = 'uniform',
        step: float = 0.5,
        radius: float | None = None,
        max_range: float | None = None,
        align_corners: bool = False,
        depth: str = 'z',
        depth_mode: str = 'range',
        z_bound: str = 'grid',
        interval: float | None = None,
        last_step: str = 'repeat',
        alpha_min: float = 0.0,
        transmittance_min: float = 0.0,
        weight_min: float = 0.0,
        distortion: str | float | None = None,
        contracted: Mapping[str, Any] | None = None,
        spread: bool | None = None,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.grid = VoxelGrid.build(grid)
        options = (('form', form, FORMS), ('sampling', sampling, SAMPLINGS), ('depth', depth, DEPTHS))
        options += (('z_bound', z_bound, Z_BOUNDS),)
        if isinstance(distortion, str):
            options += (('distortion', distortion, DISTORTIONS),)
        for name, value, known in options:
            if value not in known:
                raise ValueError(f'renderer.{name} must be one of {known}, got {value!r}')
        if not 0 < step < math.inf or max_range is not None and not 0 < max_range < math.inf:
            raise ValueError(f'renderer.step and max_range must be above 0, got {step} and {max_range}')
        if form == 'prob' and sampling != 'contracted':
            raise ValueError(
                "renderer.form='prob' adds up probabilities up to the horizon: it needs sampling='contracted' and a field with "
                "a contraction; take form='nerf' for a grid that ends"
            )
        if form == 'dvgo' and sampling == 'contracted':
            raise ValueError("renderer.form='dvgo' is for steps of equal length: take 'nerf' or 'prob' on a contracted field")
        self.form, self.sampling, self.step = form, sampling, float(step)
        self.max_range = math.dist(self.grid.lower, self.grid.upper) if max_range is None else float(max_range)
        self.depth, self.z_bound, self.distortion, self.backend = depth, z_bound, distortion, backend
        self.spread = spread
        self.contracted = ContractedSampling(step=self.step, **(contracted or {}))
        if sampling != 'mip360' and (z_bound == 'ratio' or radius is not None):
            raise ValueError(f"renderer.radius and z_bound belong to sampling='mip360', not to {sampling!r}")
        self.radius = radius
        self.options = dict(
            form=form,
            interval=self.step if interval is None else float(interval),
            last_step=last_step,
            align_corners=align_corners,
            alpha_min=alpha_min,
            transmittance_min=transmittance_min,
            weight_min=weight_min,
            depth_mode=depth_mode,
            distortion=0.0 if distortion == 'flat' else distortion,
        )
        self._plan: tuple[Any, Tensor] | None = None
        try:
            self.plan()
        except ImportError:  # models predict without the extension; the first rendering says what is missing
            pass

    def plan(self) -> tuple[Any, Tensor]:
        """The extension's ``MarchSettings`` and the ranges of the samples (S,) float64, metres.

        Raises:
            ImportError: If the extension is not installed.
            ValueError: If an option is out of range.
        """
        if self._plan is None:
            extension, grid = load_rasterizer(), self.grid
            contraction, t = None, torch.zeros(0, dtype=torch.float64)
            if self.sampling == 'mip360':
                width = min(high - low for low, high in list(zip(grid.lower, grid.upper))[:2])
                margin = 1.0 if self.radius is None else width / 2 - self.radius
                contraction = extension.MipContraction.of_grid(grid.lower, grid.voxel_size, grid.shape, self.step, margin)
                t = contraction.distances(min(grid.shape[:2]), self.step, torch.float64)
            elif self.sampling == 'uniform':
                spacing = self.step * min(grid.voxel_size)
                t = (torch.arange(max(2, math.ceil(self.max_range / spacing)), dtype=torch.float64) + 0.5) * spacing
            self._plan = extension.MarchSettings(**self.options, contraction=contraction), t
        return self._plan

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of what it renders."""
        return ('features', 'depth', 'alpha', 'transmittance', *(() if self.distortion is None else ('distortion',)))

    def forward(self, field: OccField, views: Rays | Cameras, known: Tensor | None = None, cull: str | None = None) -> Rendered:
        """Renders B samples along rays, or along the rays through the pixel centres of cameras whose images have one size.

        Args:
            field: B fields.
            views: B x R rays, or B x V cameras, in the reference frame of the grid.
            known: (B, X, Y, Z) bool, voxels that may be shown, or None for all.
            cull: A rule of the splatting renderer; rays meet only what they pass, so there is nothing to leave out.

        Returns:
            Rendered: (B, R, ...) or (B, V, H, W, ...), in the number format of the field. Rays that are not valid see empty
            space.

        Raises:
            ValueError: If the sampling does not fit the grid of the field, or views and field have different batch sizes.
        """
        if isinstance(field.grid, ContractedGrid) != (self.sampling == 'contracted'):
            raise ValueError(
                f'renderer.sampling={self.sampling!r} does not fit a field on a {type(field.grid).__name__}; '
                "'contracted' is for fields with a contraction, the others for plain grids"
            )
        if views.batch_size != len(field.opacity):
            raise ValueError(f'the field has {len(field.opacity)} samples, but the views have {views.batch_size}')
        dtype = field.opacity.dtype
        if isinstance(views, Cameras):
            lead = (views.num_cameras, views.height, views.width)
            views = pixel_rays(views.to(device=field.opacity.device, dtype=dtype))
        else:
            lead, views = None, views.to(device=field.opacity.device, dtype=dtype)
        with torch.autocast(field.opacity.device.type, enabled=False):
            rendered = self._render(field, views, shown_voxels(field, known))
        if lead is None:
            return rendered
        values = {name: getattr(rendered, name) for name in self.quantities}
        return Rendered(**{name: value.unflatten(1, lead) for name, value in values.items()})

    def bounds(self, grid: VoxelGrid) -> tuple[list[float], list[float]]:
        """Lower corner and voxel size of a grid as rays meet it, metres; see ``z_bound``."""
        lower, size = list(grid.lower), list(grid.voxel_size)
        if self.z_bound == 'ratio':
            radius = self.plan()[0].contraction.radius
            half = (grid.upper[2] - grid.lower[2]) / (grid.upper[0] - grid.lower[0]) * radius
            lower[2] = (grid.upper[2] + grid.lower[2]) / 2 - half
            size[2] = 2 * half / grid.shape[2]
        return lower, size

    def _render(self, field: OccField, rays: Rays, shown: Tensor | None) -> Rendered:
        """Renders (B, R) rays; ``shown`` (B, X, Y, Z) or None."""
        field = field.one_hot()
        density = raw_density(field, self.form, self.plan()[0].shift)
        features = field.features.movedim(1, -1)
        background = field.background.to(features)
        if shown is not None:
            density = density.masked_fill(~shown, EMPTY_LOGIT if self.form == 'prob' else 0.0)
            features = torch.where(shown[..., None], features, background)
        if field.density is None if self.spread is None else self.spread:
            features = spread_features(features, field.opacity if shown is None else field.opacity * shown)
        # rays that do not count are not finite, and those see empty space
        origin = rays.origin.masked_fill(~rays.valid[..., None], math.nan)
        if self.sampling == 'contracted':
            sums, depth, transmittance, distortion = march_contracted(
                density, features, field.grid, replace(rays, origin=origin), self.form, self.contracted, self.training
            )
            alpha = 1 - transmittance
        else:
            entry = 0.0
            if self.sampling == 'uniform':
                entry = entry_range(origin, rays.direction, field.grid)
                origin = origin + entry[..., None] * rays.direction
            out, distortion = self._march(density, features, field.grid, origin, rays.direction)
            sums, alpha, transmittance, depth = out.features, out.alpha, out.transmittance, out.depth + entry * out.alpha
        if self.depth == 'z':
            depth = depth * rays.depth_per_range
        return Rendered(
            features=sums + transmittance[..., None] * background,
            depth=depth,
            alpha=alpha,
            transmittance=transmittance,
            distortion=None if self.distortion is None else distortion,
            valid=rays.valid,
        )

    def _march(self, density: Tensor, features: Tensor, grid: VoxelGrid, origin: Tensor, direction: Tensor):
        """What the extension returns, and the distortion."""
        settings, t = self.plan()
        t, (lower, size) = t.to(density), self.bounds(grid)

        def march(settings: Any, rows: slice, with_features: bool = True):
            return load_rasterizer().march_rays(
                density[rows],
                features[rows] if with_features else None,
                lower,
                size,
                origin[rows],
                direction[rows],
                t,
                settings,
                self.backend,
            )

        if self.distortion != 'flat':
            out = march(settings, slice(None))
            return out, out.distortion
        parts = []
        for sample in range(len(density)):
            rows = slice(sample, sample + 1)
            with torch.no_grad():
                count = int(march(replace(settings, distortion=None), rows, with_features=False).count.sum())
            parts.append(march(replace(settings, distortion=1 / max(count, 1)), rows))
        out = type(parts[0])(*(None if values[0] is None else torch.cat(values) for values in zip(*parts)))
        return out, out.distortion


def pixel_rays(cameras: Cameras) -> Rays:
    """Rays through the centres of all pixels, (B, V * H * W), view by view and row by row."""
    width, height = cameras.width, cameras.height
    device = cameras.ref2cam.device
    v, u = torch.meshgrid(torch.arange(height, device=device) + 0.5, torch.arange(width, device=device) + 0.5, indexing='ij')
    uv = torch.stack([u, v], -1).reshape(1, -1, 2).expand(cameras.batch_size, -1, -1)
    parts = [cameras.rays(torch.full(uv.shape[:2], view, device=device), uv) for view in range(cameras.num_cameras)]
    names = ('origin', 'direction', 'depth_per_range', 'valid')
    return Rays(**{name: torch.cat([getattr(part, name).detach() for part in parts], 1) for name in names})


def entry_range(origin: Tensor, direction: Tensor, grid: VoxelGrid) -> Tensor:
    """Ranges at which rays enter the box of a grid, half a voxel enlarged, where trilinear look-up begins.

    Args:
        origin: (B, R, 3), metres.
        direction: (B, R, 3).
        grid: Voxel grid.

    Returns:
        (B, R), metres; 0 for rays that begin inside or miss it.
    """
    size = origin.new_tensor(grid.voxel_size)
    lower, upper = origin.new_tensor(grid.lower) - size / 2, origin.new_tensor(grid.upper) + size / 2
    first, second = (lower - origin) / direction, (upper - origin) / direction
    near, far = torch.minimum(first, second), torch.maximum(first, second)
    # a ray along a wall of the box: 0 / 0, no limit
    enter, leave = near.nan_to_num(-math.inf).amax(-1), far.nan_to_num(math.inf).amin(-1)
    return torch.where((enter > 0) & (enter < leave), enter, 0.0).nan_to_num(0.0, posinf=0.0)


def spread_features(features: Tensor, opacity: Tensor, floor: float = 1e-4) -> Tensor:
    """Features of transparent voxels from opaque neighbours.

    Args:
        features: (B, X, Y, Z, C).
        opacity: (B, X, Y, Z).
        floor: A voxel without neighbours that are more opaque than this keeps its own.

    Returns:
        (B, X, Y, Z, C), ``o f + (1 - o) g``; g is the mean over the 27 voxels around, weighted by their opacity.
    """
    share = opacity.unsqueeze(-1)
    total = torch.cat([share * features, share], -1).movedim(-1, 1)
    for kernel in ((3, 1, 1), (1, 3, 1), (1, 1, 3)):
        total = F.avg_pool3d(total, kernel, 1, [n // 2 for n in kernel])
    total = total.movedim(1, -1) * 27
    around = (total[..., :-1] + floor * features) / (total[..., -1:] + floor)
    return share * features + (1 - share) * around


def raw_density(field: OccField, form: str, shift: float) -> Tensor:
    """(B, X, Y, Z), the density of a field as a form of :class:`MarchRenderer` reads it; ``shift`` is that of ``'dvgo'``."""
    if field.density is not None:
        return field.density
    if form == 'prob':
        return field.opacity.logit(eps=1e-6)
    opacity = field.opacity.clamp(MIN_OPACITY[form], MAX_OPACITY[form])
    depth = -torch.log1p(-opacity)
    if form == 'nerf':
        size = field.grid.voxel_size if isinstance(field.grid, VoxelGrid) else None
        return depth / (min(size) if size else contracted_cell(field.grid))
    # the inverse of softplus(x + shift) = depth
    return depth + opacity.log() - shift


def contracted_cell(grid: ContractedGrid) -> float:
    """Edge of a cell in the linear range of a contracted grid along its shortest axis, metres."""
    low, high = grid.point_cloud_range[:3], grid.point_cloud_range[3:]
    return min((b - a) / (n - 1) / grid.ratio for a, b, n in zip(low, high, grid.shape))
