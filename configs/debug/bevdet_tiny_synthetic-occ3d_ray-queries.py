"""A small BEVDet on generated streets, from points along LiDAR rays, nothing rendered; trains on a CPU in minutes."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic-occ3d_lift_rays.py',
    '../_base_/models/bevdet_tiny.py',
    '../_base_/ray_queries.py',
    '../_base_/schedules/adamw_10e_tiny.py',
]

train_pipeline = [step for step in _base_.train_pipeline if step['type'] != 'LoadOccLabels']
aggregator = _base_.ray_queries
aggregator.field = _base_.logits_field
model = dict(grid=_base_.grid, occ_head=dict(loss_occ=None), aggregator=aggregator)
optim_wrapper = dict(clip_grad=dict(max_norm=5))
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
default_hooks = dict(logger=dict(interval=10))
