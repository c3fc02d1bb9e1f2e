"""Parallel dilated convolutions over a volume."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn


class VolumeASPP(BaseModule):
    """Adds branches of two dilated 3x3x3 convolutions to a volume, each branch with its own dilation.

    Args:
        channels: Channels of the volume.
        dilations: One branch each.
    """

    def __init__(self, channels: int, dilations: Sequence[int] = (1, 3)) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Conv3d:
            return nn.Conv3d(channels, channels, kernel_size=3, padding=dilation, dilation=dilation, bias=False)

        self.blks = ModuleList(
            nn.Sequential(
                conv(dilation),
                nn.BatchNorm3d(channels),
                nn.ReLU(inplace=True),
                conv(dilation),
                nn.BatchNorm3d(channels),
            )
            for dilation in dilations
        )

    def forward(self, volume: Tensor) -> Tensor:
        """Same shape, (B, C, X, Y, Z)."""
        return torch.relu(volume + sum(block(volume) for block in self.blks))
