"""SurroundOcc on SurroundOcc-nuScenes with GaussRender's recipe (IoU 32.09, mIoU 20.53 in its log of this setting).

Paper: the grid is in the LiDAR frame, 17 classes with "empty"; voxels without a class (255) count nowhere. GaussRender's table
shows the SurroundOcc authors' numbers instead (IoU 31.49, mIoU 20.30), which come from another recipe: see
surroundocc_r101-dcn_authors_8xb1-24e_surroundocc-nus.py.
Departures: see _base_/models/surroundocc.py (network) and _base_/schedules/adamw_20e.py (gradient clipping, warm-up).
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/surroundocc-nus.py',
    '../_base_/models/surroundocc.py',
    '../_base_/schedules/adamw_20e.py',
]

model = dict(grid=_base_.grid, occ_head=dict(loss_occ=dict(class_weights=_base_.class_weights)))

# The backbone starts from FCOS3D; README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/r101_dcn_fcos3d_backbone.pth'
