"""GaussRender as the ``aggregator`` of an occupancy segmentor."""

from collections.abc import Sequence

import numpy as np
import torch
from mmdet3d.registry import MODELS
from torch import Tensor

from projects.occ.structures import OccDataSample, OccPrediction

from .cameras import CameraBatch
from .gauss_render import GaussRender, RenderedScene


def cameras_from_samples(samples: Sequence[OccDataSample], indices: Sequence[int] | None = None) -> CameraBatch:
    """Real cameras of a batch: uncropped original images with their own intrinsics.

    Args:
        samples: B samples with the meta information ``ref2cam``, ``cam2img`` and ``ori_img_wh``.
        indices: Cameras to take, in the order of the data; None takes all.

    Returns:
        CameraBatch: On the CPU, float32.

    Raises:
        ValueError: If meta information is missing, or the number of cameras or the image sizes differ.
    """
    arrays: dict[str, np.ndarray] = {}
    for key in ('ref2cam', 'cam2img', 'ori_img_wh'):
        values = [sample.get(key) for sample in samples]
        if any(value is None for value in values):
            raise ValueError(f'the data samples have no {key!r}, which rendering needs; add it to meta_keys of PackOccInputs')
        values = [np.asarray(value, dtype=np.float32) for value in values]
        if len({value.shape for value in values}) > 1:
            raise ValueError(
                'the samples of a batch must have the same number of cameras, '
                f'got {key} of shapes {[v.shape for v in values]}; use batch_size=1'
            )
        arrays[key] = np.stack(values)
    sizes = np.unique(arrays['ori_img_wh'].reshape(-1, 2), axis=0)
    if len(sizes) > 1:
        raise ValueError(
            f'all cameras must have the same original image size, got (width, height) {sizes.tolist()}; '
            'list cameras of one size in cam_names of the dataset'
        )
    width, height = (int(round(float(n))) for n in sizes[0])
    cameras = CameraBatch(torch.from_numpy(arrays['ref2cam']), torch.from_numpy(arrays['cam2img']), width, height)
    return cameras if indices is None else cameras.select(indices)


def labels_from_samples(samples: Sequence[OccDataSample]) -> Tensor:
    """Label grids (B, X, Y, Z) of a batch.

    Raises:
        ValueError: If a sample has no ``gt_occ``.
    """
    if any('gt_occ' not in sample for sample in samples):
        raise ValueError(
            'a data sample has no gt_occ, which the rendered losses need; '
            'put LoadOccLabels into the pipeline before PackOccInputs'
        )
    return torch.stack([sample.gt_occ for sample in samples])


@MODELS.register_module()
class GaussRenderAggregator(GaussRender):
    """Adds rendered 2D losses to the training of an occupancy segmentor; does nothing when predicting.

    Takes the arguments of :class:`GaussRender`; the segmentor hands in ``grid``. Voxel features are read only if
    ``gaussians.feat_channels`` is set.
    """

    def loss(self, prediction: OccPrediction, batch_data_samples: Sequence[OccDataSample]) -> dict[str, Tensor]:
        """Rendered losses of one training step.

        Args:
            prediction: Finest logits (B, C, X, Y, Z) and, for a learned opacity, voxel features (B, F, X, Y, Z).
            batch_data_samples: B samples with ``gt_occ``, ``ref2cam``, ``cam2img`` and ``ori_img_wh``.

        Returns:
            ``loss_render_*``, see :meth:`GaussRender.forward`.
        """
        return self(
            prediction.logits[-1],
            labels_from_samples(batch_data_samples),
            cameras_from_samples(batch_data_samples),
            voxel_feats=self._features(prediction),
        )

    @torch.no_grad()
    def render_samples(
        self,
        prediction: OccPrediction,
        batch_data_samples: Sequence[OccDataSample],
        indices: Sequence[int] | None = None,
        hard_opacity: bool | None = True,
    ) -> tuple[RenderedScene, RenderedScene | None]:
        """Images of prediction and label in the unmoved real cameras, for image metrics and pictures.

        Args:
            prediction: As in :meth:`loss`.
            batch_data_samples: As in :meth:`loss`; ``gt_occ`` may be missing.
            indices: Cameras to render, in the order of the data; None renders all.
            hard_opacity: As in :meth:`GaussRender.render`.

        Returns:
            The rendered prediction, and the rendered label or None without ``gt_occ``.
        """
        cameras = cameras_from_samples(batch_data_samples, indices)
        labels = labels_from_samples(batch_data_samples) if all('gt_occ' in s for s in batch_data_samples) else None
        logits = prediction.logits[-1]
        rendered = self.render(
            logits, cameras, voxel_feats=self._features(prediction), labels=labels, hard_opacity=hard_opacity
        )
        return rendered, None if labels is None else self.render_labels(labels.to(logits.device), cameras)

    def predict_opacities(self, logits: Tensor, voxel_feats: Tensor | None = None) -> Tensor:
        """As :meth:`GaussRender.predict_opacities`; features that no decoder reads are ignored."""
        return super().predict_opacities(logits, None if self.gaussians.feat_channels is None else voxel_feats)

    def _features(self, prediction: OccPrediction) -> Tensor | None:
        return None if self.gaussians.feat_channels is None else prediction.voxel_feats
