"""A small TPVFormer on generated streets in the format of SSCBench-KITTI-360; trains on a CPU in minutes."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic-sscbench-kitti360.py',
    '../_base_/models/tpvformer_tiny.py',
]

model = dict(
    grid=_base_.grid,
    view_encoder=dict(num_cams=1),
    occ_head=dict(loss_occ=dict(class_weights=_base_.class_weights)),
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=1e-2),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1.0 / 3, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-2, by_epoch=True, begin=0, end=12, T_max=12, convert_to_iter_based=True),
]
train_dataloader = dict(batch_size=2)
train_cfg = dict(type='ResumableTrainLoop', max_epochs=12, val_interval=12)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(logger=dict(interval=10))
