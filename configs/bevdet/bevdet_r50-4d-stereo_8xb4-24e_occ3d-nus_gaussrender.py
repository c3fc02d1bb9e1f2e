"""BEVDet with stereo and GaussRender on Occ3D-nuScenes; nothing is published, so there is no mIoU to compare with.

One real camera per step, rendered from where it is; Gaussians of 0.27 m; opacity learned from the voxel features, as in
GaussRender's setting for this benchmark (see _base_/gaussrender.py). Departures: those of the baseline.
"""

_base_ = ['./bevdet_r50-4d-stereo_8xb4-24e_occ3d-nus.py', '../_base_/gaussrender.py']

aggregator = _base_.aggregator_occ3d
aggregator.gaussians.feat_channels = 32  # model.occ_head.channels
model = dict(aggregator=aggregator)
