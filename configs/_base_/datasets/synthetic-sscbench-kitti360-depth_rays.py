"""Generated streets in the format of SSCBench-KITTI-360 with depth maps, voxel projections and LiDAR rays."""

_base_ = ['./synthetic-sscbench-kitti360-depth.py', './kitti360_lidar_rays.py']

lidar_rays = dict(_base_.lidar_rays, num_rays=4096)
train_pipeline = _base_.train_pipeline
train_pipeline.insert(2, lidar_rays)  # behind images and labels, before the scene is mirrored

train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **_base_.lidar_sources))
