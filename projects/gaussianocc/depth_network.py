"""Depth maps of images: any backbone with four levels, and a decoder with skip connections."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

FORMS = ('inverse', 'linear')


class _Block(nn.Sequential):
    """3x3 convolution with a reflected border, and ELU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.Conv2d(in_channels, out_channels, 3, padding=1, padding_mode='reflect'), nn.ELU())


@MODELS.register_module()
class DepthNetwork(BaseModule):
    """Metric depth of every pixel of every camera, each image on its own (after Monodepth2 and SurroundDepth).

    Args:
        backbone: Config of a backbone with levels at 1/4, 1/8, 1/16 and 1/32 of the image.
        in_channels: Channels of these levels.
        channels: Channels of the decoder at 1/16, 1/8, 1/4 and 1/2.
        min_depth: Smallest depth, metres.
        max_depth: Largest depth, metres.
        form: ``'inverse'``: the output is spread evenly over inverse depth; ``'linear'``: over depth.
        normalise_focal: Multiply depths by the focal length over the median one of the rig, so that cameras with different
            fields of view share one scale of appearance.
        init_depth: Depth that the untrained network predicts, metres.
        init_cfg: Initialisation, see mmengine.

    Raises:
        ValueError: If the depths are out of order, or numbers of channels are missing.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        in_channels: Sequence[int] = (256, 512, 1024, 2048),
        channels: Sequence[int] = (256, 128, 64, 32),
        min_depth: float = 0.1,
        max_depth: float = 80.0,
        form: str = 'inverse',
        normalise_focal: bool = True,
        init_depth: float = 10.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not 0 < min_depth < init_depth < max_depth:
            raise ValueError(
                f'depth network: needs 0 < min_depth < init_depth < max_depth, got {min_depth}, {init_depth}, {max_depth}'
            )
        if form not in FORMS or len(in_channels) != 4 or len(channels) != 4:
            raise ValueError(
                f'depth network: form must be one of {FORMS}, in_channels and channels four numbers each, got {form!r}, '
                f'{tuple(in_channels)}, {tuple(channels)}'
            )
        self.backbone = MODELS.build(backbone)
        self.min_depth, self.max_depth, self.form = min_depth, max_depth, form
        self.normalise_focal = normalise_focal
        before = (in_channels[3], *channels[:3])
        skips = (in_channels[2], in_channels[1], in_channels[0], 0)
        self.reduce = nn.ModuleList(_Block(a, b) for a, b in zip(before, channels))
        self.fuse = nn.ModuleList(_Block(b + skip, b) for b, skip in zip(channels, skips))
        self.head = nn.Conv2d(channels[3], 1, 3, padding=1, padding_mode='reflect')
        nn.init.normal_(self.head.weight, std=1e-3)
        nn.init.constant_(self.head.bias, float(torch.logit(torch.tensor(self._share(init_depth), dtype=torch.float64))))

    def _share(self, depth: float) -> float:
        """Output between 0 and 1 that stands for a depth."""
        if self.form == 'linear':
            return (depth - self.min_depth) / (self.max_depth - self.min_depth)
        return (1 / depth - 1 / self.max_depth) / (1 / self.min_depth - 1 / self.max_depth)

    def forward(self, images: Tensor, K: Tensor) -> Tensor:
        """Predicts.

        Args:
            images: (B, N, 3, H, W), normalised as the backbone wants them; 32 divides both sizes.
            K: (B, N, 3, 3), intrinsics of these images, pixels.

        Returns:
            (B, N, 1, H, W), metres along the optical axis, float32.
        """
        feats = list(self.backbone(images.flatten(0, 1)))
        x = feats.pop()
        for reduce, fuse in zip(self.reduce, self.fuse):
            x = F.interpolate(reduce(x), scale_factor=2, mode='nearest')
            if feats:
                x = torch.cat([x, feats.pop()], 1)
            x = fuse(x)
        share = self.head(F.interpolate(x, scale_factor=2, mode='nearest')).float().sigmoid().unflatten(0, images.shape[:2])
        if self.form == 'linear':
            depth = self.min_depth + (self.max_depth - self.min_depth) * share
        else:
            far, near = 1 / self.max_depth, 1 / self.min_depth
            depth = 1 / (far + (near - far) * share)
        if self.normalise_focal:
            focal = K[..., 0, 0].abs()
            depth = depth * (focal / focal.median(1, keepdim=True).values)[..., None, None, None]
        return depth
