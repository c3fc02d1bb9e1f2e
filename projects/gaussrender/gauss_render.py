"""The method as a plain ``nn.Module``: voxel logits in, projective consistency losses out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from projects.occ.structures import VoxelGrid

from .camera_sampler import CameraSampler
from .cameras import CameraBatch, bird_eye_camera
from .gaussians import VoxelsToGaussians, as_grid, check_logits, compute_dtype
from .losses import RenderLoss
from .renderer import GaussianRenderer, RenderedViews, labels_from_points, visible_voxels


@dataclass
class RenderedScene:
    """Images of B scenes: N camera views and one bird's-eye view each; None for what was not asked for.

    Attributes:
        cam_sem: (B, N, H, W, C), class probabilities, summing to 1; background is the free class.
        cam_depth: (B, N, H, W), sum of (blending weight x camera z), metres; 0 where nothing is.
        cam_alpha: (B, N, H, W), sum of blending weights.
        bev_sem: (B, H', W', C), like ``cam_sem``; image x is +x of the grid, image up is +y.
        bev_depth: (B, H', W'), metres below the bird's-eye camera.
        bev_alpha: (B, H', W').
    """

    cam_sem: Tensor
    cam_depth: Tensor
    cam_alpha: Tensor
    bev_sem: Tensor | None = None
    bev_depth: Tensor | None = None
    bev_alpha: Tensor | None = None

    @classmethod
    def from_views(cls, views: Mapping[str, RenderedViews]) -> 'RenderedScene':
        """Names the images of ``dict(cam=..., bev=...)``; the bird's-eye view loses its axis of length 1."""
        cam, bev = views['cam'], views.get('bev')
        images = (cam.sem, cam.depth, cam.alpha)
        return cls(*images) if bev is None else cls(*images, bev.sem[:, 0], bev.depth[:, 0], bev.alpha[:, 0])


