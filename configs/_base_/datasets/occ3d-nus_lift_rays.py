"""Occ3D-nuScenes for networks that lift images by depth, with LiDAR rays of seven key frames.

Their classes need nuScenes-lidarseg.
"""

_base_ = ['./occ3d-nus_lift.py']

# Offsets of the key frames whose LiDAR sweeps give rays; no image of them is loaded.
lidar_frames = (0, -3, -2, -1, 1, 2, 3)
# RenderOcc draws by class and frame; balance='none', neighbour_weight=1.0, num_rays=25600 draws as UniOcc does.
lidar_rays = dict(type='LoadLidarRays', num_rays=38400)

train_pipeline = _base_.train_pipeline
train_pipeline.insert(2, lidar_rays)  # behind images and labels

train_dataloader = dict(dataset=dict(pipeline=train_pipeline, lidar_frames=lidar_frames))
