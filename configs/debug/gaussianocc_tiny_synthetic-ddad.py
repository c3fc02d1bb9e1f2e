"""A small stage 2 of GaussianOcc on generated drives in DDAD's layout, with given poses; trains on a CPU.

python tools/create_data.py synthetic --format ddad --image-size 192x120 --frames 8 --out data/synthetic_ddad
"""

_base_ = ['../gaussianocc/gaussianocc_r101_8xb1-12e_ddad.py']

network_size = [96, 160]
contraction = dict(point_cloud_range=[-16.0, -16.0, -1.0, 16.0, 16.0, 3.8], shape=[40, 40, 8], ratio=0.66667)
grid = dict(_base_.grid, point_cloud_range=[-16.0, -16.0, -1.0, 16.0, 16.0, 3.8], voxel_size=0.8, shape=[40, 40, 6])
train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadSelfOcclusionMasks', valid='zero'),
    dict(type='LoadPseudoLabels'),
    dict(type='ResizeImages', size=network_size, keep_originals=True),
    dict(type='JitterColors'),
    dict(type='PackOccInputs'),
]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root='data/synthetic_ddad/',
        data_prefix=dict(mask='mask', pseudo='ddad_semantic'),
        grid=grid,
        pipeline=train_pipeline,
    ),
)
model = dict(
    grid=grid,
    img_backbone=dict(depth=50, base_channels=8, init_cfg=None),
    img_neck=dict(in_channels=(64, 128), mid_channels=(64, 32), out_channels=16),
    view_encoder=dict(contraction=contraction),
    occ_head=dict(contraction=contraction, in_dims=16, channels=8, with_cp=False),
    aggregator=dict(
        field=dict(contraction=contraction, scale=0.5, far_scales=[[24.0, 4.0], [32.0, 8.0]]),
        views=dict(size=[48, 80]),
        target=dict(size=network_size, poses=None),
    ),
)
train_cfg = dict(max_epochs=12)
default_hooks = dict(logger=dict(interval=10))
