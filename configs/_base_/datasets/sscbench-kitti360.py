"""SSCBench-KITTI-360.

Labels: Velodyne frame, class 0 is empty, 255 is ignored (not observed, or of no class).
Images are used as they are; normalisation happens in the model's data preprocessor. There is no annotation file: each split is
a list of sequences. Checkpoints are chosen on val (sequence 0006), published numbers are those of test (sequence 0009).
Files and frames: docs/datasets.md. To point to another place, override ``data_root`` and ``data_prefix`` of the three datasets.
"""

# Handed to data sets, model and metrics. A child config that changes it has to hand it on again (grid=grid) to each of them.
grid = dict(
    point_cloud_range=[0.0, -25.6, -2.0, 51.2, 25.6, 4.4],
    voxel_size=0.2,
    shape=[256, 256, 32],
    frame='lidar',
    ahead='x',
    free_index=0,
    ignore_index=255,
    class_names=[
        'empty',
        'car',
        'bicycle',
        'motorcycle',
        'truck',
        'other-vehicle',
        'person',
        'road',
        'parking',
        'sidewalk',
        'other-ground',
        'building',
        'fence',
        'vegetation',
        'terrain',
        'pole',
        'traffic-sign',
        'other-structure',
        'other-object',
    ],
)
# Weights of the voxel cross-entropy in the order of class_names: 1 / ln(n + 0.001), n voxels of the class in the benchmark.
class_weights = [
    0.04642431,
    0.05946658,
    0.08649435,
    0.08714451,
    0.07166007,
    0.06572679,
    0.08520143,
    0.05412835,
    0.06021847,
    0.05672550,
    0.06065572,
    0.05399686,
    0.06358309,
    0.05126766,
    0.05640704,
    0.07012189,
    0.07742982,
    0.05802562,
    0.06904457,
]

dataset_type = 'SSCBenchKITTI360Dataset'
data_root = 'data/sscbench-kitti/'
# img holds <sequence>/image_00/data_rect/, voxels <sequence>/voxels/, occ <sequence>/<frame>_1_1.npy
data_prefix = dict(img='data_2d_raw', voxels='data_2d_raw', occ='preprocess/labels')
backend_args = None
image_wh = [1408, 376]

train_pipeline = [
    dict(type='LoadMultiViewImages', backend_args=backend_args),
    dict(type='LoadSSCBenchLabels', backend_args=backend_args),
    dict(type='ResizeCropFlipImages', final_wh=image_wh, training=True),
    dict(type='MultiViewPhotoMetricDistortion'),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages', backend_args=backend_args),
    dict(type='LoadSSCBenchLabels', backend_args=backend_args),
    dict(type='ResizeCropFlipImages', final_wh=image_wh, training=False),
    dict(type='PackOccInputs'),
]

train_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        split='train',
        data_root=data_root,
        data_prefix=data_prefix,
        grid=grid,
        pipeline=train_pipeline,
        skip_corrupt=False,  # True: train on another frame in the place of a damaged one
        backend_args=backend_args,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        split='val',
        data_root=data_root,
        data_prefix=data_prefix,
        grid=grid,
        pipeline=test_pipeline,
        test_mode=True,
        backend_args=backend_args,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        split='test',
        data_root=data_root,
        data_prefix=data_prefix,
        grid=grid,
        pipeline=test_pipeline,
        test_mode=True,
        backend_args=backend_args,
    ),
)

val_evaluator = dict(type='OccupancyMetric', grid=grid, preset='sscbench-kitti360', prefix='occ')
test_evaluator = val_evaluator
