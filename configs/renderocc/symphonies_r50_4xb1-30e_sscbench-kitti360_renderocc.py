"""Symphonies on SSCBench-KITTI-360 from LiDAR rays in the place of voxel labels; no IoU or mIoU is published.

The camera stands at the edge of the grid, so rays are sampled evenly from where they enter it, and only those that end inside
count. Classes of points are those of the voxels that they lie in. Departures: those of the baseline and of
_base_/ray_supervision.py.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/sscbench-kitti360-depth_rays.py',
    '../_base_/models/symphonies.py',
    '../_base_/ray_supervision.py',
    '../_base_/schedules/adamw_30e_symphonies.py',
]

# without voxel labels; the evaluation has them
train_pipeline = [step for step in _base_.train_pipeline if step['type'] != 'LoadSSCBenchLabels']

aggregator = _base_.renderocc
aggregator.field = _base_.logits_field
aggregator.terms.loss_tv.options.of = 'opacity'
aggregator.views.inside = True
aggregator.renderer = dict(
    type='MarchRenderer',
    form='dvgo',
    sampling='uniform',
    step=0.5,
    alpha_min=1e-7,
    transmittance_min=1e-3,
    weight_min=1e-7,
    distortion='width',
)
aggregator.terms.loss_ray_sem.options.class_counts = None
model = dict(grid=_base_.grid, occ_head=dict(loss_occ=None), aggregator=aggregator)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# Backbone and pixel decoder start from MaskDINO; configs/symphonies/README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/maskdino_r50_pixel_decoder.pth'
