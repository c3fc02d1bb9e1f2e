"""The network frame that all families share: images -> features -> scene -> voxel logits."""

from contextlib import nullcontext

import torch
from mmcv.ops import ModulatedDeformConv2d
from mmdet3d.models.segmentors import Base3DSegmentor
from mmdet3d.registry import MODELS
from torch import Tensor

from projects.occ.structures import OccBatch, OccDataSample, OccPrediction, VoxelGrid


@MODELS.register_module()
class OccSegmentor(Base3DSegmentor):
    """Camera images to a semantic voxel grid, with an optional training-time aggregator.

    The aggregator is a guest: it is built if the config has one, adds its losses to the loss dict in training, and is absent
    from prediction. Without it the remaining state-dict keys are the same.

    Args:
        grid: Voxel grid; handed to ``view_encoder``, ``occ_head`` and ``aggregator``.
        img_backbone: Config of the image backbone.
        view_encoder: Config of the module ``(img_feats, batch) -> scene``. ``img_feats`` is a list of (B, N, C, h, w);
            ``batch`` is the :class:`OccBatch` of the same N views. Encoders see the key frame alone, unless they have the
            attribute ``uses_all_frames = True``.
        occ_head: Config of a ``BaseOccHead``: scene -> ``OccPrediction``.
        img_neck: Config of the neck over the backbone's maps, or None.
        aggregator: Config of a module with ``loss(prediction, batch) -> dict``, for example ``GaussRenderAggregator``, any
            ``RenderSupervision`` or a ``SupervisionGroup`` of several; or None.
        opacity_threshold: For models trained by rendering only: voxels whose opacity is below it become free (0.1 in
            GaussRender, train.py); the head decides so by the aggregator's field. None: the labels of the head.
        keep_logits: Write ``pred_logits`` and ``pred_opacity`` too when predicting, for metrics that want probabilities.
        data_preprocessor: Config of ``OccDataPreprocessor``.
        init_cfg: Initialisation, see mmengine.
    """

    def __init__(
        self,
        grid: VoxelGrid | dict,
        img_backbone: dict,
        view_encoder: dict,
        occ_head: dict,
        img_neck: dict | None = None,
        aggregator: dict | None = None,
        opacity_threshold: float | None = None,
        keep_logits: bool = False,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.grid = VoxelGrid.build(grid)
        on_grid = dict(grid=self.grid)
        self.img_backbone = MODELS.build(img_backbone)
        self._deforms = any(isinstance(module, ModulatedDeformConv2d) for module in self.img_backbone.modules())
        self.img_neck = MODELS.build(img_neck) if img_neck else None
        self.view_encoder = MODELS.build(view_encoder, default_args=on_grid)
        self.occ_head = MODELS.build(occ_head, default_args=on_grid)
        self.aggregator = MODELS.build(aggregator, default_args=on_grid) if aggregator else None
        if self.occ_head.loss_occ is None and self.aggregator is None:
            raise ValueError(
                'nothing supervises this model: set model.occ_head.loss_occ (voxel loss) or model.aggregator (rendering loss)'
            )
        if opacity_threshold is not None:
            field = getattr(self.aggregator, 'field', None)
            if field is None:
                raise ValueError('model.opacity_threshold needs model.aggregator with a field, which tells the opacities')
            self.occ_head.decide_by_opacity(field, opacity_threshold)
        if hasattr(self.data_preprocessor, 'expect'):
            self.data_preprocessor.expect(self.grid, renders=self.aggregator is not None)
        self.keep_logits = keep_logits

    @property
    def training_only_prefixes(self) -> tuple[str, ...]:
        """Prefixes of the state-dict keys that prediction does not need: files with and without them fit each other."""
        return ('aggregator.',)

    def extract_feat(self, imgs: Tensor) -> list[Tensor]:
        """Image features of every camera.

        Args:
            imgs: (B, N, 3, H, W), normalised.

        Returns:
            Feature maps, fine to coarse, each (B, N, C, h, w).
        """
        batch, cameras = imgs.shape[:2]
        # mmcv's deformable convolution has no bfloat16 on a CPU
        exact = self._deforms and imgs.device.type == 'cpu'
        with torch.autocast('cpu', enabled=False) if exact else nullcontext():
            feats = self.img_backbone(imgs.flatten(0, 1))
        if self.img_neck is not None:
            feats = self.img_neck(feats)
        return [feat.unflatten(0, (batch, cameras)) for feat in feats]

    def encode_decode(self, batch: OccBatch) -> OccPrediction:
        """The whole network: images to voxel logits."""
        if not getattr(self.view_encoder, 'uses_all_frames', False):
            batch = batch.at(0)
        return self.occ_head(self.view_encoder(self.extract_feat(batch.images), batch))

    def loss(self, batch_inputs: OccBatch, batch_data_samples: list[OccDataSample]) -> dict[str, Tensor]:
        """Voxel losses and, with an aggregator, rendering losses.

        Args:
            batch_inputs: What ``OccDataPreprocessor`` made of the batch.
            batch_data_samples: Its samples, not needed: labels are in the batch.
        """
        prediction = self.encode_decode(batch_inputs)
        losses = self.occ_head.loss_by_feat(prediction, batch_inputs)
        if self.aggregator is not None:
            losses.update(self.aggregator.loss(prediction, batch_inputs))
        return losses

    @torch.no_grad()
    def predict_raw(self, data: dict) -> tuple[OccPrediction, OccBatch, list[OccDataSample]]:
        """Runs the network for tools that want more than labels.

        Args:
            data: What the data loader gives: ``inputs`` and ``data_samples`` of B samples.

        Returns:
            The output of the head, the batch it was made from, and the data samples with ``pred_occ``.
        """
        data = self.data_preprocessor(data, False)
        prediction = self.encode_decode(data['inputs'])
        return prediction, data['inputs'], self.add_predictions(prediction, data['data_samples'])

    @torch.no_grad()
    def predict(self, batch_inputs: OccBatch, batch_data_samples: list[OccDataSample]) -> list[OccDataSample]:
        """Writes ``pred_occ``, (X, Y, Z) uint8 class ids, into every sample. Nothing is rendered.

        With ``keep_logits`` also ``pred_logits``, (C, X, Y, Z), ``pred_opacity``, (X, Y, Z) in [0, 1], and
        ``pred_contracted_logits``, (C, X', Y', Z'), if the head predicts beyond the grid.
        """
        return self.add_predictions(self.encode_decode(batch_inputs), batch_data_samples)

    def add_predictions(self, prediction: OccPrediction, samples: list[OccDataSample]) -> list[OccDataSample]:
        """Writes what the head decides into the samples, see :meth:`predict`."""
        labels = self.occ_head.predict_labels(prediction).to(torch.uint8)
        for sample, label in zip(samples, labels, strict=True):
            sample.pred_occ = label
        if self.keep_logits:
            opacities = self.occ_head.predict_opacity(prediction)
            for sample, scores, opacity in zip(samples, prediction.logits[-1], opacities, strict=True):
                sample.pred_logits, sample.pred_opacity = scores, opacity
            if prediction.contracted_logits is not None:
                for sample, scores in zip(samples, prediction.contracted_logits, strict=True):
                    sample.pred_contracted_logits = scores
        return samples

    def _forward(self, batch_inputs: OccBatch, batch_data_samples: list[OccDataSample]) -> Tensor:
        """Full-resolution logits (B, C, X, Y, Z)."""
        return self.encode_decode(batch_inputs).logits[-1]
