"""A small BEVDet for generated streets: ResNet-18, 20 depth bins, 8 channels a frame; correct geometry."""

_base_ = ['./bevdet.py']

model = dict(
    data_preprocessor=dict(pad_size_divisor=16),
    img_backbone=dict(depth=18, base_channels=16, stem_channels=16, with_cp=False),
    img_neck=dict(in_channels=[64, 128], out_channels=32),
    view_encoder=dict(
        channels=8,
        depth_bins=(1.0, 21.0, 1.0),
        depth_net=dict(in_channels=32, aspp_channels=16),
        frame_net=dict(in_channels=8, channels=(8,)),
        voxel_encoder=dict(channels=(8, 16, 32), num_blocks=(1, 1, 1)),
        voxel_neck=dict(in_channels=56, out_channels=16),
        reference_geometry=False,
    ),
    occ_head=dict(in_channels=16, channels=16),
)
