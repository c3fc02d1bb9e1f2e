"""Recordings of one's own: three cameras, 40 m x 40 m around the vehicle in voxels of 0.5 m, five classes.

python -c "from projects.example_dataset.write_annotations import write_annotations; write_annotations('data/recordings')"
"""

grid = dict(
    point_cloud_range=[-20.0, -20.0, -1.0, 20.0, 20.0, 4.0],
    voxel_size=0.5,
    shape=[80, 80, 10],
    frame='ego',
    ahead='x',
    free_index=4,
    ignore_index=255,
    class_names=['ground', 'vehicle', 'person', 'building', 'free'],
)
data_root = 'data/recordings/'
data_prefix = dict(img='', occ='labels')
# The images have different sizes; the network gets them all in this one.
image_wh = [160, 96]

train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadOccLabels', masks=[]),  # the files hold no visibility masks
    dict(type='ResizeCropFlipImages', final_wh=image_wh, training=True, relative=True),
    dict(type='MultiViewPhotoMetricDistortion'),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadOccLabels', masks=[]),
    dict(type='ResizeCropFlipImages', final_wh=image_wh, training=False),
    dict(type='PackOccInputs'),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='NuScenesOccDataset',  # reads annotation files; the benchmarks are subclasses of it
        ann_file='infos_train.pkl',
        data_root=data_root,
        data_prefix=data_prefix,
        cam_names=['front', 'left', 'right'],
        grid=grid,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='NuScenesOccDataset',
        ann_file='infos_val.pkl',
        data_root=data_root,
        data_prefix=data_prefix,
        cam_names=['front', 'left', 'right'],
        grid=grid,
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='OccupancyMetric', grid=grid, mask='none', absent='exclude', prefix='occ')
test_evaluator = val_evaluator
