"""Measured depth in the place of predicted depth."""

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn

MODES = ('one_hot', 'set_one')


@MODELS.register_module()
class MeasuredDepth(nn.Module):
    """Lifts cells that have a measured depth at that depth, as the teacher of UniOcc does.

    Args:
        mode: ``'one_hot'`` puts the whole weight into the measured bin; ``'set_one'`` gives the measured bin weight 1 and
            leaves the others as they are, the literal reading of UniOcc's report.

    Raises:
        ValueError: If the mode is unknown.
    """

    def __init__(self, mode: str = 'one_hot') -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f'depth_override.mode must be one of {MODES}, got {mode!r}')
        self.mode = mode

    def forward(self, depth: Tensor, bins: Tensor) -> Tensor:
        """Overrides.

        Args:
            depth: (B, N, D, h, w), distribution over the depth bins.
            bins: (B, N, h, w) int64, measured bins, -1 where nothing was measured: there nothing changes.

        Returns:
            (B, N, D, h, w).
        """
        measured = (bins >= 0).unsqueeze(2)
        here = torch.zeros_like(depth, dtype=torch.bool).scatter(2, bins.clamp(min=0).unsqueeze(2), measured)
        others = depth.masked_fill(measured, 0) if self.mode == 'one_hot' else depth
        return others.masked_fill(here, 1)
