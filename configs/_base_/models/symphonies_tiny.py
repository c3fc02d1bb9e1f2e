"""A small Symphonies for generated streets: ResNet-18 with 24 base channels, two layers in the neck, 16 channels.

The generated grid is only eight voxels high, so the scene has two cells along z and the position tables take turns in x alone.
"""

_base_ = ['./symphonies.py']

model = dict(
    img_backbone=dict(depth=18, base_channels=24, stem_channels=24),
    img_neck=dict(
        in_channels=[24, 48, 96, 192],
        embed_dims=24,
        num_levels=4,
        num_layers=2,
        num_heads=4,
        feedforward_channels=32,
        num_groups=4,
    ),
    view_encoder=dict(in_channels=24, embed_dims=16, num_queries=16, num_heads=4, mlp_ratio=2, position_squeeze=(2, 1, 1)),
    occ_head=dict(embed_dims=16),
)
