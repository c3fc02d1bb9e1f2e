"""Generated streets in the format of Occ3D-nuScenes for networks that lift images by depth, see occ3d-nus_lift.py.

python tools/create_data.py synthetic --format both --preset tiny --image-size 200x112 --out data/synthetic
"""

_base_ = ['./synthetic-occ3d.py']

frames = (0, -1, -2)
train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadOccLabels'),
    dict(
        type='ResizeCropFlipImages',
        final_wh=_base_.image_wh,
        training=True,
        resize_lim=(0.94, 1.11),
        rot_lim=(-5.4, 5.4),
        rand_flip=True,
        per_camera=True,
    ),
    dict(type='LoadDepthFromLidar', radius=0, key_frame_only=True, point_dims=5),
    dict(type='RandomMirrorGrid', prob_x=0.5, prob_y=0.5),
    dict(type='PackOccInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, frames=frames, ego_motion_compensation=True))
val_dataloader = dict(dataset=dict(frames=frames, ego_motion_compensation=True))
test_dataloader = val_dataloader
