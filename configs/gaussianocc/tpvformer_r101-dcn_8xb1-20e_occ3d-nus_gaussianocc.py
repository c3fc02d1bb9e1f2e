"""TPVFormer on Occ3D-nuScenes with the supervision of GaussianOcc in the place of voxel labels (not published).

A foreign host for neighbouring frames and class maps of images: the host's own grid, Gaussians of half a voxel, free space
behind the grid, poses of the data set. Neighbours are camera sweeps: ``create_data.py occ3d --camera-sweeps 1``.
"""

_base_ = ['../tpvformer/tpvformer_r101-dcn_8xb1-20e_occ3d-nus.py', '../_base_/gaussianocc_supervision.py']

image_wh = _base_.image_wh
train_pipeline = [
    dict(type='LoadMultiViewImages', keep_originals=True),
    dict(type='LoadPseudoLabels'),
    dict(type='ResizeCropFlipImages', final_wh=image_wh, training=True),
    dict(type='MultiViewPhotoMetricDistortion'),
    dict(type='PackOccInputs'),
]
train_dataloader = dict(
    dataset=dict(data_prefix=dict(pseudo='nuscenes_semantic'), frames=[0, -1, 1], neighbours='sweeps', pipeline=train_pipeline)
)
aggregator = _base_.supervision
aggregator.field = dict(type='FreeLogitField', scale=0.2, background='free')
model = dict(occ_head=dict(loss_occ=None), aggregator=aggregator)
