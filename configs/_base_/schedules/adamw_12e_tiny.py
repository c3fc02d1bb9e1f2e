"""Small TPVFormers on generated streets: twelve epochs at a higher learning rate."""

_base_ = ['./adamw_10e_tiny.py']

optim_wrapper = dict(optimizer=dict(lr=3e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1.0 / 3, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-2, by_epoch=True, begin=0, end=12, T_max=12, convert_to_iter_based=True),
]
train_cfg = dict(max_epochs=12, val_interval=12)
