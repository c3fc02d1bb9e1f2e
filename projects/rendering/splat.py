"""Splatting: voxel fields to images with the Gaussian rasteriser, one Gaussian per voxel."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from projects.occ.structures import Cameras, ContractedGrid, OccField, Rays, VoxelGrid

from .footprint import FOV_Y, horizontal_footprint
from .half_space import half_space
from .ray_pixels import render_pixels
from .rendered import Rendered

IDENTITY_QUAT = (1.0, 0.0, 0.0, 0.0)


def load_rasterizer() -> ModuleType:
    """Imports the rasteriser; called by the first render, so that predicting needs no rasteriser.

    Raises:
        ImportError: If it is not installed; the message says how to build it.
    """
    try:
        import gaussian_rasterization
    except ImportError as error:
        raise ImportError(
            'rendering needs the package gaussian_rasterization, which could not be imported '
            f'({error}); build it from the root of the repository with: '
            'pip install --no-build-isolation -e extensions/diff-gaussian-rasterization'
        ) from error
    return gaussian_rasterization


def shown_voxels(field: OccField, known: Tensor | None) -> Tensor | None:
    """(B, X, Y, Z) bool, voxels that take part and may be shown, or None for all."""
    if field.keep is None or known is None:
        return field.keep if known is None else known
    return field.keep & known


def visible_voxels(centers: Tensor, cameras: Cameras) -> Tensor:
    """Voxels whose centre lies in front of a camera and projects inside its image.

    A centre counts if z > 0 and it is more than half a pixel away from every image border. Prediction and label are rendered
    from the same voxels, and nothing leaks in from outside the image.

    Args:
        centers: (P, 3), metres, reference frame.
        cameras: B x N cameras.

    Returns:
        (B, N, P) bool.
    """
    visible = torch.empty(cameras.batch_size, cameras.num_cameras, len(centers), dtype=torch.bool, device=centers.device)
    ref2cam, K = cameras.ref2cam.to(centers), cameras.K.to(centers)
    for b in range(cameras.batch_size):
        for n in range(cameras.num_cameras):
            # sums of products instead of a matrix product, which some GPU settings compute in reduced precision
            x, y, z = ((centers * row[:3]).sum(-1) + row[3] for row in ref2cam[b, n, :3])
            u = K[b, n, 0, 0] * x / z + K[b, n, 0, 2]
            v = K[b, n, 1, 1] * y / z + K[b, n, 1, 2]
            width, height = cameras.sizes[b, n].tolist()
            visible[b, n] = (z > 0) & (u > 0.5) & (u < width - 0.5) & (v > 0.5) & (v < height - 0.5)
    return visible


def check_rasterizer(backend: str | None, settings: Mapping[str, Any]) -> None:
    """Looks for the backend and tries the settings when a model is built, so that a training does not fail at its first render.

    Without the package, or with one that cannot be imported, nothing happens: models predict without it, ``tools/train.py``
    asks for it before it starts, and the first render says what is missing.

    Args:
        backend: As in :class:`SplatRenderer`. None stands for ``'cuda'`` where a GPU is visible, else ``'cpu'``.
        settings: As in :class:`SplatRenderer`.

    Raises:
        TypeError: If a setting is unknown.
        ValueError: If the name of the backend is unknown or the value of a setting is out of range.
        RuntimeError: If the rasteriser was built without it; the message holds the command that builds it.
    """
    try:
        rasterizer = load_rasterizer()
    except ImportError:
        return
    known = [field.name for field in fields(rasterizer.RasterSettings)]
    if unknown := set(settings) - set(known):
        raise TypeError(f'renderer.settings has no field {", ".join(sorted(unknown))}; there are {", ".join(known)}')
    rasterizer.RasterSettings(**settings)
    if backend is not None:
        rasterizer.require_backend(backend)
        return
    try:
        rasterizer.require_backend('cuda' if torch.cuda.is_available() else 'cpu')
    except RuntimeError as error:
        raise RuntimeError(
            f"{error}\nFor a model: renderer.backend='reference', or renderer.backend='cpu' if it stays on the CPU."
        ) from error


# Rules by which a view leaves out voxels before they are splatted: (centres (P, 3), cameras) -> (B, V, P) bool.
CULLS: dict[str, Callable[[Tensor, Cameras], Tensor]] = {'inside': visible_voxels, 'half_space': half_space}


class SplatRenderer(nn.Module):
    """Splats the voxels of a field as Gaussians.

    Opacity is that of the field, the mean is the centre of the voxel, the scale is that of the field or ``gaussian_scale``.
    Features of any kind are blended as they are.

    Args:
        grid: Voxel grid or the dict that describes it.
        gaussian_scale: Standard deviation of the Gaussians of fields without scales of their own, metres; None is half the
            shortest voxel edge.
        backend: Backend of the rasteriser: None (the compiled one of the device), ``'cpu'``, ``'cuda'`` or ``'reference'``.
        settings: Fields of ``gaussian_rasterization.RasterSettings``, for example ``dict(jacobian_clamp='offcentre')``.
        fov_y: ``'own'``: both focal lengths decide the footprint of a Gaussian. ``'x'``: the horizontal one alone, as in
            GaussianOcc's released renderer and its published weights; for round Gaussians, see ``horizontal_footprint``.
        ray_reduction: For rays, which are rendered as pixels of whole images: these are smaller by this factor.
        fused: Whether losses against rendered labels are computed tile by tile where the terms fit, without images: the same
            numbers in less time and memory, see ``projects.rendering.fused``. False: never.

    Raises:
        TypeError: If a setting is unknown.
        ValueError: If the backend is unknown, or a number is out of range.
        RuntimeError: If the rasteriser is installed without the backend, see :func:`check_rasterizer`.
    """

    # what it looks through, and which quantities it renders
    accepts = (Cameras, Rays)
    quantities = ('features', 'depth', 'alpha')

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        gaussian_scale: float | None = None,
        backend: str | None = None,
        settings: Mapping[str, Any] | None = None,
        fov_y: str = 'own',
        ray_reduction: float = 1.0,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.grid = VoxelGrid.build(grid)
        self.gaussian_scale = min(self.grid.voxel_size) / 2 if gaussian_scale is None else float(gaussian_scale)
        if not self.gaussian_scale > 0:
            raise ValueError(f'gaussian_scale must be a positive length in metres, got {gaussian_scale}')
        if fov_y not in FOV_Y:
            raise ValueError(f'renderer.fov_y must be one of {FOV_Y}, got {fov_y!r}')
        if not ray_reduction >= 1:
            raise ValueError(f'renderer.ray_reduction must be at least 1, got {ray_reduction}')
        self.fov_y, self.ray_reduction = fov_y, ray_reduction
        self.backend, self.fused = backend, fused
        self.settings = dict(settings or {})
        check_rasterizer(self.backend, self.settings)
        self._centers: dict[tuple[VoxelGrid | ContractedGrid, torch.device, torch.dtype], Tensor] = {}

    def centers(self, grid: VoxelGrid | ContractedGrid, device: torch.device, dtype: torch.dtype) -> Tensor:
        """Voxel centres (P, 3), metres, computed in float64 once per grid, device and number format."""
        key = (grid, torch.device(device), dtype)
        if key not in self._centers:
            self._centers[key] = grid.centers(device, torch.float64).to(dtype).view(-1, 3)
        return self._centers[key]

    def forward(
        self, field: OccField, cameras: Cameras | Rays, known: Tensor | None = None, cull: str | None = None
    ) -> Rendered:
        """Renders B samples into V views each, whose images all have one size, or along B x R rays that are pixels of cameras.

        Args:
            field: B fields.
            cameras: B x V cameras; or rays, see :func:`render_pixels`.
            known: (B, X, Y, Z) bool, voxels that may be shown, the same for all views, or None for all.
            cull: Which voxels a view leaves out, a key of :data:`CULLS`: ``'inside'`` keeps those whose centre lies inside the
                image. None keeps all.

        Returns:
            Rendered: (B, V, H, W, ...) or (B, R, ...), in the number format of the field; differentiable in everything that
            the field holds.
        """
        if isinstance(cameras, Rays):
            return render_pixels(self, field, cameras, known, cull, self.ray_reduction)
        cameras = cameras.to(device=field.opacity.device, dtype=field.opacity.dtype)
        shown = self.shown(field, known, self.inside(field, cameras, cull))
        views = [self._rasterize(view, field) for view in self.gaussians(field, cameras, shown)]
        lead = (cameras.batch_size, cameras.num_cameras)
        return Rendered(*(torch.stack(images).unflatten(0, lead) for images in zip(*views)))

    @torch.no_grad()
    def inside(self, field: OccField, cameras: Cameras, cull: str | None) -> Tensor | None:
        """Voxels (B, V, P) that a rule, a key of :data:`CULLS`, leaves in the views, or None for all."""
        return None if cull is None else CULLS[cull](self.centers(field.grid, cameras.K.device, cameras.K.dtype), cameras)

    @staticmethod
    @torch.no_grad()
    def shown(field: OccField, known: Tensor | None, inside: Tensor | None) -> Tensor | None:
        """Voxels (B, V or 1, P) that the views show, or None for all.

        Args:
            field: Some voxels of it may not take part.
            known: (B, X, Y, Z) bool or None, as in :meth:`forward`.
            inside: (B, V, P) bool or None, of the views.
        """
        shown = shown_voxels(field, known)
        if shown is None:
            return inside
        shown = shown.flatten(1)[:, None]
        return shown if inside is None else shown & inside

    def gaussians(self, field: OccField, cameras: Cameras, shown: Tensor | None) -> Iterator['ViewGaussians']:
        """What each of the B x V views shows, sample by sample.

        Args:
            field: B fields.
            cameras: B x V cameras of one image size, on the device and in the number format of the field.
            shown: (B, V or 1, P) bool, the voxels that a view shows, or None for all.
        """
        opacity = field.opacity.flatten(1)  # (B, P)
        centers = self.centers(field.grid, opacity.device, opacity.dtype)
        # (B, P, C) as networks leave them in memory, or (B, P) class ids
        features = field.features.flatten(1) if field.has_ids else field.features.flatten(2).transpose(1, 2)
        for b in range(cameras.batch_size):
            parts = [centers, opacity[b], features[b]]
            parts += [None if part is None else part[b].flatten(0, 2) for part in (field.scales, field.quats)]
            for n in range(cameras.num_cameras):
                # one search for the voxels of a view, five gathers
                index = None if shown is None else shown[b, n if shown.shape[1] > 1 else 0].nonzero().squeeze(1)
                everything = index is None or len(index) == len(centers)
                rows = [part if part is None or everything else part.index_select(0, index) for part in parts]
                yield self._shape(*rows, cameras.ref2cam[b, n], cameras.K[b, n], cameras.width, cameras.height)

    def _shape(
        self,
        means: Tensor,
        opacities: Tensor,
        features: Tensor,
        scales: Tensor | None,
        quats: Tensor | None,
        ref2cam: Tensor,
        K: Tensor,
        width: int,
        height: int,
    ) -> 'ViewGaussians':
        """Gaussians with scales and rotations from those that the field may have."""
        if scales is None:
            scales = means.new_full((1, 1), self.gaussian_scale).expand(len(means), 3)
        if self.fov_y == 'x':
            if quats is not None:
                raise ValueError("renderer.fov_y='x' is for round Gaussians, but the field has rotated ones; use fov_y='own'")
            scales, quats = horizontal_footprint(means, scales, ref2cam, K, width, height)
        if quats is None:
            quats = means.new_tensor(IDENTITY_QUAT).expand(len(means), 4)
        return ViewGaussians((means, quats, scales, opacities, features), (ref2cam[None], K[None], width, height))

    def options(self, background: Tensor) -> dict[str, Any]:
        """Arguments that the calls of the rasteriser share, by name."""
        settings = load_rasterizer().RasterSettings(**self.settings)
        return dict(background=background, settings=settings, backend=self.backend)

    def _rasterize(self, view: 'ViewGaussians', field: OccField) -> tuple[Tensor, Tensor, Tensor]:
        """One image: features (H, W, C), depth (H, W), alpha (H, W)."""
        means = view.rows[0]
        # ids themselves: one addition per blended pair instead of one per class
        num_classes = field.num_features if field.has_ids else None
        with torch.autocast(device_type=means.device.type, enabled=False):
            options = self.options(field.background.to(means))
            out = load_rasterizer().rasterize(*view.rows, *view.camera, **options, num_classes=num_classes)
        return out.features[0], out.depth[0], out.alpha[0]


class ViewGaussians(NamedTuple):
    """What one view shows.

    Attributes:
        rows: Means (G, 3), rotations (G, 4), scales (G, 3), opacities (G,), features (G, C) or class ids (G,): the first
            arguments of the rasteriser.
        camera: ref2cam (1, 4, 4), K (1, 3, 3), width and height: the next ones.
    """

    rows: tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
    camera: tuple[Tensor, Tensor, int, int]
