"""The recipe of RenderOcc: AdamW with a constant rate, 12 epochs, a batch of 16, averaged weights.

Departure: the average goes on where a training is resumed.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, weight_decay=1e-2),
    clip_grad=dict(max_norm=5, norm_type=2),
    accumulative_counts=1,  # iterations that share an optimiser step
)
param_scheduler = [dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=200)]
custom_hooks = [dict(type='EMAHook', ema_type='RampedEMA')]

train_cfg = dict(type='ResumableTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(enable=False, base_batch_size=16)
sync_bn = 'torch'
