"""Training with LiDAR rays of several frames, earlier images and a teacher on generated streets: resuming, mirrored testing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
_base_ = ['{root}/configs/debug/bevdet_tiny_synthetic-occ3d.py']

lidar_rays = dict(type='LoadLidarRays', num_rays=300)
load, labels, *rest = _base_.train_pipeline
labelled = dict(
    _base_.train_dataloader.dataset,
    data_root='{data}',
    indices=2,
    lidar_frames=(-1, 0, 1),
    pipeline=[load, labels, lidar_rays, *rest],
)
hide = dict(type='HideLabels', masks=('camera', 'lidar'))
unlabelled = dict(labelled, pipeline=[load, lidar_rays, hide, *rest])
train_dataloader = dict(
    batch_size=2,
    sampler=dict(_delete_=True, type='LabelledUnlabelledSampler'),
    dataset=dict(_delete_=True, type='ConcatDataset', datasets=[labelled, unlabelled]),
)
val_dataloader = dict(dataset=dict(data_root='{data}', indices=1))
test_dataloader = val_dataloader
rays = dict(
    type='RenderSupervision',
    field=dict(type='DensityField', source='logits', features='logits', form='dvgo'),
    views=dict(type='MeasuredRays', max_depth=52.0),
    renderer=dict(type='MarchRenderer', form='dvgo', sampling='uniform', step=1.0),
    target=dict(type='RayTarget', depth='z', labels=True),
    terms=dict(
        loss_ray_depth=dict(function='silog', view='ray', quantity='depth', weight=1.0),
        loss_ray_sem=dict(function='cross_entropy', view='ray', quantity='features', weight=1.0),
    ),
)
model = dict(
    aggregator=dict(type='SupervisionGroup', rays=rays, teacher=dict(type='TeacherConsistency')),
)
# every pseudo label counts, and the average moves fast
custom_hooks = [dict(type='TeacherStudentHook', confidence=0.0, depth_injection='one_hot', momentum=0.3, start=0, gamma=2)]
train_cfg = dict(max_epochs=2, val_interval=10)
default_hooks = dict(logger=dict(interval=1))
"""


def run(*args):
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''},
        capture_output=True,
        text=True,
        timeout=900,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output[-4000:]
    return output


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rays')
    data = folder / 'streets'
    run(
        *('tools/create_data.py', 'synthetic', '--format', 'occ3d', '--preset', 'tiny', '--image-size', '200x112'),
        *('--scenes-train', 1, '--scenes-val', 1, '--frames', 2, '--out', data),
    )
    path = folder / 'teacher.py'
    path.write_text(CONFIG.format(root=ROOT, data=data))
    return path


@pytest.fixture(scope='module')
def straight(config, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp('straight')
    run('tools/train.py', config, '--work-dir', work_dir)
    return work_dir


def losses(work_dir):
    log = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))[-1]
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return {row['step']: {k: v for k, v in row.items() if 'loss' in k or k == 'grad_norm'} for row in rows if 'loss' in row}


def test_a_resumed_training_with_rays_neighbours_and_teacher_goes_on_as_if_nothing_had_happened(config, straight, tmp_path):
    times = ['param_scheduler.1.end=2', 'param_scheduler.1.T_max=2']
    run('tools/train.py', config, '--work-dir', tmp_path, '--cfg-options', 'train_cfg.max_epochs=1', *times)
    run('tools/train.py', config, '--work-dir', tmp_path, '--resume')
    expected, resumed = losses(straight), losses(tmp_path)
    assert sorted(expected) == [1, 2, 3, 4] and sorted(resumed) == [3, 4]
    for step in resumed:
        assert resumed[step] == expected[step]
    terms = {'loss_occ_ce_0', 'loss_ray_depth', 'loss_ray_sem', 'loss_pseudo_occ', 'loss_teacher_feat', 'loss_lss_depth'}
    assert terms <= set(resumed[4]) and resumed[4]['loss_pseudo_occ'] > 0 and resumed[4]['loss_teacher_feat'] > 0


def test_testing_with_mirrored_copies(config, straight, tmp_path):
    # after four steps all voxels look alike; a head with large random weights tells them apart
    content = torch.load(straight / 'epoch_2.pth', weights_only=True)
    state, generator = content['state_dict'], torch.Generator().manual_seed(0)
    for key in [key for key in state if key.startswith('occ_head.')]:
        scale = 0 if key.endswith('bias') else 100 if 'conv' in key else 1
        state[key] = scale * torch.randn(state[key].shape, generator=generator)
    checkpoint = tmp_path / 'lively.pth'
    torch.save(dict(meta=content['meta'], state_dict=state), checkpoint)
    found = {}
    for name, flags in (('plain', ()), ('tta', ('--tta',))):
        out = tmp_path / name
        run('tools/test.py', config, checkpoint, '--work-dir', tmp_path, '--out', out, *flags)
        (path,) = out.glob('*.npz')
        found[name] = np.load(path)['pred']
    assert found['plain'].shape == found['tta'].shape
    # the copies disagree here and there, so the mean differs from the first one
    assert 0 < (found['plain'] != found['tta']).mean() < 1
