"""A network with its cameras built in: images in, labels out, which is what exporters can follow."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from projects.occ.structures import OccBatch


class FixedRig(nn.Module):
    """A trained model for one rig of cameras, as a plain function of its images.

    Everything else that the network reads (cameras, depth maps, projections) is that of ``batch`` for ever, so an exported file
    belongs to one rig and one batch size. docs/inference.md lists what can be exported.

    Example::

        rig = FixedRig(model, model.data_preprocessor(data, False)['inputs'])
        program = torch.export.export(rig, (rig.batch.images,), strict=False)
        traced = torch.jit.trace(rig, (rig.batch.images,), check_trace=False)

    Args:
        model: Model of this repository; it is set to evaluation, and its weights take no gradients any more.
        batch: A prepared batch of the rig.

    Raises:
        TypeError: If the model has neither voxels (``encode_decode`` and ``occ_head``) nor depth maps (``predict_depth``).
    """

    def __init__(self, model: nn.Module, batch: OccBatch) -> None:
        super().__init__()
        if not hasattr(model, 'predict_depth') and not (hasattr(model, 'encode_decode') and hasattr(model, 'occ_head')):
            raise TypeError(
                f'FixedRig takes a model with encode_decode and occ_head, or with predict_depth, got {type(model).__name__}'
            )
        self.model = model.eval().requires_grad_(False)
        self.batch = batch

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Predicts.

        Args:
            images: (B, V, 3, H, W), as the data preprocessor makes them: normalised and padded, of all frames that are read.

        Returns:
            Class ids (B, X, Y, Z) int64; of a model of depth maps (B, N, 1, H, W) in metres.
        """
        batch = replace(self.batch, images=images)
        if hasattr(self.model, 'predict_depth'):
            return self.model.predict_depth(batch)
        return self.model.occ_head.predict_labels(self.model.encode_decode(batch))
