"""SurroundOcc-nuScenes.

Labels: LiDAR frame of the key frame, class 0 is empty, 255 is ignored; occluded voxels are labelled empty.
Images lose their four top rows (900 -> 896, a multiple of 32); normalisation happens in the model's data preprocessor.
Files and frames: docs/datasets.md. To point to another place, override ``data_root`` and ``data_prefix`` of the three datasets.
"""

# Handed to data sets, model and metrics. A child config that changes it has to hand it on again (grid=grid) to each of them.
grid = dict(
    point_cloud_range=[-50.0, -50.0, -5.0, 50.0, 50.0, 3.0],
    voxel_size=0.5,
    shape=[200, 200, 16],
    frame='lidar',
    ahead='y',
    free_index=0,
    ignore_index=255,
    class_names=[
        'empty',
        'barrier',
        'bicycle',
        'bus',
        'car',
        'construction_vehicle',
        'motorcycle',
        'pedestrian',
        'traffic_cone',
        'trailer',
        'truck',
        'driveable_surface',
        'other_flat',
        'sidewalk',
        'terrain',
        'manmade',
        'vegetation',
    ],
)
# Weights of the voxel cross-entropy in the order of class_names.
class_weights = [
    0.5,
    1.06897009,
    1.30013094,
    1.07253735,
    0.94637502,
    1.10087012,
    1.26960524,
    1.06258364,
    1.189019,
    1.06217292,
    1.00595144,
    0.85706115,
    1.03923299,
    0.90867526,
    0.8936431,
    0.85486129,
    0.8527829,
]

dataset_type = 'SurroundOccNuScenesDataset'
data_root = 'data/'
# img and pts hold samples/<sensor>/, occ holds <LiDAR file name>.npy
data_prefix = dict(img='nuscenes', pts='nuscenes', occ='surroundocc_nuscenes/samples')
backend_args = None
image_wh = [1600, 896]

train_pipeline = [
    dict(type='LoadMultiViewImages', backend_args=backend_args),
    dict(type='LoadOccLabels', backend_args=backend_args),
    dict(type='ResizeCropFlipImages', final_wh=image_wh, training=True),
    dict(type='MultiViewPhotoMetricDistortion'),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages', backend_args=backend_args),
    dict(type='LoadOccLabels', backend_args=backend_args),
    dict(type='ResizeCropFlipImages', final_wh=image_wh, training=False),
    dict(type='PackOccInputs'),
]

# tools/create_data.py surroundocc makes the annotation files; public files in any format of docs/datasets.md work too.
train_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        ann_file='surroundocc_nuscenes/occ_infos_train.pkl',
        data_root=data_root,
        data_prefix=data_prefix,
        grid=grid,
        pipeline=train_pipeline,
        subset='all',  # or 'mini': 20 %, as in the published ablations
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
        ann_file='surroundocc_nuscenes/occ_infos_val.pkl',
        data_root=data_root,
        data_prefix=data_prefix,
        grid=grid,
        pipeline=test_pipeline,
        subset='all',
        test_mode=True,
        backend_args=backend_args,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(type='OccupancyMetric', grid=grid, preset='surroundocc', prefix='occ')
test_evaluator = val_evaluator
