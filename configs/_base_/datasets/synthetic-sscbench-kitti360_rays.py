"""Generated streets in the format of SSCBench-KITTI-360, with LiDAR rays."""

_base_ = ['./synthetic-sscbench-kitti360.py']

# Offsets of the key frames whose LiDAR sweeps give rays; no image of them is loaded. Their poses: docs/datasets.md.
lidar_frames = (0, -2, -1, 1, 2)
# There are no classes of single points: a point has that of the voxel in its frame's label that it lies in.
lidar_rays = dict(type='LoadLidarRays', num_rays=4096, balance='sample', point_classes='voxels', point_dims=4)

train_pipeline = _base_.train_pipeline
train_pipeline.insert(2, lidar_rays)  # behind images and labels, before the scene is mirrored

train_dataloader = dict(
    dataset=dict(
        pipeline=train_pipeline,
        lidar_frames=lidar_frames,
        data_prefix=dict(pts='data_3d_raw'),
        poses='poses',
    )
)
