"""A small stage 2 of GaussianOcc on generated streets in the layout of nuScenes, with given poses; trains on a CPU.

Images and class maps alone supervise; voxel labels are for evaluation.

python tools/create_data.py synthetic --format occ3d --frames 6 --scenes-train 32 --scenes-val 8 --camera-sweeps 1 \\
    --image-classes --seed 3 --out data/synthetic_sweeps
"""

_base_ = ['../gaussianocc/gaussianocc_r101_8xb1-12e_occ3d-nus.py']

network_size = [64, 96]
data_root = 'data/synthetic_sweeps/'
contraction = dict(point_cloud_range=[-16.0, -16.0, -1.0, 16.0, 16.0, 3.8], shape=[60, 60, 12], ratio=0.66667)
grid = dict(_base_.grid, point_cloud_range=[-16.0, -16.0, -1.0, 16.0, 16.0, 3.8], voxel_size=0.8, shape=[40, 40, 6])
train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadPseudoLabels'),
    dict(type='ResizeImages', size=network_size, keep_originals=True),
    dict(type='JitterColors'),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadOccLabels'),
    dict(type='LoadDepthPixels', rounding='nearest'),
    dict(type='ResizeImages', size=network_size),
    dict(type='PackOccInputs', extra_meta_keys=['depth_pixels']),
]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        ann_file='occ_infos_train.pkl', data_root=data_root, grid=grid, missing_frames='skip', pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(ann_file='occ_infos_val.pkl', data_root=data_root, grid=grid, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(grid=grid)
test_evaluator = [
    dict(_base_.val_evaluator, grid=grid),
    dict(_base_.test_evaluator[1], grid=grid),
    dict(
        type='RenderedDepthMetric',
        grid=grid,
        field=dict(
            type='FreeLogitField', contraction=contraction, scale=0.4, far_scales=[[24.0, 4.0], [32.0, 8.0]], background='zeros'
        ),
        normalise=False,
        reduction=2,
        max_depth=80.0,
    ),
]

model = dict(
    grid=grid,
    keep_logits=True,
    img_backbone=dict(depth=50, base_channels=8, init_cfg=None),
    img_neck=dict(in_channels=(64, 128), mid_channels=(64, 32), out_channels=16),
    view_encoder=dict(contraction=contraction),
    occ_head=dict(contraction=contraction, in_dims=16, channels=8, with_cp=False),
    aggregator=dict(
        field=dict(contraction=contraction, scale=0.4, far_scales=[[24.0, 4.0], [32.0, 8.0]]),
        views=dict(size=[32, 48]),
        target=dict(size=network_size, poses=None),
    ),
)
# everything from scratch
optim_wrapper = dict(optimizer=dict(lr=2e-3), paramwise_cfg=dict(_delete_=True))
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=6, milestones=[5], gamma=0.1)]
train_cfg = dict(max_epochs=6, val_interval=2)
default_hooks = dict(logger=dict(interval=10))
