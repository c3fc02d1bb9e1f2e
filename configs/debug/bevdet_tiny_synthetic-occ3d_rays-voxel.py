"""A small BEVDet on generated streets, with LiDAR rays beside its voxel labels; trains on a CPU in minutes."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic-occ3d_lift_rays.py',
    '../_base_/models/bevdet_tiny.py',
    '../_base_/ray_supervision.py',
    '../_base_/schedules/adamw_10e_tiny.py',
]

train_pipeline = _base_.train_pipeline
aggregator = _base_.renderocc
aggregator.field = _base_.logits_field
aggregator.weight = 0.1
model = dict(grid=_base_.grid, aggregator=aggregator)
optim_wrapper = dict(clip_grad=dict(max_norm=5))
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
default_hooks = dict(logger=dict(interval=10))
