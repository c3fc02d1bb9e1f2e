"""SurroundOcc with GaussRender on SurroundOcc-nuScenes (published: IoU 32.61, mIoU 20.82).

One real camera per step, raised by 2 m (`TrajectoryCameras` on a symmetric grid); Gaussians of 0.25 m; opacity learned from the
voxel features. Only the output at full resolution is rendered. Departures: those of the baseline; the block itself is the
published setting (see _base_/gaussrender.py).
"""

_base_ = ['./surroundocc_r101-dcn_8xb1-20e_surroundocc-nus.py', '../_base_/gaussrender.py']

aggregator = _base_.aggregator_surroundocc
aggregator.gaussians.feat_channels = 32  # the last of model.occ_head.channels
model = dict(aggregator=aggregator)
