"""The network frame of the family: features of several frames, older ones without gradients."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

from projects.occ.models import OccSegmentor
from projects.occ.structures import OccBatch, OccPrediction

from .bevdet_encoder import LiftedScene
from .geometry import camera_vector


@MODELS.register_module()
class BEVDetSegmentor(OccSegmentor):
    """An :class:`OccSegmentor` that lifts every frame by itself, from the oldest to the key frame.

    Earlier frames carry no gradients. With stereo the first output of the backbone is the feature in which a frame is compared
    with the one before it, and the oldest frame is read for this comparison alone; the neck takes the other outputs.

    The batch holds the views of the frames 0, -1, -2, ..., as many as ``view_encoder.num_read``, with the same sensors in the
    same order.

    Args:
        history_eval: Read earlier frames in evaluation mode: no dropout, and batch norms with the statistics that they have.
            False, as published weights were trained: they count in the statistics, and move them, like the key frame.
        **kwargs: Arguments of :class:`OccSegmentor`.
    """

    def __init__(self, *args, history_eval: bool = False, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.history_eval = history_eval

    @contextmanager
    def _in_history(self) -> Iterator[None]:
        """No gradients; with ``history_eval`` evaluation mode, and the modes as they were afterwards."""
        training = [module for module in self.modules() if module.training] if self.history_eval else []
        try:
            _set_training(training, False)
            with torch.no_grad():
                yield
        finally:
            _set_training(training, True)

    def _features(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        """Stereo features (B, N, C4, H/4, W/4) or None, and features (B, N, C, h, w), of images (B, N, 3, H, W) of a frame."""
        feats = self.img_backbone(images.flatten(0, 1))
        stereo = None
        if self.view_encoder.stereo:
            stereo, *feats = feats
            stereo = stereo.unflatten(0, images.shape[:2])
        if self.img_neck is not None:
            feats = self.img_neck(feats)
        return stereo, feats[0].unflatten(0, images.shape[:2])

    def encode(self, batch: OccBatch) -> LiftedScene:
        """Lifts and fuses the frames of a batch."""
        encoder, size = self.view_encoder, batch.input_wh
        key = batch.at(0)
        vector = camera_vector(key.cameras, batch.scene)
        history = range(encoder.num_read - 1, 0, -1) if encoder.with_history else ()
        volumes, previous = [], None
        for age in (*history, 0):
            frame = batch.at(-age)
            with self._in_history() if age else nullcontext():
                if age == encoder.num_frames:
                    stereo = self.img_backbone.first_stage(frame.images.flatten(0, 1)).unflatten(0, frame.images.shape[:2])
                else:
                    stereo, feats = self._features(frame.images)
                    projection = frame.cameras.ref2img
                    cost = None
                    if previous is not None:
                        warp = previous[1].double() @ torch.linalg.inv(projection.double())
                        cost = encoder.match(stereo, previous[0], warp, size)
                    volume, logits = encoder.lift(feats, vector, projection, size, cost, frame.depths if age == 0 else None)
                    volumes.append(volume)
            previous = None if stereo is None else (stereo, frame.cameras.ref2img)
        missing = encoder.num_frames - len(volumes)
        volumes = [torch.zeros_like(volume)] * missing + volumes
        return LiftedScene(encoder(volumes), logits, encoder.depth_bins)

    def encode_decode(self, batch: OccBatch) -> OccPrediction:
        """The whole network: images of all frames to voxel logits of the key frame."""
        return self.occ_head(self.encode(batch))


def _set_training(modules: list[nn.Module], mode: bool) -> None:
    """Each module for itself: parts that stay in evaluation mode keep it."""
    for module in modules:
        module.training = mode
