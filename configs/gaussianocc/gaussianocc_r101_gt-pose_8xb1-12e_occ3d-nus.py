"""GaussianOcc, stage 2, on nuScenes with the poses of the data set in the place of predicted ones."""

_base_ = ['./gaussianocc_r101_8xb1-12e_occ3d-nus.py']

model = dict(aggregator=dict(target=dict(poses=None)))
