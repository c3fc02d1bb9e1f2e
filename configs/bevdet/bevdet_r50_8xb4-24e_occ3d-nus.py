"""BEVDet from a single frame on Occ3D-nuScenes, ResNet-50 at 256 x 704 (published by FlashOCC: mIoU 31.60).

No depth supervision, no stereo, no earlier frame. Trained and evaluated on voxels that a camera sees. Departures: those of the
network with stereo.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/occ3d-nus_lift.py',
    '../_base_/models/bevdet_single.py',
    '../_base_/schedules/adamw_24e_bevdet.py',
]

frames = (0,)
train_pipeline = [step for step in _base_.train_pipeline if step['type'] != 'LoadDepthFromLidar']

model = dict(grid=_base_.grid)
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline, frames=frames))
val_dataloader = dict(dataset=dict(frames=frames))
test_dataloader = val_dataloader

# The image part starts from a BEVDet detection network; README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/bevdet_r50_image_network.pth'
