"""GaussianOcc, stage 1: depth and motion of a camera rig from images alone.

The authors never released this stage; it follows the paper, and our choices are in the docstrings of ``DepthNetwork`` and
``RigDepthLoss``. Depth network: ResNet-50 with a U-shaped decoder (theirs: New-CRFs with Swin).
"""

model = dict(
    type='DepthPoseModel',
    data_preprocessor=dict(
        type='OccDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    depth_network=dict(
        type='DepthNetwork',
        backbone=dict(
            type='mmdet.ResNet',
            depth=50,
            num_stages=4,
            out_indices=(0, 1, 2, 3),
            norm_eval=False,
            style='pytorch',
            init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
        ),
        in_channels=(256, 512, 1024, 2048),
        channels=(256, 128, 64, 32),
        min_depth=0.1,
        max_depth=80.0,
    ),
    pose_network=dict(
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
    ),
    loss=dict(
        type='RigDepthLoss',
        photometric_weight=1.0,
        smooth_weight=0.001,
        cross_view_weight=1.0,
        warmup_steps=500,
        far=80.0,
        automask=True,
        literal=False,  # True: the paper read literally, whose loss prefers depths without end
    ),
    frames=[-1, 1],
    masks=False,
)
