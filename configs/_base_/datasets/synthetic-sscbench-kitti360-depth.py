"""Generated streets in the format of SSCBench-KITTI-360 with exact depth maps and voxel projections, for networks using depth.

The data are those of synthetic-sscbench-kitti360.py. Scenes are mirrored together with their cameras.
"""

_base_ = ['./synthetic-sscbench-kitti360.py']

train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadSSCBenchLabels'),
    dict(type='LoadDepthMaps'),
    dict(type='ResizeCropFlipImages', final_wh=_base_.image_wh, training=True),
    dict(type='LoadVoxelProjections', voxel_scale=2, frustums=8, cache_dir=None),
    dict(type='RandomFlipScene', prob=0.5, flip_cameras=True),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadSSCBenchLabels'),
    dict(type='LoadDepthMaps'),
    dict(type='ResizeCropFlipImages', final_wh=_base_.image_wh, training=False),
    dict(type='LoadVoxelProjections', voxel_scale=2, frustums=None, cache_dir=None),
    dict(type='PackOccInputs'),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
