"""One layer of a volume encoder."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from projects.occ.models.layers import CameraRebatch

from .attention import VolumeCrossAttention
from .volumes import to_queries, to_volume


class SurroundOccLayer(BaseModule):
    """Image attention, feed-forward network and 3D convolutions.

    The first two are followed by a norm; the result of the convolutions is added as it is. Voxels exchange information through
    the convolutions only.

    Args:
        embed_dims: Channels C.
        cells: Cells (X, Y, Z) of the volume.
        cross_attn: Options of :class:`VolumeCrossAttention`.
        ffn: Options of :class:`mmcv.cnn.bricks.transformer.FFN`.
        num_convs: Number of 3D convolutions.
        norm_cfg: Norm over the channels behind attention and feed-forward network.
        conv_norm_cfg: Norm behind each convolution.
    """

    def __init__(
        self,
        embed_dims: int,
        cells: Sequence[int],
        cross_attn: Mapping[str, Any],
        ffn: Mapping[str, Any],
        num_convs: int,
        norm_cfg: Mapping[str, Any],
        conv_norm_cfg: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.cells = tuple(cells)
        self.attentions = ModuleList([VolumeCrossAttention(embed_dims, **cross_attn)])
        self.ffns = ModuleList([FFN(embed_dims, **ffn)])
        self.norms = ModuleList(build_norm_layer(dict(norm_cfg), embed_dims)[1] for _ in range(2))
        self.deblock = ModuleList(
            nn.Sequential(
                nn.Conv3d(embed_dims, embed_dims, kernel_size=3, padding=1, bias=False),
                build_norm_layer(dict(conv_norm_cfg), embed_dims)[1],
                nn.ReLU(inplace=True),
            )
            for _ in range(num_convs)
        )

    def forward(self, query: Tensor, tokens: Tensor, positions: Tensor, size: Sequence[int], rebatch: CameraRebatch) -> Tensor:
        """Updates the queries (B, Q, C); for the other arguments see :class:`VolumeCrossAttention`."""
        query = self.norms[0](self.attentions[0](query, tokens, positions, size, rebatch))
        query = self.norms[1](self.ffns[0](query))
        volume = to_volume(query, self.cells)
        for block in self.deblock:
            volume = block(volume)
        return query + to_queries(volume)
