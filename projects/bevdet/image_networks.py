"""Image backbones and necks of the family, and the part of a backbone that stereo matching needs."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.backbones import ResNet, SwinTransformer
from mmdet.models.layers import ResLayer
from mmdet.models.necks import FPN
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from projects.occ.models.layers import recompute


class _RecomputedResLayer(ResLayer):
    """Stage of a ResNet that is recomputed block by block in the backward pass."""

    def forward(self, feats: Tensor) -> Tensor:
        for block in self:
            feats = recompute(block, feats)
        return feats


@MODELS.register_module()
class StereoResNet(ResNet):
    """mmdet's ``ResNet`` whose first stage can run alone, for stereo matching with an earlier frame.

    With ``with_cp`` batch norms count every batch once; mmdet's own checkpointing counts it twice.
    """

    def __init__(self, *args: Any, with_cp: bool = False, **kwargs: Any) -> None:
        self._recompute = with_cp
        super().__init__(*args, with_cp=False, **kwargs)

    def make_res_layer(self, **kwargs: Any) -> nn.Module:
        """See ``ResNet``."""
        return _RecomputedResLayer(**kwargs) if self._recompute else super().make_res_layer(**kwargs)

    def first_stage(self, images: Tensor) -> Tensor:
        """Output (M, C, H/4, W/4) of the first stage for images (M, 3, H, W)."""
        feats = self.stem(images) if self.deep_stem else self.relu(self.norm1(self.conv1(images)))
        return getattr(self, self.res_layers[0])(self.maxpool(feats))


@MODELS.register_module()
class StereoSwinTransformer(SwinTransformer):
    """mmdet's ``SwinTransformer`` with the first stage as feature for stereo matching: first of the outputs, not normalised.

    ``out_indices`` must begin with 0. The first stage can run alone.
    """

    def __init__(self, *args: Any, out_indices: Sequence[int] = (0, 2, 3), **kwargs: Any) -> None:
        if out_indices[0] != 0:
            raise ValueError(f'img_backbone.out_indices must begin with 0, the feature for stereo matching, got {out_indices}')
        super().__init__(*args, out_indices=out_indices, **kwargs)
        self.norm0 = nn.Identity()

    def first_stage(self, images: Tensor) -> Tensor:
        """Output (M, C, H/4, W/4) of the first stage, before down-sampling, for images (M, 3, H, W)."""
        feats, size = self.patch_embed(images)
        if self.use_abs_pos_embed:
            feats = feats + self.absolute_pos_embed
        _, _, feats, size = self.stages[0](self.drop_after_pos(feats), size)
        return feats.view(-1, *size, self.num_features[0]).permute(0, 3, 1, 2).contiguous()


@MODELS.register_module()
class SingleLevelFPN(FPN):
    """Feature pyramid of which only the finest level is used and built.

    Args:
        in_channels: Channels of the inputs, fine to coarse.
        out_channels: Channels of the output.
        **kwargs: See mmdet's ``FPN``.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, **kwargs: Any) -> None:
        super().__init__(list(in_channels), out_channels, num_outs=len(in_channels), **kwargs)
        self.fpn_convs = self.fpn_convs[:1]

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor]:
        """Maps fine to coarse, each (M, C_l, h_l, w_l) -> one map (M, C, h, w) of the finest size."""
        feats = self.lateral_convs[-1](inputs[-1])
        for lateral, finer in zip(self.lateral_convs[-2::-1], inputs[-2::-1]):
            finer = lateral(finer)
            feats = finer + F.interpolate(feats, size=finer.shape[2:], **self.upsample_cfg)
        return (self.fpn_convs[0](feats),)


@MODELS.register_module()
class LSSFPN(BaseModule):
    """Up-samples the coarser of two maps to the finer one, concatenates them and applies two 3x3 convolutions.

    Args:
        in_channels: Channels of the two inputs, fine to coarse.
        out_channels: Channels of the output.
        init_cfg: Initialisation, see mmengine.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        layers: list[nn.Module] = []
        for channels in (sum(in_channels), out_channels):
            layers.append(nn.Conv2d(channels, out_channels, 3, padding=1, bias=False))
            layers.extend((nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)))
        self.conv = nn.Sequential(*layers)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor]:
        """Two maps fine to coarse, each (M, C_l, h_l, w_l) -> one map (M, C, h, w) of the finer size."""
        fine, coarse = inputs
        coarse = F.interpolate(coarse, size=fine.shape[2:], mode='bilinear', align_corners=True)
        return (self.conv(torch.cat((fine, coarse), dim=1)),)
