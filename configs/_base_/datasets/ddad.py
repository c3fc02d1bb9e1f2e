"""DDAD: six cameras at 10 Hz with the frames before and after, own-car masks, LiDAR for evaluation; no voxel labels.

Classes and grid are those of Occ3D, into which the class maps of the images are translated. Files: docs/datasets.md, "DDAD".
Cameras stand in the order around the vehicle, which the cross-view loss of stage 1 relies on.
"""

_base_ = ['./occ3d-nus.py']

grid = _base_.grid
dataset_type = 'DDADDataset'
data_root = 'data/ddad/raw_data/'
# None leaves class maps out; stage 1 needs none
data_prefix = dict(img='', pts='', mask='../mask', pseudo='../ddad_semantic')
network_size = [384, 640]
mask_valid = 'zero'  # SurroundDepth's masks; 'nonzero' for others

train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadSelfOcclusionMasks', valid=mask_valid),
    dict(type='LoadPseudoLabels'),
    dict(type='ResizeImages', size=network_size, keep_originals=True),
    dict(type='JitterColors'),
    dict(type='PackOccInputs'),
]
test_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadDepthPixels'),
    dict(type='ResizeImages', size=network_size, keep_originals=True),
    dict(type='PackOccInputs', extra_meta_keys=['depth_pixels']),
]

train_dataloader = dict(
    _delete_=True,
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='ddad.json',
        data_prefix=data_prefix,
        split='train',
        grid=grid,
        frames=[0, -1, 1],
        missing_frames='skip',  # as in the authors' list
        ego_motion_compensation=False,  # all cameras of a frame as if exposed at once, as in the original
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    _delete_=True,
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='ddad.json',
        data_prefix=dict(img='', pts=''),
        split='val',
        grid=grid,
        ego_motion_compensation=False,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(_delete_=True, type='DepthMetric', max_depth=200.0, prefix='depth')
test_evaluator = val_evaluator
