"""Symphonies on SSCBench-KITTI-360 with UniOcc's rays beside its voxel labels; no IoU or mIoU is published.

The network is that of the baseline; rays as in configs/renderocc for this benchmark, at a tenth. There is no camera mask.
Departures: those of the baseline and of _base_/ray_supervision.py.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/sscbench-kitti360-depth_rays.py',
    '../_base_/models/symphonies.py',
    '../_base_/ray_supervision.py',
    '../_base_/schedules/adamw_30e_symphonies.py',
]

# all rays alike, those of classes that move from their own frame alone
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(num_rays=25600, balance='none', neighbour_weight=1.0)

aggregator = _base_.uniocc
aggregator.field = _base_.logits_field
aggregator.views.inside = True
aggregator.renderer = dict(
    type='MarchRenderer',
    form='dvgo',
    sampling='uniform',
    step=0.5,
    alpha_min=1e-7,
    transmittance_min=1e-3,
    weight_min=1e-7,
)
aggregator.terms.loss_ray_sem.options.class_counts = None
model = dict(grid=_base_.grid, occ_head=dict(loss_occ=dict(class_weights=_base_.class_weights)), aggregator=aggregator)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# Backbone and pixel decoder start from MaskDINO; configs/symphonies/README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/maskdino_r50_pixel_decoder.pth'
