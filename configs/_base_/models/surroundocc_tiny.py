"""A small SurroundOcc for generated streets: ResNet-18, volumes of 20 x 20 x 3, 10 x 10 x 3 and 5 x 5 x 3 cells."""

_base_ = ['./surroundocc.py']

# The grid is only six voxels high: the volumes get coarser in x and y alone.
scales = [(2, 2, 2), (4, 4, 2), (8, 8, 2)]
embed_dims = [32, 48, 64]
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
    img_neck=dict(in_channels=[32, 64, 128], out_channels=64),
    view_encoder=dict(
        scales=scales,
        in_channels=64,
        embed_dims=embed_dims,
        num_layers=(1, 1, 2),
        cross_attn=dict(num_heads=4),
        ffn=dict(feedforward_channels=(64, 96, 128)),
    ),
    occ_head=dict(
        scales=scales,
        embed_dims=embed_dims,
        channels=(64, 48, 48, 32, 32, 32, 32),
        strides=(1, (2, 2, 1), 1, (2, 2, 1), 1, 2, 1),
    ),
)
