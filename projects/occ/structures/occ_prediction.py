"""What an occupancy network hands to its losses, to the supervisions and to ``predict``."""

from dataclasses import dataclass

from torch import Tensor


@dataclass
class OccPrediction:
    """Output of an occupancy head.

    Attributes:
        logits: Class logits from coarse to fine, each (B, C, X_s, Y_s, Z_s), axes of the reference frame; the last one has the
            full resolution of the grid.
        voxel_feats: Features (B, F, X, Y, Z) in front of the last classifier at full resolution, or None.
        density: (B, X, Y, Z), raw density of heads that predict one beside their classes, or None.
        depth_logits: (B, V, D, h, w), distribution over depth bins of hosts that lift images by depth, before the softmax, or
            None.
        depth_bins: (nearest edge, farthest edge, width) of these bins, metres, or None.
        contracted_logits: Class logits (B, C, X', Y', Z') at the vertices of a ``ContractedGrid``, for heads that predict
            beyond the grid, or None.
    """

    logits: list[Tensor]
    voxel_feats: Tensor | None = None
    density: Tensor | None = None
    depth_logits: Tensor | None = None
    depth_bins: tuple[float, float, float] | None = None
    contracted_logits: Tensor | None = None
