"""BEVDet for occupancy with stereo: ResNet-50 at 256 x 704, the key frame fused with the one before it, a third for stereo.

The model of BEVDet's ``bevdet-occ-r50-4d-stereo-24e``, 34,969,712 parameters. A child config sets ``model.grid`` from its
dataset, whose ``frames`` must hold those that the model reads: the key frame and ``num_frames`` earlier ones. Departures:
activation checkpointing counts a batch once in the statistics of batch norms.
"""

model = dict(
    type='BEVDetSegmentor',
    history_eval=False,  # earlier frames move the statistics of batch norms too, as in the released training
    data_preprocessor=dict(
        type='OccDataPreprocessor',
        # The released networks saw B, G, R with the statistics of R, G, B. From scratch: bgr_to_rgb=True.
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=False,
        pad_size_divisor=32,
    ),
    img_backbone=dict(
        type='StereoResNet',
        depth=50,
        num_stages=4,
        out_indices=(0, 2, 3),  # the first is the feature for stereo
        frozen_stages=-1,
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
        with_cp=True,  # less memory, more time, same numbers; also below
        init_cfg=None,
    ),
    img_neck=dict(type='SingleLevelFPN', in_channels=[1024, 2048], out_channels=256),
    view_encoder=dict(
        type='BEVDetViewEncoder',
        channels=32,  # of the lifted features
        depth_bins=(1.0, 45.0, 0.5),  # near edge, far edge, width; metres
        num_frames=2,  # frames that are fused, the key frame included
        depth_net=dict(type='CameraAwareDepthNet', in_channels=256, aspp_channels=96, stereo=True, with_cp=False),
        frame_net=dict(type='ResNet3D', in_channels=32, channels=(32,), num_blocks=(1,), strides=(1,), with_cp=False),
        voxel_encoder=dict(type='ResNet3D', channels=(32, 64, 128), num_blocks=(1, 2, 4), strides=(1, 2, 2), with_cp=False),
        voxel_neck=dict(type='LSSFPN3D', in_channels=224, out_channels=32, with_cp=False),
        shape=None,  # voxels (X, Y, Z) of the volume; None: those of the grid
        cost_bias=5.0,  # cost of depths whose points lie outside the earlier image
        reference_geometry=True,  # as the released weights were trained; False is right
        with_history=True,  # False: only the key frame
    ),
    occ_head=dict(
        type='BEVDetOccHead',
        in_channels=32,
        channels=32,  # of the voxel features
        loss_occ=dict(
            type='OccupancyLoss',
            ce_weight=1.0,
            lovasz_weight=0.0,
            class_weights=None,
            mask='camera',  # voxels that count: those that the evaluation counts; 'none' for all
        ),
        loss_depth=dict(type='LiftedDepthLoss', weight=0.05),  # of the depth distribution against LiDAR; None: leave it out
    ),
)
