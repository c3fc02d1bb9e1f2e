"""Symphonies for SSCBench-KITTI-360 as its authors and GaussRender train it: one camera and one depth map per frame.

A child config sets ``model.grid`` and the loss's ``class_weights`` from its dataset. 59.3 M parameters, 58.5 M of them trained.
What weights were trained with by the authors is the default of every option (projects/symphonies lists them). Departures:
  * any batch size; the original works with one sample;
  * 722,176 parameters of MaskDINO's mask branch, which nothing reads, are frozen. The original leaves them trainable without a
    gradient;
  * sizes of the scene volume and of its position tables follow from the grid;
  * pixels without depth (0) show no surface; a depth map that shows no cell of the grid is no error;
  * loss terms without a denominator (no free voxel, no voxel in any frustum) are left out; there NaN.
Memory: all outputs of the head have full resolution. On SSCBench-KITTI-360, in float32 and per sample, its activations kept for
the backward pass have 7.5 GB (counted from shapes); with model.occ_head.with_cp=True 0.2 GB, and 2.5 GB while one output is
recomputed. By default nothing is recomputed, which changes no number.
"""

model = dict(
    type='OccSegmentor',
    opacity_threshold=None,  # trained by rendering alone: voxels of lower opacity become free, 0.1 in the paper
    data_preprocessor=dict(
        type='OccDataPreprocessor',
        mean=[123.675, 116.28, 103.53],  # RGB, 0..255
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        style='pytorch',
    ),
    img_neck=dict(
        type='MaskDINOPixelDecoder',
        in_channels=[256, 512, 1024, 2048],
        embed_dims=256,
        num_levels=4,  # strides 8, 16, 32, 64
        num_layers=6,
        num_heads=8,
        num_points=4,
        feedforward_channels=2048,
        num_groups=32,
        mask_branch=True,  # keeps unused, frozen weights, so that checkpoints convert in both directions
        with_cp=False,  # True: less memory, more time
    ),
    view_encoder=dict(
        type='SymphoniesViewEncoder',
        volume_scale=2,  # voxels per scene cell, the same in occ_head and in LoadVoxelProjections (voxel_scale)
        downsample_z=2,  # further factor along z, the same in occ_head
        feat_levels=(0, 1, 2),  # of the neck: strides 4, 8, 16
        in_channels=256,
        embed_dims=128,  # the same in occ_head
        num_layers=3,
        num_queries=100,
        num_heads=8,
        num_points=4,
        num_plane_points=8,
        mlp_ratio=4,
        dropout=0.1,
        position_squeeze=(2, 2, 1),
        aspp_dilations=(1, 3),
        aspp_layer=2,  # None: behind the last layer
        # What published weights need; changed, they have to be trained anew.
        surface_rounding='compatible',  # or 'floor': the cell that contains the point
        plane_reference='compatible',  # or 'centred': the centre of the cell
        truncate_pixels=True,
        double_residual=True,
        normalize_keys=False,
        attend_to_updated_scene=False,
        with_cp=False,  # True: less memory, more time
    ),
    occ_head=dict(
        type='SymphoniesHead',
        volume_scale=2,
        downsample_z=2,
        embed_dims=128,  # also the channels of the voxel features
        with_cp=False,  # True: far less memory, more time
        loss_occ=dict(
            type='OccupancyLoss',
            ce_weight=1.0,
            lovasz_weight=0.0,
            sem_scal_weight=1.0,
            geo_scal_weight=1.0,
            frustum_weight=1.0,
            frustums=8,  # boxes per side of the image, the same in LoadVoxelProjections
            aux_weight=0.5,  # of the outputs of all layers but the last
            mask='none',
        ),
    ),
)
