"""A small Symphonies on generated streets in the format of SSCBench-KITTI-360, with exact depth; trains on a CPU in minutes."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic-sscbench-kitti360-depth.py',
    '../_base_/models/symphonies_tiny.py',
]

model = dict(grid=_base_.grid, occ_head=dict(loss_occ=dict(class_weights=_base_.class_weights)))

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4),
    clip_grad=None,
)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, end=10, milestones=[8], gamma=0.1)]
train_dataloader = dict(batch_size=2)
train_cfg = dict(type='ResumableTrainLoop', max_epochs=10, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(logger=dict(interval=10))
