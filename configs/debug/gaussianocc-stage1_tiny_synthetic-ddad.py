"""A small stage 1 of GaussianOcc on generated drives; trains on a CPU, 240 steps of half a second an epoch.

python tools/create_data.py synthetic --format ddad --image-size 192x120 --frames 8 --scenes-train 40 --scenes-val 10 \\
    --seed 3 --out data/synthetic_ddad
"""

_base_ = ['../gaussianocc/gaussianocc-stage1_r50_8xb1-12e_ddad.py']

network_size = [64, 96]
data_root = 'data/synthetic_ddad/'
train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadSelfOcclusionMasks', valid='zero'),
    dict(type='ResizeImages', size=network_size, keep_originals=True),
    dict(type='JitterColors'),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadSelfOcclusionMasks', valid='zero'),  # what the LiDAR sees behind the own car does not count
    dict(type='LoadDepthPixels'),
    dict(type='ResizeImages', size=network_size, keep_originals=True),
    dict(type='PackOccInputs', extra_meta_keys=['depth_pixels']),
]
train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, data_prefix=dict(mask='mask'), pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, data_prefix=dict(mask='mask'), pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = [dict(_base_.val_evaluator[0], max_depth=80.0), _base_.val_evaluator[1]]
test_evaluator = val_evaluator

model = dict(
    depth_network=dict(
        backbone=dict(depth=18, base_channels=16, init_cfg=None),
        in_channels=(16, 32, 64, 128),
        channels=(64, 32, 32, 16),
        max_depth=80.0,
    ),
    pose_network=dict(backbone=dict(depth=18, base_channels=16, init_cfg=None), in_channels=128, hidden_channels=64),
    loss=dict(far=80.0, warmup_steps=200, automask=False, visible_only=True, smooth_weight=0.01),
)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[10], gamma=0.1)]
train_cfg = dict(max_epochs=12, val_interval=3)
default_hooks = dict(logger=dict(interval=10))
