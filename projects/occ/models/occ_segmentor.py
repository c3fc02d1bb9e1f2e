"""The network frame that all families share: images -> features -> scene -> voxel logits."""

from contextlib import nullcontext

import numpy as np
import torch
from mmcv.ops import ModulatedDeformConv2d
from mmdet3d.models.segmentors import Base3DSegmentor
from mmdet3d.registry import MODELS
from torch import Tensor

from projects.occ.structures import OccDataSample, OccPrediction, VoxelGrid


@MODELS.register_module()
class OccSegmentor(Base3DSegmentor):
    """Camera images to a semantic voxel grid, with an optional training-time aggregator.

    The aggregator is a guest: it is built if the config has one, adds its losses to the loss dict in training, and does nothing
    in prediction. Without it the remaining state-dict keys are the same.

    Args:
        grid: Voxel grid; handed to ``view_encoder``, ``occ_head`` and ``aggregator``.
        img_backbone: Config of the image backbone.
        view_encoder: Config of the module ``(img_feats, cameras) -> scene``. ``img_feats`` is a list of (B, N, C, h, w);
            ``cameras`` is the dict that :meth:`camera_inputs` returns.
        occ_head: Config of a ``BaseOccHead``: scene -> ``OccPrediction``.
        img_neck: Config of the neck over the backbone's maps, or None.
        aggregator: Config of a module with ``loss(prediction, batch_data_samples) -> dict``, or None.
        opacity_threshold: For models trained by rendering only: voxels whose predicted opacity is below it become free
            (0.1 in GaussRender, train.py). None: the labels of the head.
        keep_logits: Write ``pred_logits`` too when predicting, for metrics that want class probabilities.
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
        if opacity_threshold is not None and self.aggregator is None:
            raise ValueError('model.opacity_threshold needs model.aggregator, which predicts the opacities')
        self.opacity_threshold = opacity_threshold
        self.keep_logits = keep_logits

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

    @staticmethod
    def camera_inputs(batch_data_samples: list[OccDataSample], imgs: Tensor, depths: Tensor | None = None) -> dict:
        """Collects what a view encoder may know of the cameras.

        Args:
            batch_data_samples: B samples.
            imgs: (B, N, 3, H, W).
            depths: (B, N, H, W) depth maps along the optical axis, metres, or None.

        Returns:
            ``ref2img`` (B, N, 4, 4), reference frame (metres) -> (u*d, v*d, d, 1) in pixels of the network image; ``img_wh``
            (B, N, 2), image sizes before padding, pixels; ``input_wh`` (W, H) of the padded images, pixels. float32, on the
            device of ``imgs``. Where the samples have them, also ``ref2cam`` (B, N, 4, 4) and ``cam2img`` (B, N, 3, 3) float32,
            ``voxel_pixels`` (B, N, P, 2) int64 and ``voxel_visible`` (B, N, P) bool, as described in ``OccDataSample``; and
            ``depths`` if given.

        Raises:
            ValueError: If the number of camera matrices is not the number of images.
        """
        stacked = {} if depths is None else dict(depths=depths)
        for key in ('voxel_pixels', 'voxel_visible'):
            if all(key in sample for sample in batch_data_samples):
                stacked[key] = torch.stack([sample.get(key) for sample in batch_data_samples]).to(imgs.device)
        known = set.intersection(*(set(sample.metainfo) for sample in batch_data_samples))
        for key in ('ref2img', 'img_wh', *sorted(known & {'ref2cam', 'cam2img'})):
            arrays = [np.asarray(sample.metainfo[key], dtype=np.float32) for sample in batch_data_samples]
            for sample, array in zip(batch_data_samples, arrays):
                if len(array) != imgs.shape[1]:
                    raise ValueError(
                        f'sample {sample.get("token", "?")} has {imgs.shape[1]} images but {len(array)} entries in {key!r}'
                    )
            stacked[key] = torch.from_numpy(np.stack(arrays)).to(imgs.device)
        return dict(stacked, input_wh=(imgs.shape[-1], imgs.shape[-2]))

    def encode_decode(self, batch_inputs: dict, batch_data_samples: list[OccDataSample]) -> OccPrediction:
        """The whole network: images to voxel logits."""
        imgs = batch_inputs['imgs']
        scene = self.view_encoder(
            self.extract_feat(imgs), self.camera_inputs(batch_data_samples, imgs, batch_inputs.get('depths'))
        )
        return self.occ_head(scene)

    def loss(self, batch_inputs: dict, batch_data_samples: list[OccDataSample]) -> dict[str, Tensor]:
        """Voxel losses and, with an aggregator, rendering losses.

        Args:
            batch_inputs: ``imgs`` (B, N, 3, H, W) and, for networks that want them, ``depths`` (B, N, H, W), metres.
            batch_data_samples: B samples with ``gt_occ`` and cameras.
        """
        prediction = self.encode_decode(batch_inputs, batch_data_samples)
        losses = self.occ_head.loss_by_feat(prediction, batch_data_samples)
        if self.aggregator is not None:
            losses.update(self.aggregator.loss(prediction, batch_data_samples))
        return losses

    @torch.no_grad()
    def predict(self, batch_inputs: dict, batch_data_samples: list[OccDataSample]) -> list[OccDataSample]:
        """Writes ``pred_occ``, (X, Y, Z) uint8 class ids, into every sample. Nothing is rendered.

        With ``keep_logits`` also ``pred_logits``, (C, X, Y, Z).
        """
        prediction = self.encode_decode(batch_inputs, batch_data_samples)
        logits = prediction.logits[-1]
        labels = self.occ_head.predict_labels(logits)
        if self.opacity_threshold is not None:
            opacities = self.aggregator.predict_opacities(logits, prediction.voxel_feats)
            labels = labels.masked_fill(opacities < self.opacity_threshold, self.grid.free_index)
        for sample, label, scores in zip(batch_data_samples, labels.to(torch.uint8), logits):
            sample.pred_occ = label
            if self.keep_logits:
                sample.pred_logits = scores
        return batch_data_samples

    def _forward(self, batch_inputs: dict, batch_data_samples: list[OccDataSample]) -> Tensor:
        """Full-resolution logits (B, C, X, Y, Z)."""
        return self.encode_decode(batch_inputs, batch_data_samples).logits[-1]
