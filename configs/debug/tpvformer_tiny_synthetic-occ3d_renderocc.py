"""A small TPVFormer with RenderOcc's head on generated streets, from LiDAR rays alone; trains on a CPU in minutes."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic-occ3d_rays.py',
    '../_base_/models/tpvformer_tiny.py',
    '../_base_/ray_supervision.py',
    '../_base_/schedules/adamw_12e_tiny.py',
]

train_pipeline = [step for step in _base_.train_pipeline if step['type'] != 'LoadOccLabels']
host = _base_.model.occ_head
model = dict(
    grid=_base_.grid,
    occ_head=dict(_delete_=True, type='DensityHead', host=host, channels=64),
    aggregator=_base_.renderocc,
)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
default_hooks = dict(logger=dict(interval=10))
