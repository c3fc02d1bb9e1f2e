"""A small SurroundOcc on generated streets in the format of SSCBench-KITTI-360; trains on a CPU in minutes."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic-sscbench-kitti360.py',
    '../_base_/models/surroundocc_tiny.py',
    '../_base_/schedules/adamw_10e_tiny.py',
]

model = dict(
    grid=_base_.grid,
    view_encoder=dict(num_cams=1),
    occ_head=dict(loss_occ=dict(class_weights=_base_.class_weights)),
)

train_dataloader = dict(batch_size=2)
default_hooks = dict(logger=dict(interval=10))
