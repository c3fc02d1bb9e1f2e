"""GaussRender as the ``aggregator`` of an occupancy segmentor."""

from collections.abc import Sequence

import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from projects.occ.structures import OccBatch, OccPrediction
from projects.rendering.fields import check_logits

from .gauss_render import GaussRender, RenderedScene


@MODELS.register_module()
class GaussRenderAggregator(GaussRender):
    """Adds rendered 2D losses to the training of an occupancy segmentor; does nothing when predicting.

    Takes the arguments of :class:`GaussRender`; the segmentor hands in ``grid``. Voxel features are read only if
    ``gaussians.feat_channels`` is set.
    """

    def loss(self, prediction: OccPrediction, batch: OccBatch) -> dict[str, Tensor]:
        """Rendered losses of one training step. Labels and cameras are trusted: they were checked where they entered.

        Args:
            prediction: Finest logits (B, C, X, Y, Z) and, for a learned opacity, voxel features (B, F, X, Y, Z).
            batch: With labels and cameras, of which those of the key frame are used.

        Returns:
            ``loss_render_*``, see :meth:`GaussRender.forward`.

        Raises:
            ValueError: If the logits are not finite, or a sample has no label.
        """
        check_logits(prediction.logits[-1], self.grid)
        return self._losses(prediction, batch.at(0))

    @torch.no_grad()
    def render_batch(
        self,
        prediction: OccPrediction,
        batch: OccBatch,
        indices: Sequence[int] | None = None,
        hard_opacity: bool | None = True,
    ) -> tuple[RenderedScene, RenderedScene | None]:
        """Images of prediction and label in the unmoved real cameras of the key frame, for pictures.

        Args:
            prediction: As in :meth:`loss`.
            batch: As in :meth:`loss`; labels may be missing.
            indices: Cameras to render, in the order of the data; None renders all.
            hard_opacity: As in :meth:`GaussRender.render`.

        Returns:
            The rendered prediction, and the rendered label or None without labels.
        """
        cameras = batch.cameras.at(0)
        if indices is not None:
            cameras = cameras.select(indices)
        logits = prediction.logits[-1]
        feats = None if self.gaussians.feat_channels is None else prediction.voxel_feats
        rendered = self.render(logits, cameras, voxel_feats=feats, labels=batch.labels, hard_opacity=hard_opacity)
        return rendered, None if batch.labels is None else self.render_labels(batch.labels, cameras)
