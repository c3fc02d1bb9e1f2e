"""GaussianOcc, stage 1, on nuScenes: depth and motion from images. The paper's depth network (New-CRFs) reaches abs_rel 0.258.

Images of 224 x 352, 8 epochs; see the DDAD config for the refinement.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/occ3d-nus.py',
    '../_base_/models/gaussianocc_stage1.py',
]

network_size = [224, 352]
# around the vehicle: cameras next to each other are compared
cam_names = ['CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_BACK_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT', 'CAM_FRONT_RIGHT']
train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='ResizeImages', size=network_size, keep_originals=True),
    dict(type='JitterColors'),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadDepthPixels', rounding='nearest'),
    dict(type='ResizeImages', size=network_size, keep_originals=True),
    dict(type='PackOccInputs', extra_meta_keys=['depth_pixels']),
]
train_dataloader = dict(dataset=dict(cam_names=cam_names, frames=[0, -1, 1], neighbours='sweeps', pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(cam_names=cam_names, frames=[0, -1, 1], neighbours='sweeps', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='DepthMetric', max_depth=80.0, prefix='depth'),
    dict(type='PoseMetric', frames=[-1, 1], prefix='pose'),
]
test_evaluator = val_evaluator

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.01), accumulative_counts=1)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=8, milestones=[6], gamma=0.1)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=8, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(checkpoint=dict(save_best='depth/abs_rel', rule='less'))
