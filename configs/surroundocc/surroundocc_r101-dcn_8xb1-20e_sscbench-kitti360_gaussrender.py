"""SurroundOcc with GaussRender on SSCBench-KITTI-360 (published: IoU 38.62, mIoU 13.34).

The one real camera, rendered from where it is; Gaussians of 0.1 m; opacity learned from the voxel features. Only the output at
full resolution is rendered. Departures: those of the baseline; the block itself is the published setting (see
_base_/gaussrender.py).
"""

_base_ = ['./surroundocc_r101-dcn_8xb1-20e_sscbench-kitti360.py', '../_base_/gaussrender.py']

aggregator = _base_.aggregator
aggregator.gaussians.feat_channels = 32  # the last of model.occ_head.channels
model = dict(aggregator=aggregator)
