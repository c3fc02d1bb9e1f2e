"""TPVFormer on SSCBench-KITTI-360. The released code has this configuration; no IoU or mIoU of it was published.

One camera, the grid is in the Velodyne frame, 19 classes with "empty"; voxels without a class (255) count nowhere.
Departures: see _base_/models/tpvformer.py (network) and _base_/schedules/adamw_20e.py (gradient clipping, warm-up). The
original keeps embeddings for six cameras and computes six times what one camera needs; here there is one. As there, images of
376 rows are not padded.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/sscbench-kitti360.py',
    '../_base_/models/tpvformer.py',
    '../_base_/schedules/adamw_20e.py',
]

model = dict(
    grid=_base_.grid,
    data_preprocessor=dict(pad_size_divisor=1),
    view_encoder=dict(num_cams=1),
    occ_head=dict(loss_occ=dict(class_weights=_base_.class_weights)),
)

# Backbone and neck start from FCOS3D; README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/r101_dcn_fcos3d_pretrain.pth'
