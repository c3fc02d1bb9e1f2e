"""One feature map at a quarter of the image size from two levels of a backbone."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn


def _block(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions, each with an instance norm, whose statistics are the image's also in evaluation."""
    layers = []
    for channels in (in_channels, out_channels):
        layers += [nn.Conv2d(channels, out_channels, 3, padding=1, bias=False), nn.InstanceNorm2d(out_channels), nn.ReLU()]
    return nn.Sequential(*layers)


@MODELS.register_module()
class GaussianOccNeck(BaseModule):
    """Merges the maps at 1/8 and 1/16 and doubles the size once more.

    Args:
        in_channels: Channels of the two maps, fine first.
        mid_channels: Channels at 1/8 and at 1/4.
        out_channels: Channels of the result.
        init_cfg: Initialisation, see mmengine.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (512, 1024),
        mid_channels: Sequence[int] = (512, 256),
        out_channels: int = 64,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if len(in_channels) != 2 or len(mid_channels) != 2:
            raise ValueError(
                'img_neck.in_channels (maps at 1/8 and 1/16) and mid_channels (at 1/8 and 1/4) must be two numbers each, '
                f'got {tuple(in_channels)} and {tuple(mid_channels)}'
            )
        self.merge = _block(sum(in_channels), mid_channels[0])
        self.refine = _block(*mid_channels)
        self.out_conv = nn.Conv2d(mid_channels[1], out_channels, 1)

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Merges.

        Args:
            feats: Maps (B, C1, H/8, W/8) and (B, C2, H/16, W/16).

        Returns:
            One map (B, C, H/4, W/4).

        Raises:
            ValueError: If the first map is not twice as large as the second, because 16 does not divide the image size.
        """
        fine, coarse = feats
        if fine.shape[-2:] != (2 * coarse.shape[-2], 2 * coarse.shape[-1]):
            raise ValueError(
                f'GaussianOccNeck needs a map of {tuple(2 * n for n in coarse.shape[-2:])} pixels beside one of '
                f'{tuple(coarse.shape[-2:])}, got {tuple(fine.shape[-2:])}; images must be multiples of 16 '
                '(data_preprocessor.pad_size_divisor=16)'
            )
        merged = self.merge(torch.cat([fine, _double(coarse)], 1))
        return [self.out_conv(self.refine(_double(merged)))]


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)
