"""The two attentions of a TPVFormer layer."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule, ModuleList, constant_init, xavier_init
from torch import Tensor, nn

from projects.occ.models.layers import CameraRebatch, deformable_sampling, star_directions


def _check_heads(embed_dims: int, num_heads: int, key: str) -> None:
    if embed_dims % num_heads:
        raise ValueError(f'{key}.num_heads must divide embed_dims {embed_dims}, got {num_heads}')


def _init_sampling(offsets: nn.Linear, weights: nn.Linear, pattern: Tensor) -> None:
    """Every query starts with the same offsets and equal weights."""
    constant_init(offsets, 0.0)
    with torch.no_grad():
        offsets.bias.copy_(pattern.reshape(-1))
    constant_init(weights, 0.0)


class TPVHybridAttention(BaseModule):
    """Deformable attention of a plane to itself (``attentions.0``).

    Two copies of the values, a left-over of a temporal design, are averaged. Both hold the same numbers here, so it is one
    attention over ``num_copies * num_points`` points with one softmax per copy.

    Args:
        embed_dims: Channels C.
        num_heads: Heads M.
        num_points: Sampling points P per head and copy.
        num_copies: Number of softmax groups.
        dropout: Rate on the output.
    """

    def __init__(
        self, embed_dims: int, num_heads: int = 8, num_points: int = 4, num_copies: int = 2, dropout: float = 0.1
    ) -> None:
        super().__init__()
        _check_heads(embed_dims, num_heads, 'self_attn')
        self.num_heads, self.num_points, self.num_copies = num_heads, num_points, num_copies
        num_samples = num_heads * num_copies * num_points
        self.sampling_offsets = nn.Linear(2 * embed_dims, 2 * num_samples)
        self.attention_weights = nn.Linear(2 * embed_dims, num_samples)
        self.value_proj = nn.Linear(embed_dims, embed_dims)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        """Point j of a head starts j + 1 cells away in the head's direction, in every copy."""
        steps = torch.arange(1.0, self.num_points + 1).view(1, 1, -1, 1)
        pattern = (star_directions(self.num_heads)[:, None, None] * steps).expand(-1, self.num_copies, -1, -1)
        _init_sampling(self.sampling_offsets, self.attention_weights, pattern)
        for module in (self.value_proj, self.output_proj):
            xavier_init(module, distribution='uniform')

    def forward(self, query: Tensor, query_pos: Tensor, reference_points: Tensor, size: tuple[int, int]) -> Tensor:
        """Attends and adds the query.

        Args:
            query: (B, Q, C), cells of the plane row by row.
            query_pos: (B, Q, C) positional code; it steers where to look, the values do not contain it.
            reference_points: (1, Q, 1, 2) cell centres, x before y, [0, 1].
            size: Rows and columns of the plane.

        Returns:
            (B, Q, C).
        """
        batch_size, num_query, _ = query.shape
        value = self.value_proj(query).unflatten(-1, (self.num_heads, -1))
        steering = torch.cat((query, query + query_pos), dim=-1)
        shape = (batch_size, num_query, self.num_heads, self.num_copies, self.num_points)
        offsets = self.sampling_offsets(steering).view(*shape, 2).flatten(3, 4)
        weights = self.attention_weights(steering).view(shape).softmax(-1).flatten(3, 4) / self.num_copies
        locations = reference_points.unsqueeze(2) + offsets / reference_points.new_tensor(size[::-1])
        out = deformable_sampling(value, [size], locations.unsqueeze(3), weights.unsqueeze(3))
        return self.dropout(self.output_proj(out)) + query


