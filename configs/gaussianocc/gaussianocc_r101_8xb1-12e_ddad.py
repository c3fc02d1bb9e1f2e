"""GaussianOcc, stage 2, on DDAD from images alone; class maps have to be made with the authors' scripts (docs/datasets.md).

Without voxel labels nothing is evaluated during training; the last checkpoint counts.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/ddad.py',
    '../_base_/models/gaussianocc.py',
    '../_base_/gaussianocc_supervision.py',
    '../_base_/schedules/adamw_gaussianocc.py',
]

aggregator = _base_.supervision
aggregator.target.masks = True
aggregator.target.poses = dict(
    _base_.pose_network,
    frozen=True,
    init_cfg=dict(type='Pretrained', checkpoint='data/pretrained/gaussianocc_stage1_ddad.pth', prefix='pose_network.'),
)
model = dict(grid=_base_.grid, aggregator=aggregator)

val_dataloader = None
val_evaluator = None
val_cfg = None
test_dataloader = None
test_evaluator = None
test_cfg = None
default_hooks = dict(checkpoint=dict(save_best=None))
