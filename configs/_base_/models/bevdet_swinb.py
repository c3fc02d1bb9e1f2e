"""BEVDet for occupancy with stereo: Swin-B at 512 x 1408. The rest is as in bevdet.py; 121,278,120 parameters.

The model of BEVDet's ``bevdet-occ-stbase-4d-stereo-512x1408-24e`` and of RenderOcc's baseline.
"""

_base_ = ['./bevdet.py']

model = dict(
    img_backbone=dict(
        _delete_=True,
        type='StereoSwinTransformer',
        pretrain_img_size=224,
        patch_size=4,
        embed_dims=128,
        depths=(2, 2, 18, 2),
        num_heads=(4, 8, 16, 32),
        strides=(4, 2, 2, 2),
        window_size=12,
        mlp_ratio=4,
        qkv_bias=True,
        drop_path_rate=0.1,
        out_indices=(0, 2, 3),  # the first is the feature for stereo, without a norm
        with_cp=True,  # less memory, more time, same numbers
    ),
    img_neck=dict(_delete_=True, type='LSSFPN', in_channels=[512, 1024], out_channels=512),
    view_encoder=dict(depth_net=dict(in_channels=512)),
)
