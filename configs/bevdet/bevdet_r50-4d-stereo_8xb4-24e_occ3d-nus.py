"""BEVDet with stereo on Occ3D-nuScenes, ResNet-50 at 256 x 704 (published: mIoU 36.1 in the table of BEVDet, 36.01 by its log).

Trained and evaluated on voxels that a camera sees. Departures: see _base_/models/bevdet.py (network),
_base_/datasets/occ3d-nus_lift.py (data) and _base_/schedules/adamw_24e_bevdet.py (recipe).
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/occ3d-nus_lift.py',
    '../_base_/models/bevdet.py',
    '../_base_/schedules/adamw_24e_bevdet.py',
]

model = dict(grid=_base_.grid)
train_dataloader = dict(batch_size=4)

# The image part starts from BEVDet's stereo detection network; README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/bevdet_r50_4d_stereo_image_network.pth'
