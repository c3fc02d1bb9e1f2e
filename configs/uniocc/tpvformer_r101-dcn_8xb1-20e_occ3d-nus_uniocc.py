"""TPVFormer on Occ3D-nuScenes with UniOcc's rays beside its voxel labels; no mIoU is published.

The network is that of the baseline: opacity is the probability of not being free. Voxel losses within the camera mask, 25,600
rays at a tenth. Departures: those of the baseline and of _base_/ray_supervision.py.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/occ3d-nus_rays.py',
    '../_base_/models/tpvformer.py',
    '../_base_/ray_supervision.py',
    '../_base_/schedules/adamw_20e.py',
]

# all rays alike, those of classes that move from their own frame alone
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(num_rays=25600, balance='none', neighbour_weight=1.0)

aggregator = _base_.uniocc
aggregator.field = _base_.logits_field
model = dict(
    grid=_base_.grid,
    occ_head=dict(loss_occ=dict(class_weights=_base_.class_weights, mask='camera')),
    aggregator=aggregator,
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# Backbone and neck start from FCOS3D; configs/tpvformer/README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/r101_dcn_fcos3d_pretrain.pth'
