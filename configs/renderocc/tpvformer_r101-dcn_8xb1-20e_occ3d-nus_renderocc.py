"""TPVFormer on Occ3D-nuScenes with RenderOcc's head and rays in the place of voxel labels; no mIoU is published.

Density and classes come from the 256 voxel features of TPVFormer's decoder. Departures: those of the baseline and of
_base_/ray_supervision.py; calibrate the threshold of the density.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/occ3d-nus_rays.py',
    '../_base_/models/tpvformer.py',
    '../_base_/ray_supervision.py',
    '../_base_/schedules/adamw_20e.py',
]

# without voxel labels; the evaluation has them
train_pipeline = [step for step in _base_.train_pipeline if step['type'] != 'LoadOccLabels']

host = _base_.model.occ_head
aggregator = _base_.renderocc
model = dict(
    grid=_base_.grid,
    occ_head=dict(_delete_=True, type='DensityHead', host=host, channels=256, threshold=8.5),
    aggregator=aggregator,
)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# Backbone and neck start from FCOS3D; configs/tpvformer/README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/r101_dcn_fcos3d_pretrain.pth'
