"""One layer of the TPVFormer encoder."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from projects.occ.models.layers import CameraRebatch

from .attention import TPVHybridAttention, TPVImageCrossAttention


class TPVFormerLayer(BaseModule):
    """Hybrid attention of the ground plane, image attention of all planes and a feed-forward network, each followed by a norm.

    Planes exchange information through shared weights and through the images only.

    Args:
        embed_dims: Channels C.
        self_attn: Options of :class:`TPVHybridAttention`.
        cross_attn: Options of :class:`TPVImageCrossAttention`.
        ffn: Options of :class:`mmcv.cnn.bricks.transformer.FFN`.
        norm_cfg: Norm over the channels.
    """

    def __init__(
        self,
        embed_dims: int,
        self_attn: Mapping[str, Any],
        cross_attn: Mapping[str, Any],
        ffn: Mapping[str, Any],
        norm_cfg: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.attentions = ModuleList(
            [TPVHybridAttention(embed_dims, **self_attn), TPVImageCrossAttention(embed_dims, **cross_attn)]
        )
        self.ffns = ModuleList([FFN(embed_dims, **ffn)])
        self.norms = ModuleList(build_norm_layer(dict(norm_cfg), embed_dims)[1] for _ in range(3))

    def forward(
        self,
        planes: Sequence[Tensor],
        hw_pos: Tensor,
        hw_reference_points: Tensor,
        hw_size: tuple[int, int],
        tokens: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        positions: Sequence[Tensor],
        rebatches: Sequence[CameraRebatch],
    ) -> list[Tensor]:
        """Updates the planes.

        Args:
            planes: hw, zh, wz, each (B, cells, C).
            hw_pos: (B, cells, C) positional code of plane hw.
            hw_reference_points: (1, cells, 1, 2) cell centres of plane hw.
            hw_size: Rows and columns of plane hw.
            tokens: (B*N, S, C) image features.
            spatial_shapes: (h, w) of every level.
            positions: See :class:`TPVImageCrossAttention`.
            rebatches: See :class:`TPVImageCrossAttention`.

        Returns:
            The planes, shapes as given.
        """
        hw, *others = planes
        hw = self.attentions[0](hw, hw_pos, hw_reference_points, hw_size)
        query = self.norms[0](torch.cat((hw, *others), dim=1))
        query = self.norms[1](self.attentions[1](query, tokens, spatial_shapes, positions, rebatches))
        query = self.norms[2](self.ffns[0](query))
        return list(query.split([p.shape[1] for p in planes], dim=1))
