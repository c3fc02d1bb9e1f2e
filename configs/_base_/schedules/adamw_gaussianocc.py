"""GaussianOcc, stage 2: AdamW for 12 epochs, 1e-4 for the image encoder and 1e-3 behind it, a tenth after epoch 10.

As released: 8 GPUs x 1 sample, no weight decay, no warm-up, no clipping. The released loop computes the image encoder in half
precision; here everything is float32 unless ``--amp`` is given.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys=dict(img_backbone=dict(lr_mult=0.1), img_neck=dict(lr_mult=0.1))),
    accumulative_counts=1,
)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[10], gamma=0.1)]

train_cfg = dict(type='ResumableTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(enable=False, base_batch_size=8)
