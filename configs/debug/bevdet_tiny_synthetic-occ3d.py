"""A small BEVDet with stereo and an earlier frame on generated streets in the format of Occ3D; trains on a CPU in minutes."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic-occ3d_lift.py',
    '../_base_/models/bevdet_tiny.py',
    '../_base_/schedules/adamw_10e_tiny.py',
]

model = dict(grid=_base_.grid)

optim_wrapper = dict(clip_grad=dict(max_norm=5))
train_dataloader = dict(batch_size=2)
default_hooks = dict(logger=dict(interval=10))
