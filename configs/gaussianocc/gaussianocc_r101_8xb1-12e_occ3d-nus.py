"""GaussianOcc, stage 2, on nuScenes from images alone (published: mIoU 9.94 over 17 classes, mIoU* 11.26, RayIoU 11.85).

Motions come from the frozen pose network of stage 1, class maps from GroundedSAM. Images of 384 x 640, neighbours are camera
sweeps (12 Hz): make the annotation files with ``create_data.py occ3d --camera-sweeps 1``.
Departures: those of _base_/models/gaussianocc.py and _base_/gaussianocc_supervision.py; all 28,130 training frames, where the
authors take 20,096 of them; colour jitter is the same for all images of a frame; the pose network sees images without it.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/occ3d-nus.py',
    '../_base_/models/gaussianocc.py',
    '../_base_/gaussianocc_supervision.py',
    '../_base_/schedules/adamw_gaussianocc.py',
]

network_size = [384, 640]
# around the vehicle, as the pose network was trained
cam_names = ['CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_BACK_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT', 'CAM_FRONT_RIGHT']
train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadPseudoLabels'),
    dict(type='ResizeImages', size=network_size, keep_originals=True),
    dict(type='JitterColors'),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadOccLabels'),
    dict(type='ResizeImages', size=network_size),
    dict(type='PackOccInputs'),
]
train_dataloader = dict(
    dataset=dict(
        cam_names=cam_names,
        data_prefix=dict(pseudo='nuscenes_semantic'),
        frames=[0, -1, 1],
        neighbours='sweeps',
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(dataset=dict(cam_names=cam_names, pipeline=test_pipeline))
test_dataloader = val_dataloader
# mIoU*: the class maps know neither of the two; published numbers count voxels that a camera and the LiDAR see
val_evaluator = dict(excluding=dict(mIoU_star=['others', 'other_flat']))
test_evaluator = [
    dict(_base_.test_evaluator, **val_evaluator),
    dict(type='OccupancyMetric', grid=_base_.grid, mask='both', prefix='occ_both', **val_evaluator),
]

aggregator = _base_.supervision
# stage 1 writes this checkpoint; None: the data set's poses
aggregator.target.poses = dict(
    _base_.pose_network,
    frozen=True,
    init_cfg=dict(type='Pretrained', checkpoint='data/pretrained/gaussianocc_stage1_nus.pth', prefix='pose_network.'),
)
model = dict(grid=_base_.grid, aggregator=aggregator)
