"""A small BEVDet with GaussRender on generated streets in the format of Occ3D; trains on a CPU in minutes."""

_base_ = ['./bevdet_tiny_synthetic-occ3d.py', '../_base_/gaussrender.py']

aggregator = _base_.aggregator_occ3d
aggregator.gaussians.feat_channels = 16
aggregator.gaussians.gaussian_scale = 0.5  # a little over half a voxel, as 0.27 m is for the 0.4 m of Occ3D
aggregator.bev.size = 80  # two pixels a voxel
model = dict(aggregator=aggregator)
