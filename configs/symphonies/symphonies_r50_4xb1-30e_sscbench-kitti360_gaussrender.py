"""Symphonies with GaussRender on SSCBench-KITTI-360 (published: IoU 44.08, mIoU 18.11).

The one real camera, rendered from where it is; Gaussians of 0.1 m. Only the last output is rendered. Departures: those of the
baseline. GaussRender released no code for this network: that its opacity is learned from the 128-channel features in front of
the classifier is inferred from its other networks. model.aggregator.gaussians.feat_channels=None takes it from the logits.
Memory: the MLP of the opacity keeps up to 3.2 GB more; model.aggregator.gaussians.with_cp=True recomputes it.
"""

_base_ = ['./symphonies_r50_4xb1-30e_sscbench-kitti360.py', '../_base_/gaussrender.py']

aggregator = _base_.aggregator
aggregator.gaussians.feat_channels = 128  # model.occ_head.embed_dims
model = dict(aggregator=aggregator)
