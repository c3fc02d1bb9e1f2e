"""AdamW for 20 epochs, learning rate 2e-4 for 8 GPUs x 1 sample.

How it relates to the released training loop of GaussRender:
  * same optimiser, rates (image backbone x0.1), weight decay 1e-4, 20 epochs, 500 steps of linear warm-up from a third of the
    rate, cosine by step down to 2e-7, validation after every epoch, float32;
  * gradients are clipped at norm 35, as by the TPVFormer authors and in older GaussRender logs; the released loop does not;
  * the warm-up scales every parameter group. The released loop starts all groups at 2e-4 / 3, so the rate of its backbone
    (2e-5) goes *down* during warm-up;
  * the cosine ends at a thousandth of each group's rate (2e-8 for the backbone, there 2e-7), and the warm-up factor multiplies
    the cosine, so there is no jump at step 500.
The number of GPUs of the published runs is not known. ``--auto-scale-lr`` adapts the rate to another total batch size.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys=dict(img_backbone=dict(lr_mult=0.1))),
    clip_grad=dict(max_norm=35, norm_type=2),
    accumulative_counts=1,  # iterations that share an optimiser step
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1.0 / 3, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-3, by_epoch=True, begin=0, end=20, T_max=20, convert_to_iter_based=True),
]

train_cfg = dict(type='ResumableTrainLoop', max_epochs=20, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

auto_scale_lr = dict(enable=False, base_batch_size=8)
