"""The same network with GaussRender: nothing but the block."""

_base_ = ['./voxel-network_synthetic-occ3d.py', '../../../configs/_base_/gaussrender.py']

aggregator = _base_.aggregator
aggregator.gaussians.feat_channels = 48  # channels of the head's voxel features; None: opacity from the logits
aggregator.bev.size = 80  # pixels; two a voxel
model = dict(aggregator=aggregator)
