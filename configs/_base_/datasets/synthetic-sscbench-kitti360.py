"""Generated streets in the format of SSCBench-KITTI-360, small enough for a CPU: 32 m ahead, 16 m to both sides, 0.5 m voxels.

python tools/create_data.py synthetic --format sscbench-kitti360 --preset tiny --out data/synthetic-kitti360
"""

_base_ = ['./sscbench-kitti360.py']

grid = dict(
    _base_.grid,
    point_cloud_range=[0.0, -16.0, -2.0, 32.0, 16.0, 2.0],
    voxel_size=0.5,
    shape=[64, 64, 8],
)
data_root = 'data/synthetic-kitti360/'
image_wh = [352, 96]
# The images are small, so the calibration is that of the files; all training scenes are in one drive.
calibration = 'calibration'

train_pipeline, test_pipeline = _base_.train_pipeline, _base_.test_pipeline
train_pipeline[2].final_wh = test_pipeline[2].final_wh = image_wh  # of ResizeCropFlipImages

train_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, grid=grid, calibration=calibration, sequences=[4], pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(data_root=data_root, grid=grid, calibration=calibration, pipeline=test_pipeline),
)
test_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(split='val', data_root=data_root, grid=grid, calibration=calibration, pipeline=test_pipeline),
)

val_evaluator = dict(grid=grid)
test_evaluator = val_evaluator
