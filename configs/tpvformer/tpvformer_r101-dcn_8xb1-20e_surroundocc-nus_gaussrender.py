"""TPVFormer with GaussRender on SurroundOcc-nuScenes (published: IoU 32.05, mIoU 20.58).

One real camera per step, raised by 2 m (`TrajectoryCameras` on a symmetric grid); Gaussians of 0.25 m; opacity learned from the
voxel features. Departures: those of the baseline; the block itself is the published setting (see _base_/gaussrender.py).
"""

_base_ = ['./tpvformer_r101-dcn_8xb1-20e_surroundocc-nus.py', '../_base_/gaussrender.py']

aggregator = _base_.aggregator_surroundocc
aggregator.gaussians.feat_channels = 256  # model.occ_head.out_dims
model = dict(aggregator=aggregator)
