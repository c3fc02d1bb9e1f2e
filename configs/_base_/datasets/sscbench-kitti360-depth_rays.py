"""SSCBench-KITTI-360 with depth maps, voxel projections and LiDAR rays; needs the sweeps and the poses of KITTI-360."""

_base_ = ['./sscbench-kitti360-depth.py']

# Offsets of the key frames whose LiDAR sweeps give rays; no image of them is loaded. Their poses: docs/datasets.md.
lidar_frames = (0, -2, -1, 1, 2)
# There are no classes of single points: a point has that of the voxel in its frame's label that it lies in.
lidar_rays = dict(type='LoadLidarRays', num_rays=25600, balance='sample', point_classes='voxels', point_dims=4)

train_pipeline = _base_.train_pipeline
train_pipeline.insert(2, lidar_rays)  # behind images and labels, before the scene is mirrored

train_dataloader = dict(
    dataset=dict(
        pipeline=train_pipeline,
        lidar_frames=lidar_frames,
        data_prefix=dict(pts='data_3d_raw'),
        poses='poses',
        frame_map='kitti_360_match.txt',
    )
)
