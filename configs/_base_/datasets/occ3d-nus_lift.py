"""Occ3D-nuScenes for networks that lift images by depth: the key frame with the two before it, small images, LiDAR depth.

As BEVDet trains: every camera draws its own resize, crop, flip and turn, which its images of all frames share; the grid is
mirrored along x and y; depth maps hold the key frame's LiDAR sweep in the pixels of the small image. 256 x 704 from 900 x 1600.
Released weights know the volume where the vehicle was when the first camera took its image, which is CAM_FRONT_LEFT for them
(ReferenceAtCameraTime); without that step it lies at LiDAR time, like the labels, which is right. Departures: depth of a pixel
is that of its nearest point; the matrix of an image has the ratio of the rounded sizes.
"""

_base_ = ['./occ3d-nus.py']

image_wh = [704, 256]
frames = (0, -1, -2)  # of model.view_encoder: num_frames, and one more with stereo

train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadOccLabels'),
    dict(type='ReferenceAtCameraTime', camera='CAM_FRONT_LEFT'),
    dict(
        type='ResizeCropFlipImages',
        final_wh=image_wh,
        training=True,
        resize_lim=(0.38, 0.55),  # 704 / 1600 and from 0.06 less to 0.11 more
        rot_lim=(-5.4, 5.4),
        rand_flip=True,
        per_camera=True,
    ),
    dict(type='LoadDepthFromLidar', radius=0, key_frame_only=True, point_dims=5),
    dict(type='RandomMirrorGrid', prob_x=0.5, prob_y=0.5),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadOccLabels'),
    dict(type='ReferenceAtCameraTime', camera='CAM_FRONT_LEFT'),
    dict(type='ResizeCropFlipImages', final_wh=image_wh, training=False),
    dict(type='PackOccInputs'),
]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline, frames=frames, ego_motion_compensation=True))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, frames=frames, ego_motion_compensation=True))
test_dataloader = val_dataloader
