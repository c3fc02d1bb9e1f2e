"""Gaussians and label grids to class, depth and alpha images with the rasteriser."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from projects.occ.structures import VoxelGrid

from .cameras import CameraBatch
from .gaussians import Gaussians, as_grid, compute_dtype

IDENTITY_QUAT = (1.0, 0.0, 0.0, 0.0)


@dataclass
class RenderedViews:
    """Images of N views of B scenes; all float32 (float64 for float64 input).

    Attributes:
        sem: (B, N, H, W, C), class probabilities; they sum to 1 in every pixel, what no Gaussian covers is the free class.
        depth: (B, N, H, W), sum of (blending weight x camera z), metres; not divided by alpha, 0 where nothing is.
        alpha: (B, N, H, W), sum of blending weights, in [0, 1).
    """

    sem: Tensor
    depth: Tensor
    alpha: Tensor


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


def visible_voxels(centers: Tensor, cameras: CameraBatch) -> Tensor:
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
            visible[b, n] = (z > 0) & (u > 0.5) & (u < cameras.width - 0.5) & (v > 0.5) & (v < cameras.height - 0.5)
    return visible


def labels_from_points(labels: Tensor, points: list[Tensor], grid: VoxelGrid) -> Tensor:
    """Label grids that know only the voxels which a labelled LiDAR point hits.

    Args:
        labels: (B, X, Y, Z) int64; only its shape and device count.
        points: One (M, 4) tensor per scene with x, y, z (metres, reference frame) and class id. If several points hit a voxel,
            the last one decides.
        grid: Voxel grid.

    Returns:
        (B, X, Y, Z) int64, ``grid.ignore_index`` in all other voxels.

    Raises:
        ValueError: If there is not one (M, 4) tensor per scene or a class id is unknown.
    """
    if len(points) != len(labels) or any(p.dim() != 2 or p.shape[1] != 4 for p in points):
        raise ValueError(
            f'points must be a list of {len(labels)} tensors (M, 4) with x, y, z, class id, '
            f'got {[tuple(p.shape) for p in points]}'
        )
    sparse = torch.full_like(labels, grid.ignore_index).flatten(1)
    lower, size, shape = (torch.tensor(v, dtype=torch.float64) for v in (grid.lower, grid.voxel_size, grid.shape))
    for target, cloud in zip(sparse, points):
        cloud = cloud.to(labels.device).double()
        index = torch.floor((cloud[:, :3] - lower.to(cloud)) / size.to(cloud))
        inside = ((index >= 0) & (index < shape.to(cloud))).all(-1)
        ids = cloud[inside, 3].long()
        if bool(((ids < 0) | (ids >= grid.num_classes)).any()):
            raise ValueError(f'points: class ids must lie in 0..{grid.num_classes - 1}, got up to {int(ids.max())}')
        index = index[inside].long()
        flat = (index[:, 0] * grid.shape[1] + index[:, 1]) * grid.shape[2] + index[:, 2]
        # duplicate writes have no defined winner: find the last point of every voxel first
        order = torch.arange(len(flat), device=flat.device)
        last = torch.full((grid.num_voxels,), -1, device=flat.device).scatter_reduce_(0, flat, order, 'amax')
        hit = last >= 0
        target[hit] = ids[last[hit]]
    return sparse.view_as(labels)


def check_rasterizer(backend: str | None, settings: Mapping[str, Any]) -> None:
    """Looks for the backend and tries the settings when a model is built, so that a training does not fail at its first render.

    Without the package, or with one that cannot be imported, nothing happens: models predict without it, ``tools/train.py``
    asks for it before it starts, and the first render says what is missing.

    Args:
        backend: As in :class:`GaussianRenderer`. None stands for ``'cuda'`` where a GPU is visible, else ``'cpu'``.
        settings: As in :class:`GaussianRenderer`.

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


