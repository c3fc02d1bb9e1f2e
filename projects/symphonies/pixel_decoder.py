"""The part of MaskDINO (arXiv 2206.02777) that Symphonies keeps behind the backbone: a deformable encoder over levels."""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmdet.models.layers import DeformableDetrTransformerEncoder, SinePositionalEncoding
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule, ModuleList, xavier_init
from torch import Tensor, nn

from projects.occ.models.layers import recompute


@MODELS.register_module()
class MaskDINOPixelDecoder(BaseModule):
    """Lets every pixel of the coarser feature maps attend to all of them (deformable attention, six layers).

    The finest map (stride 4) is handed on as it is. Coarser levels than the backbone's are made by strided convolutions, the
    first one from the backbone's last map. Runs in float32 whatever the autocast state.

    The original also computes mask features, which Symphonies never reads. Their parameters are part of published
    checkpoints, so they are kept (``mask_branch``), but they are frozen: without a gradient they would stop distributed
    training.

    Args:
        in_channels: Channels of the backbone's maps, strides 4, 8, 16, 32.
        embed_dims: Channels C of the levels.
        num_levels: Levels of the encoder, strides 8, 16, 32, 64, ...; at least the backbone's three.
        num_layers: Layers of the encoder.
        num_heads: Heads of the attention.
        num_points: Sampling points per head and level.
        feedforward_channels: Hidden channels of the feed-forward networks.
        num_groups: Groups of the norms behind convolutions.
        mask_branch: Keep the unused parameters of the mask features, for strict loading in both directions.
        with_cp: Recompute the layers in the backward pass: less memory, more time, same numbers.
        init_cfg: Initialisation, see mmengine.

    Raises:
        ValueError: If there are fewer levels than maps.
    """

    def __init__(
        self,
        in_channels: Sequence[int] = (256, 512, 1024, 2048),
        embed_dims: int = 256,
        num_levels: int = 4,
        num_layers: int = 6,
        num_heads: int = 8,
        num_points: int = 4,
        feedforward_channels: int = 2048,
        num_groups: int = 32,
        mask_branch: bool = True,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        finest, *deeper = in_channels
        if num_levels < len(deeper):
            raise ValueError(
                f'img_neck.num_levels must be at least {len(deeper)}, the number of img_neck.in_channels without the first, '
                f'got {num_levels}'
            )
        self.with_cp = with_cp
        self.num_levels = num_levels
        self.in_channels = tuple(in_channels)
        self.input_proj = ModuleList(
            nn.Sequential(nn.Conv2d(channels, embed_dims, kernel_size=1), nn.GroupNorm(num_groups, embed_dims))
            for channels in deeper
        )
        for level in range(len(deeper), num_levels):
            channels = deeper[-1] if level == len(deeper) else embed_dims
            conv = nn.Conv2d(channels, embed_dims, kernel_size=3, stride=2, padding=1)
            self.input_proj.append(nn.Sequential(conv, nn.GroupNorm(num_groups, embed_dims)))
        self.position = SinePositionalEncoding(embed_dims // 2, normalize=True)
        self.level_embed = nn.Parameter(torch.zeros(num_levels, embed_dims))
        self.encoder = DeformableDetrTransformerEncoder(
            num_layers=num_layers,
            layer_cfg=dict(
                self_attn_cfg=dict(
                    embed_dims=embed_dims, num_heads=num_heads, num_levels=num_levels, num_points=num_points, dropout=0.0
                ),
                ffn_cfg=dict(embed_dims=embed_dims, feedforward_channels=feedforward_channels, ffn_drop=0.0),
            ),
        )
        if mask_branch:
            norm = dict(type='GN', num_groups=num_groups)
            self.adapter_1 = ConvModule(finest, embed_dims, 1, norm_cfg=norm, act_cfg=None)
            self.layer_1 = ConvModule(embed_dims, embed_dims, 3, padding=1, norm_cfg=norm)
            self.mask_features = nn.Conv2d(embed_dims, embed_dims, 1)
            for part in (self.adapter_1, self.layer_1, self.mask_features):
                part.requires_grad_(False)

    def init_weights(self) -> None:
        """Xavier for convolutions and the encoder, normal for the level embedding, stars for the sampling offsets."""
        for proj in self.input_proj:
            xavier_init(proj[0], distribution='uniform')
        nn.init.normal_(self.level_embed)
        for layer in self.encoder.layers:
            for linear in (part for part in layer.ffn.modules() if isinstance(part, nn.Linear)):
                xavier_init(linear, distribution='uniform')
            layer.self_attn.init_weights()

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Encodes.

        Args:
            feats: Maps of the backbone, strides 4, 8, 16, 32, each (B, C_i, h, w).

        Returns:
            The first map as it came, then the levels from fine to coarse, each (B, C, h, w), float32.

        Raises:
            ValueError: If the maps do not have the channels that the decoder was built for.
        """
        channels = tuple(feat.shape[1] for feat in feats)
        if channels != self.in_channels:
            raise ValueError(
                f'img_neck expects feature maps with {self.in_channels} channels (img_neck.in_channels), got {channels}; '
                'compare with img_backbone.out_indices and depth'
            )
        with torch.autocast(feats[0].device.type, enabled=False):
            feats = [feat.float() for feat in feats]
            return [feats[0], *self._encode(feats[1:])]

    def _encode(self, feats: list[Tensor]) -> list[Tensor]:
        levels = [proj(feat) for proj, feat in zip(self.input_proj, feats)]
        for proj in self.input_proj[len(feats) :]:
            levels.append(proj(feats[-1] if len(levels) == len(feats) else levels[-1]))
        sizes = [tuple(level.shape[-2:]) for level in levels]
        position = [self.position(None, level) + embed.view(1, -1, 1, 1) for level, embed in zip(levels, self.level_embed)]
        query, position = (torch.cat([part.flatten(2) for part in parts], -1).transpose(1, 2) for parts in (levels, position))
        shapes = torch.tensor(sizes, device=query.device)
        areas = shapes.prod(1)
        whole = query.new_ones(len(query), len(sizes), 2)
        reference = self.encoder.get_encoder_reference_points(sizes, whole, query.device)

        def run(layer: nn.Module, query: Tensor) -> Tensor:
            return layer(
                query,
                position,
                None,
                spatial_shapes=shapes,
                level_start_index=areas.cumsum(0) - areas,
                reference_points=reference,
            )

        for layer in self.encoder.layers:
            query = recompute(layer, layer, query, function=run) if self.with_cp else run(layer, query)
        parts = query.transpose(1, 2).split([height * width for height, width in sizes], dim=-1)
        return [part.unflatten(-1, size) for part, size in zip(parts, sizes)]