class GaussRender(nn.Module):
    """Projective consistency between predicted and true occupancy.

    Both voxel grids become small Gaussians, both are rendered into the same virtual cameras and a bird's-eye view, and the
    class and depth images are compared. Gradients reach the logits and the voxel features. Nothing here changes a prediction.

    Needs torch and the rasteriser only, and the package of the rasteriser not before the first image is rendered; a package
    that was built without the backend is refused at once.

    Args:
        grid: Voxel grid or the dict that describes it.
        num_classes: Number of classes with the free one; None takes it from the grid.
        gaussians: Arguments of :class:`VoxelsToGaussians`.
        cameras: Arguments of :class:`CameraSampler`: ``type`` of the strategy, which real cameras, size of the images.
        bev: Arguments of :func:`bird_eye_camera`: ``size`` and ``height``.
        loss: Arguments of :class:`RenderLoss`.
        renderer: ``backend`` and ``settings`` of the rasteriser, see :class:`GaussianRenderer`.

    Raises:
        ValueError: If a number is out of range or disagrees with the grid.
        TypeError: If one of the dicts has an unknown key.
        RuntimeError: If the rasteriser was built without the backend.
    """

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        num_classes: int | None = None,
        gaussians: Mapping[str, Any] | None = None,
        cameras: Mapping[str, Any] | None = None,
        bev: Mapping[str, Any] | None = None,
        loss: Mapping[str, Any] | None = None,
        renderer: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.grid, self.num_classes = as_grid(grid, num_classes)
        self.gaussians = VoxelsToGaussians(self.grid, **(gaussians or {}))
        self.cameras = CameraSampler(**{'grid': self.grid, **(cameras or {})})
        self.render_loss = RenderLoss(**(loss or {}))
        self.renderer = GaussianRenderer(self.grid, gaussian_scale=self.gaussians.gaussian_scale, **(renderer or {}))
        self.bev_camera = bird_eye_camera(self.grid, **(bev or {}))

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        cameras: CameraBatch,
        voxel_feats: Tensor | None = None,
        points: list[Tensor] | None = None,
        draws: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Losses of one training step.

        Args:
            logits: (B, C, X, Y, Z), class logits at full resolution.
            labels: (B, X, Y, Z) integer, class ids and ``grid.ignore_index``; ignored voxels are rendered nowhere.
            cameras: Real cameras of the B scenes. The strategy makes the rendered ones from them.
            voxel_feats: (B, F, X, Y, Z), features that the learned opacity reads; None without a decoder.
            points: Optional labelled LiDAR points, one (M, 4) tensor per scene with x, y, z in metres and the class id; the
                label images then show only voxels that a point hits.
            draws: Random numbers of the cameras as ``self.cameras.draw`` returned them; None draws new ones and counts the
                step.

        Returns:
            ``loss_render_cam_sem``, ``loss_render_cam_depth``, ``loss_render_bev_sem``, ``loss_render_bev_depth``, as far as
            they are enabled: weighted, without dimensions.

        Raises:
            ValueError: If shapes, class counts, label ids or numbers of cameras disagree, or the logits are not finite.
            ImportError: If the rasteriser is not installed.
        """
        labels = self._check(logits, labels, cameras)
        virtual = self.cameras(cameras) if draws is None else self.cameras.place(cameras, draws)
        views = {kind: camera for kind, camera in self._views(virtual, logits).items() if kind in self.render_loss.views}
        visible = self._visible(views, labels)
        gaussians = self.gaussians(logits, voxel_feats)
        preds = {kind: self.renderer(gaussians, camera, visible[kind]) for kind, camera in views.items()}
        targets = self._render_labels(labels, views, visible, points)
        return self.render_loss(preds, targets, self.grid.free_index)

    def render(
        self,
        logits: Tensor,
        cameras: CameraBatch,
        voxel_feats: Tensor | None = None,
        labels: Tensor | None = None,
        with_bev: bool = True,
        hard_opacity: bool | None = None,
    ) -> RenderedScene:
        """Renders predictions into exactly the given cameras, for evaluation and pictures.

        Virtual cameras as in training come from ``m.cameras(cameras)``, or ``m.cameras.place(cameras, draws)``.

        Args:
            logits: (B, C, X, Y, Z).
            cameras: B x N cameras.
            voxel_feats: (B, F, X, Y, Z) or None.
            labels: (B, X, Y, Z); if given, voxels with ``grid.ignore_index`` are left out, as the image metrics require.
            with_bev: Render the bird's-eye view too.
            hard_opacity: True renders the arg-max classes with opacity 0 or 1, as the image metrics require; None keeps the
                configured ``gaussians.overwrite_opacity``.

        Returns:
            RenderedScene: Differentiable unless called under ``torch.no_grad()``.

        Raises:
            ValueError: If shapes, class counts, label ids or numbers of cameras disagree, or the logits are not finite.
            ImportError: If the rasteriser is not installed.
        """
        labels = self._check(logits, labels, cameras)
        views = self._views(cameras, logits, with_bev)
        visible = self._visible(views, labels)
        gaussians = self.gaussians(logits, voxel_feats, hard_opacity)
        return RenderedScene.from_views(
            {kind: self.renderer(gaussians, camera, visible[kind]) for kind, camera in views.items()}
        )

    def render_labels(
        self, labels: Tensor, cameras: CameraBatch, with_bev: bool = True, points: list[Tensor] | None = None
    ) -> RenderedScene:
        """Renders label grids into exactly the given cameras: what predictions are compared with.

        Args:
            labels: (B, X, Y, Z) integer.
            cameras: B x N cameras.
            with_bev: Render the bird's-eye view too.
            points: As in :meth:`forward`.

        Returns:
            RenderedScene: Without gradient.

        Raises:
            ValueError: If shapes, label ids or numbers of cameras disagree.
            ImportError: If the rasteriser is not installed.
        """
        labels = self._check_labels(labels, cameras)
        views = self._views(cameras, labels, with_bev)
        return RenderedScene.from_views(self._render_labels(labels, views, self._visible(views, labels), points))

    def predict_opacities(self, logits: Tensor, voxel_feats: Tensor | None = None) -> Tensor:
        """Opacity of every voxel; renders nothing.

        A network trained by rendering alone leaves its free class untrained where nothing is seen; the published evaluation of
        such networks calls a voxel free if its opacity is below 0.1.

        Args:
            logits: (B, C, X, Y, Z).
            voxel_feats: (B, F, X, Y, Z) or None.

        Returns:
            (B, X, Y, Z), in [0, 1].
        """
        return self.gaussians.predict_opacities(logits, voxel_feats)

    def _check(self, logits: Tensor, labels: Tensor | None, cameras: CameraBatch) -> Tensor | None:
        check_logits(logits, self.grid)
        if cameras.batch_size != logits.shape[0]:
            raise ValueError(
                f'logits hold {logits.shape[0]} scenes, but the cameras belong to {cameras.batch_size}; '
                'give ref2cam (B, N, 4, 4) and K (B, N, 3, 3) with the B of the logits'
            )
        if labels is None:
            return None
        if labels.shape[0] != logits.shape[0]:
            raise ValueError(f'logits hold {logits.shape[0]} scenes, but labels hold {labels.shape[0]}')
        return self._check_labels(labels, cameras).to(logits.device)

    def _check_labels(self, labels: Tensor, cameras: CameraBatch) -> Tensor:
        """The labels as int64 (B, X, Y, Z)."""
        if labels.dim() != 4 or labels.is_floating_point():
            raise ValueError(f'labels must be integers (B, X, Y, Z), got {labels.dtype} {tuple(labels.shape)}')
        if labels.shape[0] != cameras.batch_size:
            raise ValueError(f'labels hold {labels.shape[0]} scenes, but the cameras belong to {cameras.batch_size}')
        labels = labels.long()
        self.grid.check_labels(labels)
        return labels

    def _views(self, cameras: CameraBatch, like: Tensor, with_bev: bool = True) -> dict[str, CameraBatch]:
        """Cameras and bird's-eye cameras on the device of ``like``, in the number format of the images."""
        views = {'cam': cameras}
        if with_bev:
            bev = self.bev_camera
            batch = cameras.batch_size
            views['bev'] = CameraBatch(
                bev.ref2cam.expand(batch, -1, -1, -1), bev.K.expand(batch, -1, -1, -1), bev.width, bev.height
            )
        dtype = compute_dtype(like)
        return {kind: camera.to(device=like.device, dtype=dtype) for kind, camera in views.items()}

    @torch.no_grad()
    def _visible(self, views: Mapping[str, CameraBatch], labels: Tensor | None) -> dict[str, Tensor | None]:
        """Voxels (B, N, P) that each view may show: centre inside the image (cameras only) and not ignored by the labels."""
        known = None if labels is None else (labels != self.grid.ignore_index).flatten(1)[:, None]
        visible: dict[str, Tensor | None] = {'bev': known}
        if 'cam' in views:
            centers = self.grid.centers(views['cam'].ref2cam.device, torch.float64).to(views['cam'].ref2cam.dtype)
            inside = visible_voxels(centers.view(-1, 3), views['cam'])
            visible['cam'] = inside if known is None else inside & known
        return visible

    def _render_labels(
        self,
        labels: Tensor,
        views: Mapping[str, CameraBatch],
        visible: Mapping[str, Tensor | None],
        points: list[Tensor] | None,
    ) -> dict[str, RenderedViews]:
        if points is not None:
            labels = labels_from_points(labels, points, self.grid)
        return {kind: self.renderer.render_labels(labels, camera, visible[kind]) for kind, camera in views.items()}
