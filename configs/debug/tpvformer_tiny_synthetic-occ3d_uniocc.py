"""A small TPVFormer on generated streets with LiDAR rays beside its voxel labels; trains on a CPU in minutes."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic-occ3d_rays.py',
    '../_base_/models/tpvformer_tiny.py',
    '../_base_/ray_supervision.py',
    '../_base_/schedules/adamw_12e_tiny.py',
]

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(balance='none', neighbour_weight=1.0)
aggregator = _base_.uniocc
aggregator.field = _base_.logits_field
model = dict(
    grid=_base_.grid,
    occ_head=dict(loss_occ=dict(class_weights=_base_.class_weights, mask='camera')),
    aggregator=aggregator,
)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
default_hooks = dict(logger=dict(interval=10))
