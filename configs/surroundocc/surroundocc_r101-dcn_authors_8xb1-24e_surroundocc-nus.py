"""SurroundOcc on SurroundOcc-nuScenes with the SurroundOcc authors' own losses and recipe (published: IoU 31.49, mIoU 20.30).

Weights of the authors, converted by tools/convert_checkpoint.py, are evaluated with this config.
Paper: cross-entropy and the two affinity losses on four outputs weighted 1/8, 1/4, 1/2, 1; coarse labels from the occupied
voxels; 24 epochs; weight decay 0.01; cosine by epoch; GridMask; uncropped images padded to 928 x 1600, where the padding counts
as image.
Departures from the released code: the last occupied voxel of a coarse cell decides on every device (there, by chance on a GPU);
affinity terms without a denominator are left out (there, NaN); the rest as in _base_/models/surroundocc.py.
"""

_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/surroundocc-nus.py', '../_base_/models/surroundocc.py']

model = dict(
    grid=_base_.grid,
    data_preprocessor=dict(grid_mask=dict(type='OccGridMask', prob=0.7)),
    view_encoder=dict(see_padding=True),
    occ_head=dict(
        loss_occ=dict(ce_weight=1.0, lovasz_weight=0.0, sem_scal_weight=1.0, geo_scal_weight=1.0, label_reduction='sparse_last')
    ),
)

train_pipeline = [
    dict(type='LoadMultiViewImages', backend_args=_base_.backend_args),
    dict(type='LoadOccLabels', backend_args=_base_.backend_args),
    dict(type='MultiViewPhotoMetricDistortion'),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages', backend_args=_base_.backend_args),
    dict(type='LoadOccLabels', backend_args=_base_.backend_args),
    dict(type='PackOccInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=0.01),
    paramwise_cfg=dict(custom_keys=dict(img_backbone=dict(lr_mult=0.1))),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1.0 / 3, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, by_epoch=True, begin=0, end=24, T_max=24),
]
train_cfg = dict(type='ResumableTrainLoop', max_epochs=24, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
auto_scale_lr = dict(enable=False, base_batch_size=8)

# The backbone starts from FCOS3D; README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/r101_dcn_fcos3d_backbone.pth'
