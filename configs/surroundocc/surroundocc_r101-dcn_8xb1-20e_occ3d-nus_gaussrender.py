"""SurroundOcc with GaussRender on Occ3D-nuScenes (published: mIoU 30.38, RayIoU 37.5).

One real camera per step, rendered from where it is; Gaussians of 0.27 m; opacity learned from the voxel features. Only the
output at full resolution is rendered. Departures: those of the baseline; the block itself is the published setting (see
_base_/gaussrender.py).
"""

_base_ = ['./surroundocc_r101-dcn_8xb1-20e_occ3d-nus.py', '../_base_/gaussrender.py']

aggregator = _base_.aggregator_occ3d
aggregator.gaussians.feat_channels = 32  # the last of model.occ_head.channels
model = dict(aggregator=aggregator)
