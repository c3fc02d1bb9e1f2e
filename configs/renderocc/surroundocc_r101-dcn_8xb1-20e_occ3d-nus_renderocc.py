"""SurroundOcc on Occ3D-nuScenes from LiDAR rays in the place of voxel labels; no mIoU is published.

Opacity is the probability of not being free: the network is that of the baseline. Departures: those of the baseline and of
_base_/ray_supervision.py; the coarse classifiers are not trained.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/occ3d-nus_rays.py',
    '../_base_/models/surroundocc.py',
    '../_base_/ray_supervision.py',
    '../_base_/schedules/adamw_20e.py',
]

# without voxel labels; the evaluation has them
train_pipeline = [step for step in _base_.train_pipeline if step['type'] != 'LoadOccLabels']

aggregator = _base_.renderocc
aggregator.field = _base_.logits_field
aggregator.terms.loss_tv.options.of = 'opacity'
model = dict(grid=_base_.grid, occ_head=dict(loss_occ=None), aggregator=aggregator)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# The backbone starts from FCOS3D; configs/surroundocc/README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/r101_dcn_fcos3d_backbone.pth'
