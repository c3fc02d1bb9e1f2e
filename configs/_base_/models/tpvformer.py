"""TPVFormer, occupancy variant, as GaussRender trains it: ResNet-101 with deformable convolutions, planes at half resolution.

A child config sets ``model.grid`` and the loss's ``class_weights`` from its dataset. 62.6 M trainable parameters.
Departures from the released code, none of which changes a published number:
  * sizes of the planes follow from the grid (w from x, h from y; the original swaps them, which square grids hide);
  * any batch size; visibility per sample, image sizes per camera;
  * images whose size 32 does not divide are padded, and positions are normalised by the padded size.
"""

model = dict(
    type='OccSegmentor',
    opacity_threshold=None,  # trained by rendering alone: voxels of lower opacity become free, 0.1 in the paper
    data_preprocessor=dict(
        type='OccDataPreprocessor',
        mean=[103.530, 116.280, 123.675],  # BGR, 0..255
        std=[1.0, 1.0, 1.0],
        bgr_to_rgb=False,
        pad_size_divisor=32,
        # The released config asks for GridMask, but its code never applies it. The TPVFormer authors do; a child that wants it
        # adds grid_mask=dict(type='OccGridMask', prob=0.7).
    ),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=101,
        num_stages=4,
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN2d', requires_grad=False),
        norm_eval=True,
        style='caffe',
        dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),
    ),
    img_neck=dict(
        type='mmdet.FPN',
        in_channels=[512, 1024, 2048],
        out_channels=256,
        start_level=0,
        add_extra_convs='on_output',
        num_outs=4,
        relu_before_extra_convs=True,
    ),
    view_encoder=dict(
        type='TPVFormerViewEncoder',
        scale=(2, 2, 2),  # voxels per plane cell along x, y, z; the same number in occ_head
        embed_dims=256,
        num_cams=6,
        num_levels=4,
        num_layers=3,
        num_anchors=(4, 32, 32),  # per pillar of the planes hw, zh, wz
        self_attn=dict(num_heads=8, num_points=4, num_copies=2, dropout=0.1),
        cross_attn=dict(num_heads=8, num_points=(8, 64, 64), dropout=0.1, floor_sampling_offset=False),
        ffn=dict(feedforward_channels=512, ffn_drop=0.1),
        with_cp=False,  # True: less memory, more time
    ),
    occ_head=dict(
        type='TPVFormerOccHead',
        scale=(2, 2, 2),
        in_dims=256,
        hidden_dims=512,
        out_dims=256,
        with_cp=True,
        loss_occ=dict(
            type='OccupancyLoss',
            ce_weight=10.0,
            lovasz_weight=1.0,
            mask='none',  # or 'camera', 'lidar', 'both': voxels that count
        ),
    ),
)
