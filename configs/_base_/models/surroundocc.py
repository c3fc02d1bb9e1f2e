"""SurroundOcc as GaussRender trains it: ResNet-101 with deformable convolutions, volumes at 1/2, 1/4 and 1/8 of the resolution.

A child config sets ``model.grid`` and the loss's ``class_weights`` from its dataset. 180.1 M trainable parameters.
The network of GaussRender's variant was never released; its logs print these numbers and this parameter count. Departures:
  * sizes of the volumes follow from the grid;
  * any batch size; visibility per sample (there that of the first sample), image sizes per camera;
  * images whose size 32 does not divide are padded (not those of SSCBench-KITTI-360, as published), and a voxel that projects
    onto padding is not seen;
  * a layer that is never run (reference_points) is left out, the converter keeps its weights;
  * voxel loss of GaussRender: class-weighted cross-entropy and Lovász on all four outputs. The authors' own losses and recipe
    are in surroundocc/surroundocc_r101-dcn_authors_8xb1-24e_surroundocc-nus.py.
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
        # GaussRender's configs ask for GridMask, but its code never applies it. The SurroundOcc authors do; a child that wants
        # it adds grid_mask=dict(type='OccGridMask', prob=0.7).
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
        out_channels=512,
        start_level=0,
        add_extra_convs='on_output',
        num_outs=3,
        relu_before_extra_convs=True,
    ),
    # A list has one element per volume, fine to coarse; one number instead serves all.
    view_encoder=dict(
        type='SurroundOccViewEncoder',
        scales=(2, 4, 8),  # voxels per cell, the same in occ_head; (x, y, z) instead of a number if the axes differ
        in_channels=512,
        embed_dims=(128, 256, 512),  # the same in occ_head; multiples of the 16 groups of the norms
        num_layers=(1, 3, 6),
        num_cams=6,
        cross_attn=dict(num_heads=8, num_points=(2, 4, 8), dropout=0.1),
        ffn=dict(feedforward_channels=(256, 512, 1024), ffn_drop=0.1),
        num_convs=2,
        see_padding=False,  # True: as the authors' weights were trained
        with_cp=False,  # True: less memory, more time
    ),
    occ_head=dict(
        type='SurroundOccHead',
        scales=(2, 4, 8),
        embed_dims=(128, 256, 512),
        channels=(256, 256, 128, 128, 64, 64, 32),  # of the blocks; the last number is that of the voxel features
        strides=(1, 2, 1, 2, 1, 2, 1),
        out_indices=(0, 2, 4, 6),  # blocks with a classifier
        with_cp=False,  # True: less memory, more time
        loss_occ=dict(
            type='OccupancyLoss',
            ce_weight=10.0,
            lovasz_weight=1.0,
            sem_scal_weight=0.0,
            geo_scal_weight=0.0,
            decay=0.5,  # factor from each output to the next coarser one
            # labels of the coarse outputs: or 'sparse_last', 'sparse_last_known', 'majority', 'majority_occupied'
            label_reduction='strided',
            mask='none',  # or 'camera', 'lidar', 'both': voxels that count
        ),
    ),
)
