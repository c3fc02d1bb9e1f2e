"""The recipe of RenderOcc: that of BEVDet for 12 epochs with a batch of 16, averaged weights, synchronised batch norms."""

_base_ = ['./adamw_24e_bevdet.py']

train_cfg = dict(max_epochs=12)

auto_scale_lr = dict(base_batch_size=16)
sync_bn = 'torch'
