"""SSCBench-KITTI-360 with depth maps, voxel projections and LiDAR rays; needs the sweeps and the poses of KITTI-360."""

_base_ = ['./sscbench-kitti360-depth.py', './kitti360_lidar_rays.py']

train_pipeline = _base_.train_pipeline
train_pipeline.insert(2, _base_.lidar_rays)  # behind images and labels, before the scene is mirrored

train_dataloader = dict(dataset=dict(pipeline=train_pipeline, frame_map='kitti_360_match.txt', **_base_.lidar_sources))
