"""UniOcc on Occ3D-nuScenes: voxel labels and LiDAR rays, ResNet-50 at 256 x 704 (published: mIoU 39.7, 36.1 without rays).

Density and classes make one distribution over all 18 classes, trained on voxels that a camera sees; rendered depth and classes
of 25,600 rays count a tenth. README.md has the report's further steps. Departures: those of configs/bevdet and of
_base_/ray_supervision.py; the balance of SILog is not given in the report, 0.85 is RenderOcc's.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/occ3d-nus_lift_rays.py',
    '../_base_/models/bevdet.py',
    '../_base_/ray_supervision.py',
    '../_base_/schedules/adamw_24e_bevdet.py',
]

# all rays alike, those of classes that move from their own frame alone
train_pipeline = _base_.train_pipeline
train_pipeline[2].update(num_rays=25600, balance='none', neighbour_weight=1.0)

aggregator = _base_.uniocc
model = dict(
    grid=_base_.grid,
    occ_head=dict(type='DensityOccHead', joint=True),  # loss_occ: cross-entropy within the camera mask
    aggregator=aggregator,
)
train_dataloader = dict(batch_size=4, dataset=dict(pipeline=train_pipeline))

# The image part starts from BEVDet's stereo detection network; configs/bevdet/README.md says how. None: from scratch.
load_from = 'data/pretrained/bevdet_r50_4d_stereo_image_network.pth'
