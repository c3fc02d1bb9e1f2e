"""First stage of GaussianOcc: a rig of cameras learns metric depth and its own motion from images alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModel
from torch import Tensor

from projects.occ.structures import OccBatch, OccDataSample
from projects.rendering.frame_images import frame_images, frame_motions, stacked_maps
from projects.rendering.photometric import Neighbour


@MODELS.register_module()
class DepthPoseModel(BaseModel):
    """Depth of every camera and the motion of the vehicle, trained on neighbouring frames and neighbouring cameras.

    The network sees the images of the key frame as the pipeline made them (normalised, with colour jitter); losses and the pose
    network see the images as they are on disk, resized to the same size. Pipelines may resize images and nothing else.

    Args:
        depth_network: Config of a module ``(images (B, N, 3, H, W), K (B, N, 3, 3)) -> (B, N, 1, H, W)``.
        loss: Config of ``RigDepthLoss``.
        pose_network: Config of a module with ``motions(images, frames)``; None: the poses of the data set.
        frames: Offsets of the neighbouring frames, which the data set must load.
        masks: Whether there are own-car masks (``LoadSelfOcclusionMasks``).
        data_preprocessor: Config of ``OccDataPreprocessor``.
        init_cfg: Initialisation, see mmengine.

    Raises:
        ValueError: If the key frame is among ``frames``.
    """

    def __init__(
        self,
        depth_network: Mapping[str, Any],
        loss: Mapping[str, Any],
        pose_network: Mapping[str, Any] | None = None,
        frames: Sequence[int] = (-1, 1),
        masks: bool = False,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.frames = tuple(int(frame) for frame in frames)
        if not self.frames or 0 in self.frames:
            raise ValueError(f'model.frames must be one or more other frames than the key frame 0, got {self.frames}')
        self.depth_network = MODELS.build(depth_network)
        self.pose_network = None if pose_network is None else MODELS.build(pose_network)
        self.criterion = MODELS.build(loss)
        self.masks = masks

    def forward(
        self, inputs: OccBatch, data_samples: list[OccDataSample] | None = None, mode: str = 'tensor'
    ) -> dict[str, Tensor] | list[OccDataSample] | Tensor:
        """``'loss'``: the losses; ``'predict'``: the samples with their depth; ``'tensor'``: depth (B, N, 1, H, W), metres."""
        if mode == 'loss':
            return self.loss(inputs)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.predict_depth(inputs)
        raise ValueError(f"mode must be 'loss', 'predict' or 'tensor', got {mode!r}")

    def predict_depth(self, batch: OccBatch) -> Tensor:
        """(B, N, 1, H, W), metres along the optical axes, of the key frame's images."""
        key = batch.at(0)
        return self.depth_network(key.images, key.cameras.network_K)

    def loss(self, batch: OccBatch) -> dict[str, Tensor]:
        """Losses of one training step, see ``RigDepthLoss``.

        Raises:
            ValueError: If the batch lacks images, or the pipeline does more than resize them.
        """
        wanted = ('originals', 'image_masks') if self.masks else ('originals',)
        for name in wanted:
            if getattr(batch, name) is None:
                raise ValueError(
                    f'DepthPoseModel reads {name!r}, which the samples {batch.tokens} do not have; put LoadMultiViewImages '
                    'with keep_originals=True, and with masks=True LoadSelfOcclusionMasks, into the pipeline'
                )
        size = batch.images.shape[-2:]
        self._check_resized(batch)
        with torch.autocast(batch.images.device.type, enabled=False):
            image, K = frame_images(batch, 0, size)
            motions = frame_motions(batch, self.frames, self.pose_network, size)
            neighbours = [Neighbour(*frame_images(batch, frame, size), motion) for frame, motion in zip(self.frames, motions)]
        mask = stacked_maps(batch.image_masks, size, K.device).unsqueeze(2) if self.masks else None
        depth = self.predict_depth(batch)
        with torch.autocast(batch.images.device.type, enabled=False):
            cam2ref = torch.linalg.inv(batch.cameras.at(0).ref2cam)
            return self.criterion(depth.float(), image, K, cam2ref, neighbours, mask)

    @torch.no_grad()
    def predict(self, batch: OccBatch, data_samples: list[OccDataSample]) -> list[OccDataSample]:
        """Writes ``pred_depth``, (N, H, W) float32 metres, into every sample.

        With a pose network and the images of the neighbouring frames also ``pred_motions``, (F, N, 4, 4), points of each camera
        at the key frame -> at each of ``frames``, and ``gt_motions``, the same from the poses of the data set; both NaN where
        there is no such frame.
        """
        depth = self.predict_depth(batch)
        for sample, maps in zip(data_samples, depth[:, :, 0]):
            sample.pred_depth = maps
        there = set(self.frames) <= set(batch.cameras.frame.tolist())
        if self.pose_network is not None and batch.originals is not None and there:
            size = batch.images.shape[-2:]
            predicted, given = (
                torch.stack(frame_motions(batch, self.frames, poses, size), 1) for poses in (self.pose_network, None)
            )
            if batch.view_missing is not None:
                gone = torch.stack([batch.view_missing[:, batch.cameras.frame == frame] for frame in self.frames], 1)
                gone = gone[..., None, None].to(given.device)
                predicted, given = (motions.masked_fill(gone, torch.nan) for motions in (predicted, given))
            for sample, ours, theirs in zip(data_samples, predicted, given):
                sample.pred_motions, sample.gt_motions = ours, theirs
        return data_samples

    @staticmethod
    def _check_resized(batch: OccBatch) -> None:
        """Depth maps belong to network images and colours to resized originals: both must show the same."""
        cameras, (height, width) = batch.cameras, batch.images.shape[-2:]
        if cameras.warp is None:
            expected = cameras.sizes == cameras.sizes.new_tensor([width, height])
            fits = bool(expected.all())
        else:
            scale = torch.tensor([width, height]) / cameras.sizes.double()
            resized = torch.diag_embed(torch.cat([scale, torch.ones_like(scale[..., :1])], -1)).to(cameras.warp)
            fits = bool(torch.allclose(cameras.warp, resized, atol=1e-4, rtol=1e-4))
        if not fits:
            raise ValueError(
                f'DepthPoseModel: the pipeline must resize images to the size of the network, {width} x {height}, and neither '
                f'crop, pad, flip nor turn them (samples {batch.tokens}); use ResizeImages'
            )
