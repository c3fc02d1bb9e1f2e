"""SSCBench-KITTI-360 with depth maps and voxel projections, for networks that lift images by depth (Symphonies).

Depth maps are made once from the stereo images and lie in data/sscbench-kitti/depth/<sequence>/<frame>.npy; docs/datasets.md,
"Depth maps", says how, and what to do without. Augmentation is a mirrored scene, with cameras that stay as they are: the
published recipe, which RandomFlipScene explains. Pixels are not distorted.
"""

_base_ = ['./sscbench-kitti360.py']

train_pipeline = [
    dict(type='LoadMultiViewImages', backend_args=_base_.backend_args),
    dict(type='LoadSSCBenchLabels', backend_args=_base_.backend_args),
    dict(type='LoadDepthMaps', backend_args=_base_.backend_args),
    dict(type='ResizeCropFlipImages', final_wh=_base_.image_wh, training=True),
    dict(type='LoadVoxelProjections', voxel_scale=2, frustums=8, cache_dir=None),
    dict(type='RandomFlipScene', prob=0.5, flip_cameras=False),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages', backend_args=_base_.backend_args),
    dict(type='LoadSSCBenchLabels', backend_args=_base_.backend_args),
    dict(type='LoadDepthMaps', backend_args=_base_.backend_args),
    dict(type='ResizeCropFlipImages', final_wh=_base_.image_wh, training=False),
    dict(type='LoadVoxelProjections', voxel_scale=2, frustums=None, cache_dir=None),
    dict(type='PackOccInputs'),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
