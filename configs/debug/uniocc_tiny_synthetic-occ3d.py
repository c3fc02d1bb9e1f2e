"""UniOcc with a small BEVDet on generated streets: voxel labels and LiDAR rays at a tenth; trains on a CPU in minutes."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic-occ3d_lift_rays.py',
    '../_base_/models/bevdet_tiny.py',
    '../_base_/ray_supervision.py',
    '../_base_/schedules/adamw_10e_tiny.py',
]

train_pipeline = _base_.train_pipeline
train_pipeline[2].update(balance='none', neighbour_weight=1.0)
model = dict(grid=_base_.grid, occ_head=dict(type='DensityOccHead', joint=True), aggregator=_base_.uniocc)
optim_wrapper = dict(clip_grad=dict(max_norm=5))
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
default_hooks = dict(logger=dict(interval=10))
