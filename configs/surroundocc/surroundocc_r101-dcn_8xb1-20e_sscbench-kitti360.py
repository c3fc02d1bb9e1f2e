"""SurroundOcc on SSCBench-KITTI-360, the baseline of GaussRender's table (IoU 38.51, mIoU 13.08 there).

Paper: one camera, the grid is in the Velodyne frame, 19 classes with "empty"; voxels without a class (255) count nowhere.
Departures: see _base_/models/surroundocc.py (network) and _base_/schedules/adamw_20e.py (gradient clipping, warm-up). The
original keeps camera embeddings for six cameras, of which the first is used; so does this config, to have equal weights. As
there, images of 376 rows are not padded.
Memory: the finest volume has 128 x 128 x 16 cells, the output 256 x 256 x 32 voxels; model.view_encoder.with_cp=True and
model.occ_head.with_cp=True trade time for memory.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/sscbench-kitti360.py',
    '../_base_/models/surroundocc.py',
    '../_base_/schedules/adamw_20e.py',
]

model = dict(
    grid=_base_.grid,
    data_preprocessor=dict(pad_size_divisor=1),
    view_encoder=dict(num_cams=1, num_cam_embeds=6),
    occ_head=dict(loss_occ=dict(class_weights=_base_.class_weights)),
)

# The backbone starts from FCOS3D; README.md says how to make this file. None: from scratch.
load_from = 'data/pretrained/r101_dcn_fcos3d_backbone.pth'
