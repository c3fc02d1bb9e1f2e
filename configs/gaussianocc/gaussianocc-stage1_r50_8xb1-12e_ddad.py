"""GaussianOcc, stage 1, on DDAD: depth and motion from images. The paper's depth network (New-CRFs) reaches abs_rel 0.212.

Images of 224 x 352. To refine as the paper does, continue for two epochs with ``model.pose_network.frozen=True`` and
``model.loss.cross_view_weight=0``.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/ddad.py',
    '../_base_/models/gaussianocc_stage1.py',
]

network_size = [224, 352]
train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadSelfOcclusionMasks', valid=_base_.mask_valid),
    dict(type='ResizeImages', size=network_size, keep_originals=True),
    dict(type='JitterColors'),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadDepthPixels'),
    dict(type='ResizeImages', size=network_size, keep_originals=True),
    dict(type='PackOccInputs', extra_meta_keys=['depth_pixels']),
]
train_dataloader = dict(dataset=dict(data_prefix=dict(pseudo=None), pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, frames=[0, -1, 1]))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='DepthMetric', max_depth=200.0, prefix='depth'),
    dict(type='PoseMetric', frames=[-1, 1], prefix='pose'),
]
test_evaluator = val_evaluator

model = dict(masks=True, depth_network=dict(max_depth=200.0), loss=dict(far=200.0))

optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.01), accumulative_counts=1)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[9], gamma=0.1)]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(checkpoint=dict(save_best='depth/abs_rel', rule='less'))
