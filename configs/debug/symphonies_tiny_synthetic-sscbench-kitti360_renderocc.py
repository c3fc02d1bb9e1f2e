"""A small Symphonies on generated streets in KITTI-360's format, from LiDAR rays alone; trains on a CPU in minutes."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic-sscbench-kitti360-depth_rays.py',
    '../_base_/models/symphonies_tiny.py',
    '../_base_/ray_supervision.py',
    '../_base_/schedules/adamw_10e_tiny.py',
]

train_pipeline = [step for step in _base_.train_pipeline if step['type'] != 'LoadSSCBenchLabels']
aggregator = _base_.renderocc
aggregator.field = _base_.logits_field
aggregator.views.inside = True
aggregator.renderer = dict(type='MarchRenderer', form='dvgo', sampling='uniform', transmittance_min=1e-3, distortion='width')
aggregator.terms.loss_ray_sem.options.class_counts = None
model = dict(grid=_base_.grid, occ_head=dict(loss_occ=None), aggregator=aggregator)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
default_hooks = dict(logger=dict(interval=10))
