"""The recipe of BEVDet for occupancy: AdamW with a constant rate, 24 epochs, averaged weights.

Validated and saved is the moving average of the weights, as in the published tables. Departure: the average goes on where a
training is resumed. The number of GPUs is not known for ResNet-50 (8 are assumed), it was 32 for Swin-B. ``--auto-scale-lr``
adapts the rate to another total batch size.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-2),
    clip_grad=dict(max_norm=5, norm_type=2),
    accumulative_counts=1,  # iterations that share an optimiser step
)
param_scheduler = [dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=200)]
custom_hooks = [dict(type='EMAHook', ema_type='RampedEMA')]

train_cfg = dict(type='ResumableTrainLoop', max_epochs=24, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(enable=False, base_batch_size=32)
