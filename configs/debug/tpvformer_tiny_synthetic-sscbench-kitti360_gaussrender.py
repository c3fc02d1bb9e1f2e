"""A small TPVFormer with GaussRender on generated streets in the format of SSCBench-KITTI-360; trains on a CPU in minutes."""

_base_ = ['./tpvformer_tiny_synthetic-sscbench-kitti360.py', '../_base_/gaussrender.py']

aggregator = _base_.aggregator  # Gaussians of half a voxel, as in the published setting
aggregator.gaussians.feat_channels = 64
aggregator.bev.size = 128  # two pixels a voxel
model = dict(aggregator=aggregator)
