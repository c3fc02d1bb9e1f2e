"""LiDAR rays of KITTI-360, for the base configs that put them into their pipeline (``*sscbench-kitti360*_rays.py``)."""

# There are no classes of single points: a point has that of the voxel in its frame's label that it lies in.
lidar_rays = dict(type='LoadLidarRays', num_rays=25600, balance='sample', point_classes='voxels', point_dims=4)
# Offsets of the key frames whose LiDAR sweeps give rays; no image of them is loaded. Their poses: docs/datasets.md.
lidar_sources = dict(lidar_frames=(0, -2, -1, 1, 2), data_prefix=dict(pts='data_3d_raw'), poses='poses')
