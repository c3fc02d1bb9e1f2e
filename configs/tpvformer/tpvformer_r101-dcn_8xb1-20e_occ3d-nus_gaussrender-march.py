"""TPVFormer on Occ3D-nuScenes with GaussRender's targets and losses, marched instead of splatted; no mIoU is published.

Departures: those of the baseline and of _base_/gaussrender_march.py; opacity comes from the probability of free space.
"""

_base_ = ['./tpvformer_r101-dcn_8xb1-20e_occ3d-nus.py', '../_base_/gaussrender_march.py']

model = dict(aggregator=_base_.supervision)
