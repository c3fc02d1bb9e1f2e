"""Attention of voxel queries to the images."""

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule, constant_init, xavier_init
from torch import Tensor, nn

from projects.occ.models.layers import CameraRebatch, deformable_sampling, star_directions


class VolumeDeformableAttention(BaseModule):
    """Sampling of one level of image features around a projected voxel centre (``attentions.0.deformable_attention``).

    Args:
        embed_dims: Channels C.
        num_heads: Heads M.
        num_points: Sampling points K per head.

    Raises:
        ValueError: If ``num_heads`` does not divide ``embed_dims``.
    """

    def __init__(self, embed_dims: int, num_heads: int = 8, num_points: int = 4) -> None:
        super().__init__()
        if embed_dims % num_heads:
            raise ValueError(
                f'view_encoder.cross_attn.num_heads must divide every number of view_encoder.embed_dims, '
                f'got {num_heads} heads for {embed_dims} channels'
            )
        self.num_heads, self.num_points = num_heads, num_points
        self.sampling_offsets = nn.Linear(embed_dims, 2 * num_heads * num_points)
        self.attention_weights = nn.Linear(embed_dims, num_heads * num_points)
        self.value_proj = nn.Linear(embed_dims, embed_dims)

    def init_weights(self) -> None:
        """Point j of a head starts j + 1 pixels away in the head's direction, with equal weights, for every query."""
        constant_init(self.sampling_offsets, 0.0)
        constant_init(self.attention_weights, 0.0)
        steps = torch.arange(1.0, self.num_points + 1).view(1, -1, 1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((star_directions(self.num_heads)[:, None] * steps).flatten())
        xavier_init(self.value_proj, distribution='uniform')

    def forward(self, query: Tensor, tokens: Tensor, positions: Tensor, size: tuple[int, int]) -> Tensor:
        """Samples.

        Args:
            query: (R, L, C), R rows of queries.
            tokens: (R, h*w, C), image features of each row, flattened row by row.
            positions: (R, L, 2), projected voxel centres, x before y, [0, 1] inside the image.
            size: (h, w) of the features.

        Returns:
            (R, L, C), heads concatenated, before any output projection.
        """
        value = self.value_proj(tokens).unflatten(-1, (self.num_heads, -1))
        shape = (*query.shape[:2], self.num_heads, 1, self.num_points)
        weights = self.attention_weights(query).view(shape).softmax(-1)
        offsets = self.sampling_offsets(query).view(*shape, 2) / positions.new_tensor(size[::-1])
        return deformable_sampling(value, [size], positions[:, :, None, None, None] + offsets, weights)


class VolumeCrossAttention(BaseModule):
    """Attention of all voxels to the cameras that see their centres (``attentions.0``).

    The results of the cameras that see a voxel are averaged. A voxel that no camera sees receives the bias of the output
    projection.

    Args:
        embed_dims: Channels C.
        dropout: Rate on the output.
        **deformable: Options of :class:`VolumeDeformableAttention`.
    """

    def __init__(self, embed_dims: int, dropout: float = 0.1, **deformable) -> None:
        super().__init__()
        self.deformable_attention = VolumeDeformableAttention(embed_dims, **deformable)
        self.output_proj = nn.Linear(embed_dims, embed_dims)
        self.dropout = nn.Dropout(dropout)

    def init_weights(self) -> None:
        """Xavier for the output projection; the sampling part has its own rule."""
        xavier_init(self.output_proj, distribution='uniform')
        super().init_weights()

    def forward(self, query: Tensor, tokens: Tensor, positions: Tensor, size: Sequence[int], rebatch: CameraRebatch) -> Tensor:
        """Attends and adds the query.

        Args:
            query: (B, Q, C).
            tokens: (B*N, h*w, C) image features.
            positions: (B*N, L, 2), projected centres of the voxels that each camera sees.
            size: (h, w) of the features.
            rebatch: Which voxel is seen by which camera.

        Returns:
            (B, Q, C).
        """
        sampled = self.deformable_attention(rebatch.gather(query), tokens, positions, size)
        return self.dropout(self.output_proj(rebatch.scatter_mean(sampled))) + query
