"""RenderOcc on Occ3D-nuScenes from LiDAR rays and voxel labels, Swin-B at 512 x 1408 (published: mIoU 26.11).

The paper trains the voxel losses on all voxels, without the camera mask; no config of it was released. Departures: those of the
config without voxel labels.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/occ3d-nus_lift_rays.py',
    '../_base_/models/bevdet_swinb.py',
    '../_base_/ray_supervision.py',
    '../_base_/schedules/adamw_12e_renderocc.py',
]

image_wh = [1408, 512]
train_pipeline = _base_.train_pipeline
train_pipeline[4].update(final_wh=image_wh, resize_lim=(0.82, 0.99))  # 1408 / 1600 and from 0.06 less to 0.11 more
test_pipeline = _base_.test_pipeline
test_pipeline[3].update(final_wh=image_wh)

# 1 / ln(voxels of a class), of the occupied ones
class_weights = [0.0716, 0.0682, 0.0823, 0.0671, 0.0594, 0.0732, 0.0806, 0.0680, 0.0762]
class_weights += [0.0675, 0.0633, 0.0521, 0.0644, 0.0557, 0.0551, 0.0535, 0.0533]

aggregator = _base_.renderocc
model = dict(
    grid=_base_.grid,
    occ_head=dict(
        type='DensityOccHead',
        final_softplus=True,
        threshold=8.5,
        loss_occ=dict(
            _delete_=True, type='DensityOccLoss', geo_weight=1.0, sem_weight=1.0, mask='none', class_weights=class_weights
        ),
    ),
    aggregator=aggregator,
)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# The image part starts from BEVDet's stereo detection network; configs/bevdet/README.md says how. None: from scratch.
load_from = 'data/pretrained/bevdet_swinb_4d_stereo_image_network.pth'
