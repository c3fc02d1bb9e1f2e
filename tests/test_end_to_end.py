"""The whole way on generated streets, with the small TPVFormer config: data, training, resuming, evaluation, prediction."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'configs/debug/tpvformer_tiny_synthetic-occ3d_gaussrender.py'


def run(*args, expect=0, **env):
    """Runs a script of the repository and returns what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': '', **env},
        capture_output=True,
        text=True,
        timeout=900,
    )
    output = done.stdout + done.stderr
    assert done.returncode == expect, output[-4000:]
    return output


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """Two training scenes and one held-out scene of two frames each."""
    out = tmp_path_factory.mktemp('streets')
    run(
        *('tools/create_data.py', 'synthetic', '--format', 'both', '--preset', 'tiny', '--image-size', '200x112'),
        *('--scenes-train', 2, '--scenes-val', 1, '--frames', 2, '--out', out),
    )
    return out


def options(data, *extra):
    roots = [f'{split}_dataloader.dataset.data_root={data}' for split in ('train', 'val', 'test')]
    return ['--cfg-options', *roots, 'train_cfg.val_interval=10', 'default_hooks.logger.interval=1', *extra]


def losses(work_dir):
    """{iteration: {loss name: value}} of the newest log."""
    log = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))[-1]
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return {row['step']: {k: v for k, v in row.items() if 'loss' in k or k == 'grad_norm'} for row in rows if 'loss' in row}


@pytest.fixture(scope='module')
def straight(data, tmp_path_factory):
    """Work directory of an uninterrupted training of two epochs."""
    work_dir = tmp_path_factory.mktemp('straight')
    run('tools/train.py', CONFIG, '--work-dir', work_dir, *options(data, 'train_cfg.max_epochs=2'))
    return work_dir


def test_an_interrupted_training_continues_with_the_same_losses(data, straight, tmp_path):
    times = ['param_scheduler.1.end=2', 'param_scheduler.1.T_max=2']
    run('tools/train.py', CONFIG, '--work-dir', tmp_path, *options(data, 'train_cfg.max_epochs=1', *times))
    run('tools/train.py', CONFIG, '--work-dir', tmp_path, '--resume', *options(data, 'train_cfg.max_epochs=2'))
    expected, resumed = losses(straight), losses(tmp_path)
    assert sorted(expected) == [1, 2, 3, 4] and sorted(resumed) == [3, 4]
    for step in resumed:
        assert {'loss_occ_ce_0', 'loss_occ_lovasz_0', 'loss_render_cam_sem', 'loss_render_bev_depth'} < set(resumed[step])
        assert resumed[step] == expected[step]


def test_evaluation_predictions_and_pictures(data, straight, tmp_path):
    checkpoint = straight / 'epoch_2.pth'
    output = run(
        *('tools/test.py', CONFIG, checkpoint, '--work-dir', tmp_path, '--metrics-json', tmp_path / 'm.json'),
        *('--out', tmp_path / 'predictions', *options(data)),
    )
    metrics = json.loads((tmp_path / 'm.json').read_text())
    assert 0 <= metrics['mIoU'] <= 1 and 0 <= metrics['IoU'] <= 1 and 'driveable_surface' in output
    files = sorted((tmp_path / 'predictions').rglob('*.npz'))
    assert len(files) == 2 and all(np.load(f)['pred'].shape == (40, 40, 6) for f in files)
    run('tools/visualize.py', CONFIG, checkpoint, '--show-dir', tmp_path / 'pictures', '--indices', 1, *options(data))
    names = sorted(p.name for p in (tmp_path / 'pictures').rglob('*.png'))
    assert names == ['cameras.png', 'rendered.png', 'scene.png']


def test_baseline_and_rendered_checkpoints_interchange(data, straight, tmp_path):
    baseline = CONFIG.replace('_gaussrender', '')
    run('tools/test.py', baseline, straight / 'epoch_2.pth', '--work-dir', tmp_path, *options(data))
    more = ['train_cfg.max_epochs=1', f'load_from={straight / "epoch_2.pth"}']
    run('tools/train.py', baseline, '--work-dir', tmp_path, *options(data, *more))
    assert not any('render' in name for name in losses(tmp_path)[1])
    run('tools/test.py', CONFIG, tmp_path / 'epoch_1.pth', '--work-dir', tmp_path, *options(data))


def test_amp_on_the_cpu(data, tmp_path):
    run('tools/train.py', CONFIG, '--work-dir', tmp_path, '--amp', *options(data, 'train_cfg.max_epochs=1'))
    first = losses(tmp_path)[1]
    assert all(np.isfinite(value) for value in first.values()) and first['loss_render_cam_sem'] > 0


def test_ablations_are_overrides(data, tmp_path):
    extra = [
        'train_cfg.max_epochs=1',
        'model.aggregator.cameras.type=ElevatedAroundCameras',
        'model.aggregator.loss.bev_depth=0',
        'model.occ_head.loss_occ=None',
    ]
    run('tools/train.py', CONFIG, '--work-dir', tmp_path, *options(data, *extra))
    first = losses(tmp_path)[1]
    assert {k for k in first if k.startswith('loss_')} == {
        'loss_render_cam_sem',
        'loss_render_cam_depth',
        'loss_render_bev_sem',
    }
    output = run(
        *('tools/train.py', CONFIG, '--work-dir', tmp_path, '--cfg-options', 'model.agregator.loss.weight=1'), expect=1
    )
    assert 'model.agregator' in output and 'model.aggregator' in output


def test_the_surroundocc_format_trains_too(data, tmp_path):
    config = 'configs/debug/surroundocc_tiny_synthetic-surroundocc_gaussrender.py'
    run('tools/train.py', config, '--work-dir', tmp_path, *options(data, 'train_cfg.max_epochs=1'))
    assert 'loss_render_cam_sem' in losses(tmp_path)[1]


def test_predicting_needs_no_rasteriser(data, straight, tmp_path):
    blocker = tmp_path / 'blocked' / 'gaussian_rasterization'
    blocker.mkdir(parents=True)
    (blocker / '__init__.py').write_text('raise ModuleNotFoundError("blocked", name="gaussian_rasterization")\n')
    path = {'PYTHONPATH': str(blocker.parent)}
    run('tools/test.py', CONFIG, straight / 'epoch_2.pth', '--work-dir', tmp_path, *options(data), **path)
    output = run('tools/train.py', CONFIG, '--work-dir', tmp_path, *options(data), expect=1, **path)
    assert 'extensions/diff-gaussian-rasterization' in output
