"""A small TPVFormer with GaussRender on generated streets in the format of SurroundOcc; trains on a CPU in minutes."""

_base_ = ['./tpvformer_tiny_synthetic-surroundocc.py', '../_base_/gaussrender.py']

aggregator = _base_.aggregator_surroundocc
aggregator.gaussians.feat_channels = 64
aggregator.gaussians.gaussian_scale = 0.4  # half a voxel, as 0.25 m is for the 0.5 m of SurroundOcc
aggregator.bev.size = 80  # two pixels a voxel
model = dict(aggregator=aggregator)
