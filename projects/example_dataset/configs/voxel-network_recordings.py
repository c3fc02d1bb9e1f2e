"""The network of docs/add_a_model.md on these recordings."""

_base_ = ['../../../configs/_base_/default_runtime.py', './recordings.py']

custom_imports = dict(imports=[*_base_.custom_imports.imports, 'projects.example_model.registered_parts'])
model = dict(
    type='OccSegmentor',
    grid=_base_.grid,
    data_preprocessor=dict(
        type='OccDataPreprocessor', mean=[103.530, 116.280, 123.675], std=[57.4, 57.1, 58.4], pad_size_divisor=16
    ),
    img_backbone=dict(
        type='mmdet.ResNet', depth=18, base_channels=32, num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(1,)
    ),
    view_encoder=dict(type='ProjectAndAverage'),
    occ_head=dict(type='VoxelNetworkHead', in_channels=64, channels=24, loss_occ=dict(type='OccupancyLoss')),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-3), clip_grad=dict(max_norm=35))
train_cfg = dict(type='ResumableTrainLoop', max_epochs=12, val_interval=12)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