class GaussianRenderer(nn.Module):
    """Renders Gaussians and label grids of one voxel grid.

    Args:
        grid: Voxel grid or the dict that describes it.
        num_classes: Number of classes with the free one; None takes it from the grid.
        gaussian_scale: Standard deviation of the Gaussians of a *label* grid, metres.
        backend: Backend of the rasteriser: None (the compiled one of the device), ``'cpu'``, ``'cuda'`` or ``'reference'``.
        settings: Fields of ``gaussian_rasterization.RasterSettings``, for example ``dict(jacobian_clamp='offcentre')``.

    Raises:
        TypeError: If a setting is unknown.
        ValueError: If the backend is unknown or the value of a setting is out of range.
        RuntimeError: If the rasteriser is installed without the backend, see :func:`check_rasterizer`.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        num_classes: int | None = None,
        gaussian_scale: float = 0.25,
        backend: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.num_classes = as_grid(grid, num_classes)
        self.gaussian_scale = gaussian_scale
        self.backend = backend
        self.settings = dict(settings or {})
        check_rasterizer(self.backend, self.settings)

    def forward(self, gaussians: Gaussians, cameras: CameraBatch, visible: Tensor | None = None) -> RenderedViews:
        """Renders a batch of predicted scenes.

        Class logits become probabilities here, right before they are blended.

        Args:
            gaussians: B scenes.
            cameras: B x N cameras.
            visible: (B, N, P) bool, Gaussians that each view may show, or None for all.

        Returns:
            RenderedViews: Differentiable in every tensor of ``gaussians``.
        """
        # rotating an isotropic Gaussian only adds rounding, and a gradient of zero that is costly to compute
        quats = gaussians.quats
        if gaussians.isotropic:
            quats = quats.new_tensor(IDENTITY_QUAT).expand_as(quats)
        views = []
        for b in range(cameras.batch_size):
            for n in range(cameras.num_cameras):
                mask = None if visible is None else visible[b, n]
                if gaussians.keep is not None:
                    mask = gaussians.keep[b] if mask is None else mask & gaussians.keep[b]

                def rows(tensor: Tensor, scene: int = b, mask: Tensor | None = mask) -> Tensor:
                    return tensor[scene] if mask is None else tensor[scene][mask]

                views.append(
                    self._rasterize(
                        rows(gaussians.means),
                        rows(quats),
                        rows(gaussians.scales),
                        rows(gaussians.opacities),
                        rows(gaussians.features).to(compute_dtype(gaussians.features)).softmax(-1),
                        (cameras.ref2cam[b, n], cameras.K[b, n], cameras.width, cameras.height),
                    )
                )
        return self._stack(views, cameras)

    @torch.no_grad()
    def render_labels(self, labels: Tensor, cameras: CameraBatch, visible: Tensor | None = None) -> RenderedViews:
        """Renders a batch of label grids: one opaque Gaussian per occupied, labelled voxel.

        Args:
            labels: (B, X, Y, Z) int64.
            cameras: B x N cameras.
            visible: (B, N, P) bool, voxels that each view may show, or None for all.

        Returns:
            RenderedViews: Without gradient, dtype of ``cameras.ref2cam``.
        """
        centers = self.grid.centers(labels.device, torch.float64).to(compute_dtype(cameras.ref2cam)).view(-1, 3)
        occupied = ((labels != self.grid.free_index) & (labels != self.grid.ignore_index)).flatten(1)
        views = []
        for b in range(cameras.batch_size):
            for n in range(cameras.num_cameras):
                mask = occupied[b] if visible is None else occupied[b] & visible[b, n]
                view = (cameras.ref2cam[b, n], cameras.K[b, n], cameras.width, cameras.height)
                views.append(self._rasterize_labels(centers[mask], labels[b].flatten()[mask], view))
        return self._stack(views, cameras)

    def _rasterize_labels(self, means: Tensor, ids: Tensor, view: tuple[Tensor, Tensor, int, int]) -> tuple[Tensor, ...]:
        """One image of opaque isotropic Gaussians at ``means`` (G, 3) with class ids (G,) int64."""
        quats = means.new_tensor(IDENTITY_QUAT).expand(len(means), 4)
        scales = means.new_full((1, 1), self.gaussian_scale).expand(len(means), 3)
        # the rasteriser takes the ids themselves: one addition per blended pair instead of one per class
        return self._rasterize(means, quats, scales, means.new_ones(len(means)), ids, view)

    def _rasterize(
        self,
        means: Tensor,
        quats: Tensor,
        scales: Tensor,
        opacities: Tensor,
        features: Tensor,
        view: tuple[Tensor, Tensor, int, int],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One image of probabilities (G, C) or class ids (G,): classes (H, W, C), depth (H, W), alpha (H, W)."""
        rasterizer = load_rasterizer()
        ref2cam, K, width, height = view
        background = F.one_hot(torch.tensor(self.grid.free_index), self.num_classes).to(means)
        with torch.autocast(device_type=means.device.type, enabled=False):
            out = rasterizer.rasterize(
                means,
                quats,
                scales,
                opacities,
                features,
                ref2cam.to(means)[None],
                K.to(means)[None],
                width,
                height,
                background=background,
                settings=rasterizer.RasterSettings(**self.settings),
                backend=self.backend,
                num_classes=None if features.is_floating_point() else self.num_classes,
            )
        return out.features[0], out.depth[0], out.alpha[0]

    @staticmethod
    def _stack(views: list[tuple[Tensor, Tensor, Tensor]], cameras: CameraBatch) -> RenderedViews:
        lead = (cameras.batch_size, cameras.num_cameras)
        return RenderedViews(*(torch.stack(images).unflatten(0, lead) for images in zip(*views)))
