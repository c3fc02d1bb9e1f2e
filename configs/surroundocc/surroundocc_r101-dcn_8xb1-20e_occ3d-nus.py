"""SurroundOcc on Occ3D-nuScenes, the baseline of GaussRender's table (mIoU 29.21, RayIoU 35.5 there).

Paper: the grid is in the ego frame, 18 classes with "free"; no visibility mask in training, the camera mask in evaluation.
Departures: see _base_/models/surroundocc.py (network) and _base_/schedules/adamw_20e.py (gradient clipping, warm-up). The
SurroundOcc authors publish nothing on this benchmark; many other projects train on it with the camera mask
(model.occ_head.loss_occ.mask=camera), which gives numbers that do not compare with these.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/occ3d-nus.py',
    '../_base_/models/surroundocc.py',
    '../_base_/schedules/adamw_20e.py',
]

model = dict(grid=_base_.grid, occ_head=dict(loss_occ=dict(class_weights=_base_.class_weights)))

# The backbone starts from FCOS3D; README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/r101_dcn_fcos3d_backbone.pth'
