"""A small SurroundOcc on generated streets, from neighbouring images with given poses and class maps; trains on a CPU.

python tools/create_data.py synthetic --format occ3d --frames 6 --scenes-train 32 --scenes-val 8 --camera-sweeps 1 \\
    --image-classes --seed 3 --out data/synthetic_sweeps
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic-occ3d.py',
    '../_base_/models/surroundocc_tiny.py',
    '../_base_/gaussianocc_supervision.py',
    '../_base_/schedules/adamw_10e_tiny.py',
]

data_root = 'data/synthetic_sweeps/'
size = [112, 200]  # height and width of the network's images
train_pipeline = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadPseudoLabels'),
    dict(type='ResizeImages', size=size, keep_originals=True),
    dict(type='JitterColors'),
    dict(type='PackOccInputs'),
]
aggregator = _base_.supervision
aggregator.field = dict(type='FreeLogitField', scale=0.4, background='free')
aggregator.views.size = [56, 100]
aggregator.target.size = size
model = dict(grid=_base_.grid, occ_head=dict(loss_occ=None), aggregator=aggregator)

train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        data_root=data_root,
        frames=[0, -1, 1],
        neighbours='sweeps',
        missing_frames='skip',
        data_prefix=dict(pseudo='nuscenes_semantic'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
default_hooks = dict(logger=dict(interval=10))
