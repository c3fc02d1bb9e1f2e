"""Residual network and neck over volumes (B, C, Z, Y, X)."""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, Sequential
from torch import Tensor, nn

from projects.occ.models.layers import recompute

from .geometry import resize_volume

CONV_3D = dict(type='Conv3d')
NORM_3D = dict(type='BN3d')


class ResidualBlock3D(BaseModule):
    """Two 3x3x3 convolutions and a shortcut.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the first convolution.
        project: Make the shortcut a 3x3x3 convolution with that stride instead of the input itself.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1, project: bool = False) -> None:
        super().__init__()
        options = dict(kernel_size=3, padding=1, bias=False, conv_cfg=CONV_3D, norm_cfg=NORM_3D)
        self.conv1 = ConvModule(in_channels, channels, stride=stride, **options)
        self.conv2 = ConvModule(channels, channels, act_cfg=None, **options)
        self.downsample = ConvModule(in_channels, channels, stride=stride, act_cfg=None, **options) if project else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, volume: Tensor) -> Tensor:
        """(B, in_channels, Z, Y, X) -> (B, channels, Z / stride, Y / stride, X / stride), rounded up."""
        shortcut = volume if self.downsample is None else self.downsample(volume)
        return self.relu(self.conv2(self.conv1(volume)) + shortcut)


@MODELS.register_module()
class ResNet3D(BaseModule):
    """Residual network of several stages over a volume.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the stages.
        num_blocks: Blocks of the stages; the first of each has a projected shortcut.
        strides: Strides of the stages.
        with_cp: Recompute the blocks in the backward pass: less memory, more time, same numbers.
        init_cfg: Extra initialisation, applied last.

    Raises:
        ValueError: If the lists have different lengths.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int] = (32, 64, 128),
        num_blocks: Sequence[int] = (1, 2, 4),
        strides: Sequence[int] = (1, 2, 2),
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not len(channels) == len(num_blocks) == len(strides) > 0:
            raise ValueError(
                'channels, num_blocks and strides of a ResNet3D must have one entry per stage, got '
                f'{tuple(channels)}, {tuple(num_blocks)} and {tuple(strides)}'
            )
        self.with_cp = with_cp
        self.layers = nn.ModuleList()
        for width, blocks, stride in zip(channels, num_blocks, strides):
            first = ResidualBlock3D(in_channels, width, stride, project=True)
            self.layers.append(Sequential(first, *(ResidualBlock3D(width, width) for _ in range(blocks - 1))))
            in_channels = width

    def forward(self, volume: Tensor) -> list[Tensor]:
        """Outputs of all stages, fine to coarse, of a volume (B, C, Z, Y, X)."""
        outputs = []
        for stage in self.layers:
            for block in stage:
                volume = recompute(block, volume) if self.with_cp else block(volume)
            outputs.append(volume)
        return outputs


@MODELS.register_module()
class LSSFPN3D(BaseModule):
    """Resizes volumes of several resolutions to the finest, concatenates them and mixes their channels.

    Args:
        in_channels: Sum of the channels of the inputs.
        out_channels: Channels of the output.
        with_cp: Recompute in the backward pass: less memory, more time, same numbers.
        init_cfg: Extra initialisation, applied last.
    """

    def __init__(
        self, in_channels: int, out_channels: int, with_cp: bool = False, init_cfg: dict | list[dict] | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.with_cp = with_cp
        self.conv = ConvModule(in_channels, out_channels, 1, bias=False, conv_cfg=CONV_3D, norm_cfg=NORM_3D)

    def _mix(self, *volumes: Tensor) -> Tensor:
        size = volumes[0].shape[2:]
        return self.conv(torch.cat([resize_volume(volume, size) for volume in volumes], dim=1))

    def forward(self, volumes: Sequence[Tensor]) -> Tensor:
        """Volumes fine to coarse, each (B, C_l, Z_l, Y_l, X_l) -> (B, C, Z, Y, X) of the finest."""
        return recompute(self, *volumes, function=self._mix) if self.with_cp else self._mix(*volumes)