class TPVDeformableAttention3D(BaseModule):
    """Sampling of image features around the projected anchors of pillars (``attentions.1.deformable_attention``).

    Every plane has its own offsets and weights; the projection of the image features is shared.

    Args:
        embed_dims: Channels C.
        num_heads: Heads M.
        num_levels: Levels of the image features.
        num_points: Sampling points P per head and level, one number per plane.
        num_anchors: Anchors D per pillar, one number per plane; P / D consecutive points belong to one anchor.
        floor_sampling_offset: Wrap positions into [0, 1) instead of sampling zeros outside the image.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        num_levels: int,
        num_points: Sequence[int],
        num_anchors: Sequence[int],
        floor_sampling_offset: bool = False,
    ) -> None:
        super().__init__()
        _check_heads(embed_dims, num_heads, 'cross_attn')
        if len(num_points) != len(num_anchors) or any(p % d for p, d in zip(num_points, num_anchors)):
            raise ValueError(f'cross_attn.num_points {tuple(num_points)} must be multiples of num_anchors {tuple(num_anchors)}')
        self.num_heads, self.num_levels = num_heads, num_levels
        self.num_points, self.num_anchors = tuple(num_points), tuple(num_anchors)
        self.floor_sampling_offset = floor_sampling_offset
        num_samples = [num_heads * num_levels * p for p in num_points]
        self.sampling_offsets = ModuleList(nn.Linear(embed_dims, 2 * n) for n in num_samples)
        self.attention_weights = ModuleList(nn.Linear(embed_dims, n) for n in num_samples)
        self.value_proj = nn.Linear(embed_dims, embed_dims)

    def init_weights(self) -> None:
        """The j-th point of every anchor starts j + 1 pixels away in the head's direction, on all levels."""
        directions = star_directions(self.num_heads)[:, None, None, None]
        for plane, (points, anchors) in enumerate(zip(self.num_points, self.num_anchors)):
            steps = torch.arange(1.0, points // anchors + 1).view(1, 1, 1, -1, 1)
            pattern = (directions * steps).expand(-1, self.num_levels, anchors, -1, -1)
            _init_sampling(self.sampling_offsets[plane], self.attention_weights[plane], pattern)
        xavier_init(self.value_proj, distribution='uniform')

    def project_value(self, tokens: Tensor) -> Tensor:
        """Image tokens (B*N, S, C) -> values of all heads (B*N, S, M, C/M)."""
        return self.value_proj(tokens).unflatten(-1, (self.num_heads, -1))

    def forward(
        self, plane: int, query: Tensor, value: Tensor, positions: Tensor, spatial_shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Samples for the queries of one plane.

        Args:
            plane: Index of the plane.
            query: (R, L, C), R rows of queries.
            value: (R, S, M, C/M) from ``project_value``.
            positions: (R, L, D, 2) projected anchors, x before y, [0, 1] inside the image.
            spatial_shapes: (h, w) of every level.

        Returns:
            (R, L, C) before the output projection.
        """
        rows, length, _ = query.shape
        anchors = self.num_anchors[plane]
        shape = (rows, length, self.num_heads, self.num_levels)
        offsets = self.sampling_offsets[plane](query).view(*shape, anchors, -1, 2)
        weights = self.attention_weights[plane](query).view(*shape[:3], -1).softmax(-1).view(*shape, -1)
        widths_heights = positions.new_tensor([(w, h) for h, w in spatial_shapes]).view(-1, 1, 1, 2)
        locations = positions[:, :, None, None, :, None] + offsets / widths_heights
        if self.floor_sampling_offset:
            locations = locations - locations.floor()
        return deformable_sampling(value, spatial_shapes, locations.flatten(4, 5), weights)


class TPVImageCrossAttention(BaseModule):
    """Attention of all planes to the images (``attentions.1``).

    A camera counts for a query if it sees at least one anchor of the query's pillar; then all anchors are used. The results of
    the cameras that count are averaged. Queries that no camera sees receive the bias of the output projection.

    Args:
        embed_dims: Channels C.
        dropout: Rate on the output.
        **deformable: Options of :class:`TPVDeformableAttention3D`.
    """

    def __init__(self, embed_dims: int, dropout: float = 0.1, **deformable) -> None:
        super().__init__()
        self.deformable_attention = TPVDeformableAttention3D(embed_dims, **deformable)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        """Xavier for the output projection; the sampling part has its own rule."""
        xavier_init(self.output_proj, distribution='uniform')
        super().init_weights()

    def forward(
        self,
        query: Tensor,
        tokens: Tensor,
        spatial_shapes: Sequence[tuple[int, int]],
        positions: Sequence[Tensor],
        rebatches: Sequence[CameraRebatch],
    ) -> Tensor:
        """Attends and adds the query.

        Args:
            query: (B, Q, C), the planes one after the other.
            tokens: (B*N, S, C) image features.
            spatial_shapes: (h, w) of every level.
            positions: Per plane (B*N, L, D, 2), projected anchors of the queries that each camera sees.
            rebatches: Per plane, which query is seen by which camera.

        Returns:
            (B, Q, C).
        """
        value = self.deformable_attention.project_value(tokens)
        slots = []
        for plane, part in enumerate(query.split([r.num_queries for r in rebatches], dim=1)):
            rebatch = rebatches[plane]
            sampled = self.deformable_attention(plane, rebatch.gather(part), value, positions[plane], spatial_shapes)
            slots.append(rebatch.scatter_mean(sampled))
        return self.dropout(self.output_proj(torch.cat(slots, dim=1))) + query
