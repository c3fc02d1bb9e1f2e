"""Attention layers of Symphonies: deformable sampling of maps, and plain attention between tokens."""

from collections.abc import Sequence

from mmcv.ops import MultiScaleDeformableAttention
from mmengine.model import BaseModule
from torch import Tensor, nn

from projects.occ.models.layers import deformable_sampling


class DeformableAttention(MultiScaleDeformableAttention):
    """mmcv's multi-scale deformable attention (same weights, same start values), without its residual.

    Samples in float32 for any batch size and on any device, see :func:`deformable_sampling`.
    """

    def forward(self, query: Tensor, value: Tensor, positions: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        """Samples around reference points.

        Args:
            query: (B, L, C), position included.
            value: (B, S, C), maps flattened row by row and concatenated.
            positions: (B, L, 2), reference points, x before y, [0, 1] inside the maps.
            sizes: (h, w) of every map.

        Returns:
            (B, L, C).
        """
        shape = (*query.shape[:2], self.num_heads, self.num_levels, self.num_points)
        weights = self.attention_weights(query).view(*shape[:3], -1).softmax(-1).view(shape)
        scale = positions.new_tensor([size[::-1] for size in sizes])[:, None]
        locations = positions[:, :, None, None, None] + self.sampling_offsets(query).view(*shape, 2) / scale
        value = self.value_proj(value).unflatten(-1, (self.num_heads, -1))
        return self.dropout(self.output_proj(deformable_sampling(value, sizes, locations, weights)))


def feed_forward(embed_dims: int, mlp_ratio: int) -> nn.Sequential:
    """Two linear layers with a GELU between them."""
    hidden = mlp_ratio * embed_dims
    return nn.Sequential(nn.Linear(embed_dims, hidden), nn.GELU(), nn.Linear(hidden, embed_dims))


class DeformableLayer(BaseModule):
    """Pre-norm deformable attention and, with ``mlp_ratio``, a feed-forward network.

    Args:
        embed_dims: Channels C.
        num_heads: Heads of the attention.
        num_levels: Number of maps.
        num_points: Sampling points per head and map.
        mlp_ratio: Hidden channels of the feed-forward network in multiples of C; 0 leaves it out.
        dropout: Rate on the output of the attention.
        double_residual: Compatible with published weights, which need it: the attention adds its normalised input, and the
            layer then adds its input. False: the layer's residual only.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int = 8,
        num_levels: int = 1,
        num_points: int = 4,
        mlp_ratio: int = 4,
        dropout: float = 0.1,
        double_residual: bool = True,
    ) -> None:
        super().__init__()
        self.double_residual = double_residual
        self.norm1 = nn.LayerNorm(embed_dims)
        self.attn = DeformableAttention(embed_dims, num_heads, num_levels, num_points, dropout=dropout, batch_first=True)
        if mlp_ratio:
            self.norm2 = nn.LayerNorm(embed_dims)
            self.ffn = feed_forward(embed_dims, mlp_ratio)
        else:
            self.ffn = None

    def forward(
        self, query: Tensor, value: Tensor, positions: Tensor, sizes: Sequence[tuple[int, int]], query_pos: Tensor | None = None
    ) -> Tensor:
        """Updates queries (B, L, C) with position ``query_pos`` (B, L, C); see :class:`DeformableAttention` for the rest."""
        normed = self.norm1(query)
        sampled = self.attn(normed if query_pos is None else normed + query_pos, value, positions, sizes)
        query = query + sampled + (normed if self.double_residual else 0)
        return query if self.ffn is None else query + self.ffn(self.norm2(query))


class AttentionLayer(BaseModule):
    """Pre-norm attention to other tokens or among the queries themselves and, with ``mlp_ratio``, a feed-forward network.

    Args:
        embed_dims: Channels C.
        num_heads: Heads of the attention.
        mlp_ratio: Hidden channels of the feed-forward network in multiples of C; 0 leaves it out.
        normalize_keys: Normalise keys and values of self attention as the queries are. False is compatible with published
            weights, which were trained with keys and values as they come. Keys of other tokens are never normalised.
    """

    def __init__(self, embed_dims: int, num_heads: int = 8, mlp_ratio: int = 4, normalize_keys: bool = False) -> None:
        super().__init__()
        self.normalize_keys = normalize_keys
        self.norm1 = nn.LayerNorm(embed_dims)
        self.attn = nn.MultiheadAttention(embed_dims, num_heads, batch_first=True)
        if mlp_ratio:
            self.norm2 = nn.LayerNorm(embed_dims)
            self.ffn = feed_forward(embed_dims, mlp_ratio)
        else:
            self.ffn = None

    def forward(self, query: Tensor, tokens: Tensor | None = None, query_pos: Tensor | None = None) -> Tensor:
        """Updates queries.

        Args:
            query: (B, L, C).
            tokens: (B, S, C), keys and values; None for self attention.
            query_pos: (B, L, C), position of the queries, or None.

        Returns:
            (B, L, C).
        """
        normed = self.norm1(query)
        if tokens is None:
            tokens = normed if self.normalize_keys else query
        asking = normed if query_pos is None else normed + query_pos
        query = query + self.attn(asking, tokens, tokens, need_weights=False)[0]
        return query if self.ffn is None else query + self.ffn(self.norm2(query))
