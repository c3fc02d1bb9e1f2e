"""AdamW for 30 epochs as Symphonies is trained: learning rate 2e-4 for 4 GPUs x 1 sample, a tenth of it from epoch 25 on.

Released settings: eps 1e-3, weight decay 1e-4 on everything, a tenth of the rate for backbone and pixel decoder, no warm-up, no
gradient clipping, float32, synchronised batch normalisation. ``--auto-scale-lr`` adapts the rate to another total batch size.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4, eps=1e-3),
    paramwise_cfg=dict(custom_keys=dict(img_backbone=dict(lr_mult=0.1), img_neck=dict(lr_mult=0.1))),
    clip_grad=None,
    accumulative_counts=1,  # iterations that share an optimiser step
)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, end=30, milestones=[25], gamma=0.1)]

train_cfg = dict(type='ResumableTrainLoop', max_epochs=30, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

sync_bn = 'torch'
auto_scale_lr = dict(enable=False, base_batch_size=4)
