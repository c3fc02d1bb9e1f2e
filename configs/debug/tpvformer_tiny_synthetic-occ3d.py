"""A small TPVFormer on generated streets, the baseline of the demo: ResNet-18, two layers, planes of 20 x 20 x 3 cells."""

_base_ = ['../_base_/default_runtime.py', '../_base_/datasets/synthetic-occ3d.py', '../_base_/models/tpvformer.py']

grid = _base_.grid
model = dict(
    grid=grid,
    data_preprocessor=dict(std=[57.4, 57.1, 58.4], pad_size_divisor=16),
    img_backbone=dict(
        _delete_=True,
        type='mmdet.ResNet',
        depth=18,
        base_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
        norm_cfg=dict(type='BN'),
        norm_eval=False,
    ),
    img_neck=dict(in_channels=[32, 64, 128], out_channels=64, num_outs=3),
    view_encoder=dict(
        embed_dims=64,
        num_levels=3,
        num_layers=2,
        num_anchors=(4, 8, 8),
        self_attn=dict(num_heads=4, dropout=0.0),
        cross_attn=dict(num_heads=4, num_points=(8, 16, 16), dropout=0.0),
        ffn=dict(feedforward_channels=128, ffn_drop=0.0),
    ),
    occ_head=dict(in_dims=64, hidden_dims=128, out_dims=64, with_cp=False, loss_occ=dict(class_weights=_base_.class_weights)),
)

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, weight_decay=1e-2),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1.0 / 3, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-2, by_epoch=True, begin=0, end=12, T_max=12, convert_to_iter_based=True),
]
train_dataloader = dict(batch_size=2)
train_cfg = dict(type='ResumableTrainLoop', max_epochs=12, val_interval=12)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(logger=dict(interval=10))
