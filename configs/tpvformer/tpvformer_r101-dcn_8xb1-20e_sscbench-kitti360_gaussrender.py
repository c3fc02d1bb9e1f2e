"""TPVFormer with GaussRender on SSCBench-KITTI-360 (no IoU or mIoU was published).

The one real camera, rendered from where it is; Gaussians of 0.1 m; opacity learned from the voxel features.
Departures: those of the baseline; the block itself is the published setting (see _base_/gaussrender.py).
"""

_base_ = ['./tpvformer_r101-dcn_8xb1-20e_sscbench-kitti360.py', '../_base_/gaussrender.py']

aggregator = _base_.aggregator
aggregator.gaussians.feat_channels = 256  # model.occ_head.out_dims
model = dict(aggregator=aggregator)
