"""TPVFormer on Occ3D-nuScenes from LiDAR rays that are splatted, not marched; no mIoU is published.

The rays of the key frame are pixels of its cameras: images of a quarter of the width are splatted and read there. Opacity is
the probability of not being free, so the network is that of the baseline. Departures: those of the baseline; rays that end
outside the grid, where there are no Gaussians, are left out.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/occ3d-nus_rays.py',
    '../_base_/models/tpvformer.py',
    '../_base_/ray_supervision.py',
    '../_base_/schedules/adamw_20e.py',
]

# without voxel labels; the evaluation has them
train_pipeline = [step for step in _base_.train_pipeline if step['type'] != 'LoadOccLabels']

aggregator = _base_.renderocc
aggregator.field = _base_.logits_field
aggregator.views.inside = True
aggregator.renderer = dict(type='SplatRenderer', ray_reduction=4)
aggregator.terms.pop('loss_ray_distortion')  # of samples along rays
aggregator.terms.loss_tv.options.of = 'opacity'
model = dict(grid=_base_.grid, occ_head=dict(loss_occ=None), aggregator=aggregator)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, lidar_frames=[0]))

# Backbone and neck start from FCOS3D; configs/tpvformer/README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/r101_dcn_fcos3d_pretrain.pth'
