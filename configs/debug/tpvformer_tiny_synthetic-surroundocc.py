"""A small TPVFormer on generated streets in the format of SurroundOcc; trains on a CPU in minutes."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic-surroundocc.py',
    '../_base_/models/tpvformer_tiny.py',
    '../_base_/schedules/adamw_12e_tiny.py',
]

model = dict(grid=_base_.grid, occ_head=dict(loss_occ=dict(class_weights=_base_.class_weights)))

train_dataloader = dict(batch_size=2)
default_hooks = dict(logger=dict(interval=10))
