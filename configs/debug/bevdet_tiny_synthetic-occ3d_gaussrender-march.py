"""A small BEVDet with GaussRender's targets, marched, on generated streets; trains on a CPU in minutes."""

_base_ = ['./bevdet_tiny_synthetic-occ3d.py', '../_base_/gaussrender_march.py']

supervision = _base_.supervision
supervision.views.sampler.reduction = 2
supervision.views.bev.size = 40
model = dict(aggregator=supervision)
