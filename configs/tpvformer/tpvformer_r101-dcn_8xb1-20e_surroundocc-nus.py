"""TPVFormer on SurroundOcc-nuScenes, the baseline of GaussRender's table (IoU 30.86, mIoU 17.10 there).

Paper: the grid is in the LiDAR frame, 17 classes with "empty"; voxels without a class (255) count nowhere.
Departures: see _base_/models/tpvformer.py (network) and _base_/schedules/adamw_20e.py (gradient clipping, warm-up).
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/surroundocc-nus.py',
    '../_base_/models/tpvformer.py',
    '../_base_/schedules/adamw_20e.py',
]

model = dict(grid=_base_.grid, occ_head=dict(loss_occ=dict(class_weights=_base_.class_weights)))

# Backbone and neck start from FCOS3D; README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/r101_dcn_fcos3d_pretrain.pth'
