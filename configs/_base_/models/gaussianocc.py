"""GaussianOcc, stage 2: ResNet-101 to 1/16, features averaged over cameras at a contracted grid, three 3D hourglasses.

A child config sets ``model.grid`` and what supervises the model. 38.8 M + 1.9 M trainable parameters.
Departures from the released code:
  * any batch size and number of cameras;
  * no heads that nothing uses (``classif3``, ``classif_flow``).
"""

# Vertices of the volume; the inner two thirds of every axis are the linear range. Handed to view encoder and head.
contraction = dict(point_cloud_range=[-40.0, -40.0, -1.0, 40.0, 40.0, 5.4], shape=[300, 300, 24], ratio=0.66667)

model = dict(
    type='OccSegmentor',
    data_preprocessor=dict(
        type='OccDataPreprocessor',
        mean=[123.675, 116.28, 103.53],  # RGB, 0..255
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_size_divisor=16,
    ),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=101,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(1, 2),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet101'),
    ),
    img_neck=dict(type='GaussianOccNeck', in_channels=(512, 1024), mid_channels=(512, 256), out_channels=64),
    view_encoder=dict(
        type='AverageLiftViewEncoder',
        contraction=contraction,
        align='corner',  # 'mixed' for weights published by the authors
    ),
    occ_head=dict(type='HourglassOccHead', contraction=contraction, in_dims=64, channels=32, with_cp=True),
)

# The network for the motion between frames; a supervision that learns motions takes it.
pose_network = dict(
    type='PoseNetwork',
    backbone=dict(
        type='mmdet.ResNet',
        depth=34,
        in_channels=6,
        out_indices=(3,),
        norm_eval=False,
        style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet34'),
    ),
    in_channels=512,
    hidden_channels=256,
)
