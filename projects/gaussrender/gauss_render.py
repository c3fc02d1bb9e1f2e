"""The method as a plain ``nn.Module``: voxel logits in, projective consistency losses out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from projects.occ.structures import Cameras, OccBatch, OccField, OccPrediction, VoxelGrid
from projects.rendering.camera_sampler import CameraSampler
from projects.rendering.camera_strategies import bird_eye_camera
from projects.rendering.fields import ClassLogitsField, as_grid, check_logits, compute_dtype
from projects.rendering.rendered import Rendered
from projects.rendering.splat import SplatRenderer
from projects.rendering.supervision import rendered_losses
from projects.rendering.targets import LabelTarget
from projects.rendering.targets.labels import labels_from_points
from projects.rendering.views import bird_eye_views

from .loss_terms import loss_terms

# Which voxels a view leaves out: nothing may leak into an image; the bird's-eye view shows the whole grid.
CULL = {'cam': 'inside', 'bev': None}


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
    def from_views(cls, views: Mapping[str, Rendered]) -> 'RenderedScene':
        """Names the images of ``dict(cam=..., bev=...)``; the bird's-eye view loses its axis of length 1."""
        cam, bev = views['cam'], views.get('bev')
        images = (cam.features, cam.depth, cam.alpha)
        return cls(*images) if bev is None else cls(*images, bev.features[:, 0], bev.depth[:, 0], bev.alpha[:, 0])


class GaussRender(nn.Module):
    """Projective consistency between predicted and true occupancy.

    Both voxel grids become small Gaussians, both are rendered into the same virtual cameras and a bird's-eye view, and the
    class and depth images are compared. Gradients reach the logits and the voxel features. Nothing here changes a prediction.

    A preset of the parts in ``projects.rendering``: :class:`ClassLogitsField`, :class:`CameraSampler` and a bird's-eye view,
    :class:`SplatRenderer`, :class:`LabelTarget`. Needs torch and the rasteriser only, and the package of the rasteriser not
    before the first image is rendered; a package that was built without the backend is refused at once.

    Args:
        grid: Voxel grid or the dict that describes it.
        num_classes: Number of classes with the free one; None takes it from the grid.
        gaussians: Arguments of :class:`ClassLogitsField`.
        cameras: Arguments of :class:`CameraSampler`: ``type`` of the strategy, which real cameras, size of the images.
        bev: Arguments of :func:`bird_eye_camera`: ``size`` and ``height``.
        loss: Arguments of :func:`loss_terms`, and ``min_depth`` and ``mask_elems`` of :class:`LabelTarget`.
        renderer: ``backend``, ``settings`` and ``fused``, see :class:`SplatRenderer`.

    Raises:
        ValueError: If a number is out of range or disagrees with the grid.
        TypeError: If one of the dicts has an unknown key, or is none.
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
        for name, options in dict(gaussians=gaussians, cameras=cameras, bev=bev, loss=loss, renderer=renderer).items():
            if options is not None and not isinstance(options, Mapping):
                example = f"dict(type='{options}')" if name == 'cameras' and isinstance(options, str) else 'a dict'
                raise TypeError(f'{name} must be a dict of options or None, got {options!r}; write {name}={example}')
        self.grid, self.num_classes = as_grid(grid, num_classes)
        loss = dict(loss or {})
        self.target = LabelTarget(self.grid, **{key: loss.pop(key) for key in ('min_depth', 'mask_elems') if key in loss})
        self.terms = loss_terms(**loss)
        self.gaussians = ClassLogitsField(self.grid, **(gaussians or {}))
        self.cameras = CameraSampler(**{'grid': self.grid, **(cameras or {})})
        self.renderer = SplatRenderer(self.grid, gaussian_scale=self.gaussians.gaussian_scale, **(renderer or {}))
        self.bev_camera = bird_eye_camera(self.grid, **(bev or {}))

    @property
    def field(self) -> ClassLogitsField:
        """What turns a prediction into opacities, for rules of heads that decide by them."""
        return self.gaussians

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        cameras: Cameras,
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
        batch = OccBatch(cameras, labels=labels, points=points)
        return self._losses(OccPrediction([logits], self._features(voxel_feats)), batch, draws)

    def _losses(
        self, prediction: OccPrediction, batch: OccBatch, draws: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The losses of checked input."""
        virtual = self.cameras(batch.cameras) if draws is None else self.cameras.place(batch.cameras, draws)
        field = self.gaussians(prediction)
        views = self._views(virtual, field.opacity)
        return rendered_losses(field, views, self.renderer, self.target, self.terms, batch, CULL)

    def render(
        self,
        logits: Tensor,
        cameras: Cameras,
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
        known = None if labels is None else labels != self.grid.ignore_index
        field = self.gaussians(OccPrediction([logits], self._features(voxel_feats)), hard_opacity)
        return self._render(field, cameras, known, with_bev)

    @torch.no_grad()
    def render_labels(
        self, labels: Tensor, cameras: Cameras, with_bev: bool = True, points: list[Tensor] | None = None
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
        shown = labels if points is None else labels_from_points(labels, points, self.grid)
        field = OccField.from_labels(shown, self.grid, compute_dtype(cameras.ref2cam))
        return self._render(field, cameras, labels != self.grid.ignore_index, with_bev)

    def _render(self, field: OccField, cameras: Cameras, known: Tensor | None, with_bev: bool) -> RenderedScene:
        if cameras.one_size is None:
            raise ValueError(
                f'cameras of different image sizes {cameras.sizes.tolist()} cannot be stacked; render them one by one: '
                'cameras.select([i])'
            )
        views = self._views(cameras, field.opacity, with_bev)
        return RenderedScene.from_views(
            {kind: self.renderer(field, view, known=known, cull=CULL[kind]) for kind, view in views.items()}
        )

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
        return self.gaussians(OccPrediction([logits], voxel_feats)).opacity

    def _features(self, voxel_feats: Tensor | None) -> Tensor | None:
        if voxel_feats is not None and self.gaussians.feat_channels is None:
            raise ValueError(
                f'got voxel_feats of shape {tuple(voxel_feats.shape)}, but no decoder was built to read them; '
                f'set gaussians.feat_channels={voxel_feats.shape[1]} or pass voxel_feats=None'
            )
        return voxel_feats

    def _check(self, logits: Tensor, labels: Tensor | None, cameras: Cameras) -> Tensor | None:
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

    def _check_labels(self, labels: Tensor, cameras: Cameras) -> Tensor:
        """The labels as int64 (B, X, Y, Z)."""
        if labels.dim() != 4 or labels.is_floating_point():
            raise ValueError(f'labels must be integers (B, X, Y, Z), got {labels.dtype} {tuple(labels.shape)}')
        if labels.shape[0] != cameras.batch_size:
            raise ValueError(f'labels hold {labels.shape[0]} scenes, but the cameras belong to {cameras.batch_size}')
        labels = labels.long()
        self.grid.check_labels(labels)
        return labels

    def _views(self, cameras: Cameras, like: Tensor, with_bev: bool = True) -> dict[str, Cameras]:
        """Cameras and bird's-eye cameras on the device and in the number format of ``like``."""
        views = {'cam': cameras.to(device=like.device, dtype=like.dtype)}
        if with_bev:
            views['bev'] = bird_eye_views(self.bev_camera, views['cam'])
        return views
