"""BEVDet with stereo on Occ3D-nuScenes, Swin-B at 512 x 1408 (published: mIoU 42.02).

Trained and evaluated on voxels that a camera sees. RenderOcc's baseline of the same network trains on all voxels
(model.occ_head.loss_occ.mask=none), with a batch of 32 and a rate of 1e-4. Departures: those of the network with ResNet-50.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/occ3d-nus_lift.py',
    '../_base_/models/bevdet_swinb.py',
    '../_base_/schedules/adamw_24e_bevdet.py',
]

image_wh = [1408, 512]
train_pipeline = _base_.train_pipeline
train_pipeline[3].update(final_wh=image_wh, resize_lim=(0.82, 0.99))  # 1408 / 1600 and from 0.06 less to 0.11 more
test_pipeline = _base_.test_pipeline
test_pipeline[3].update(final_wh=image_wh)

model = dict(grid=_base_.grid)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(lr=2e-4))
auto_scale_lr = dict(base_batch_size=64)
sync_bn = 'torch'

# The image part starts from BEVDet's stereo detection network; README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/bevdet_swinb_4d_stereo_image_network.pth'
