"""A small TPVFormer for generated streets: ResNet-18, two layers, planes of 20 x 20 x 3 cells."""

_base_ = ['./tpvformer.py']

model = dict(
    data_preprocessor=dict(std=[57.4, 57.1, 58.4], pad_size_divisor=16),
    img_backbone=dict(
        _delete_=True,
        type='mmdet.ResNet',
        depth=18,
        base_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
        norm_cfg=dict(type='BN'),
        norm_eval=False,
    ),
    img_neck=dict(in_channels=[32, 64, 128], out_channels=64, num_outs=3),
    view_encoder=dict(
        embed_dims=64,
        num_levels=3,
        num_layers=2,
        num_anchors=(4, 8, 8),
        self_attn=dict(num_heads=4, dropout=0.0),
        cross_attn=dict(num_heads=4, num_points=(8, 16, 16), dropout=0.0),
        ffn=dict(feedforward_channels=128, ffn_drop=0.0),
    ),
    occ_head=dict(in_dims=64, hidden_dims=128, out_dims=64, with_cp=False),
)
