"""TPVFormer on Occ3D-nuScenes, the baseline of GaussRender's table (mIoU 27.83, RayIoU 37.2 there).

Paper: the grid is in the ego frame, 18 classes with "free"; no visibility mask in training, the camera mask in evaluation.
Departures: see _base_/models/tpvformer.py (network) and _base_/schedules/adamw_20e.py (gradient clipping, warm-up). GaussRender
does not say which baseline its table shows: its own log of this setting ends at mIoU 30.07, so compare like with like.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/occ3d-nus.py',
    '../_base_/models/tpvformer.py',
    '../_base_/schedules/adamw_20e.py',
]

model = dict(grid=_base_.grid, occ_head=dict(loss_occ=dict(class_weights=_base_.class_weights)))

# Backbone and neck start from FCOS3D; README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/r101_dcn_fcos3d_pretrain.pth'
