"""A small TPVFormer on generated streets, with LiDAR rays beside its voxel labels; trains on a CPU in minutes."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic-occ3d_rays.py',
    '../_base_/models/tpvformer_tiny.py',
    '../_base_/ray_supervision.py',
    '../_base_/schedules/adamw_12e_tiny.py',
]

train_pipeline = _base_.train_pipeline
aggregator = _base_.renderocc
aggregator.field = _base_.logits_field
aggregator.weight = 0.1
model = dict(grid=_base_.grid, occ_head=dict(loss_occ=dict(class_weights=_base_.class_weights)), aggregator=aggregator)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
default_hooks = dict(logger=dict(interval=10))
