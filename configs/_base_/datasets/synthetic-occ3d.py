"""Generated streets in the format of Occ3D-nuScenes, small enough for a CPU: 32 m x 32 m around the car in voxels of 0.8 m.

python tools/create_data.py synthetic --format both --preset tiny --image-size 200x112 --out data/synthetic
"""

_base_ = ['./occ3d-nus.py']

grid = dict(
    _base_.grid,
    point_cloud_range=[-16.0, -16.0, -1.0, 16.0, 16.0, 3.8],
    voxel_size=0.8,
    shape=[40, 40, 6],
)
data_root = 'data/synthetic/'
image_wh = [200, 112]

train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].final_wh = test_pipeline[2].final_wh = image_wh  # of ResizeCropFlipImages

train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(ann_file='occ_infos_train.pkl', data_root=data_root, grid=grid, pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(ann_file='occ_infos_val.pkl', data_root=data_root, grid=grid, pipeline=test_pipeline),
)
test_dataloader = val_dataloader

val_evaluator = dict(grid=grid)
test_evaluator = val_evaluator
