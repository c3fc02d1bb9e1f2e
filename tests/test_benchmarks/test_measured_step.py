"""The benchmark scripts of tests/benchmarks on the smallest configs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config, ConfigDict

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'benchmarks'))

import bm_full_size_step  # noqa: E402
import bm_training_options  # noqa: E402
import measured_step  # noqa: E402

from projects.occ.structures import VoxelGrid  # noqa: E402
from tools.dev.made_up_frames import made_up_frame  # noqa: E402

SMALL = 'configs/debug/tpvformer_tiny_synthetic-occ3d_gaussrender.py'
REQUEST = dict(
    config=SMALL, options={}, device='cpu', steps=1, warmup=1, batch_size=2, amp=False, checkpointing=True, memory_limit=None
)


def test_a_step_is_measured():
    result = measured_step.run_steps(REQUEST)
    assert len(result['seconds']) == len(result['seconds_warmup']) == 1 and result['seconds'][0] > 0
    assert result['peak_gib'] > result['before_gib'] > 0.1
    assert result['images'] == [6, 3, 112, 200] and result['grid'] == [40, 40, 6]
    assert {'loss', 'loss_occ_ce_0', 'loss_render_cam_sem', 'loss_render_bev_depth'} <= set(result['losses'])
    # label and prediction are seen by the cameras
    assert result['losses']['loss_render_cam_depth'] > 0


@pytest.mark.parametrize(
    'name',
    [
        'tpvformer/tpvformer_r101-dcn_8xb1-20e_occ3d-nus',
        'surroundocc/surroundocc_r101-dcn_8xb1-20e_sscbench-kitti360',
        'symphonies/symphonies_r50_4xb1-30e_sscbench-kitti360',
    ],
)
def test_frames_have_the_size_of_the_benchmark(repo_root, name):
    cfg = Config.fromfile(repo_root / f'configs/{name}.py')
    frame = made_up_frame(cfg)
    grid, sample = VoxelGrid.build(cfg.grid), frame['data_samples']
    assert tuple(sample.gt_occ.shape) == grid.shape
    images = (6, 3, 896, 1600) if 'nus' in name else (1, 3, 376, 1408)
    assert tuple(frame['inputs']['img'].shape) == images
    assert tuple(sample.ori_img_wh[0]) == ((1600, 900) if 'nus' in name else (1408, 376))
    grid.check_labels(sample.gt_occ)
    counts = np.bincount(sample.gt_occ.numpy().ravel(), minlength=256)
    assert counts[grid.ignore_index] > 0 and (counts[list(grid.semantic_classes)] > 0).sum() > 5
    if 'symphonies' in name:
        seen = frame['inputs']['depth'] > 0
        assert 0.2 < seen.float().mean() < 1 and frame['inputs']['voxel_visible'].any()
    # a point ahead is in the middle of the first image
    point = sample.ref2img[0] @ np.array([10, 0, sample.ref2cam[0, 1, 3], 1.0])
    x, y = point[:2] / point[2]
    assert x == pytest.approx(images[3] / 2, abs=1) and y == pytest.approx(images[2] / 2, abs=5)


def test_earlier_frames_were_taken_before(repo_root):
    cfg = Config.fromfile(repo_root / 'configs/debug/bevdet_tiny_synthetic-occ3d.py')
    # a mirrored scene has its earlier frames on the other side
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset.pipeline = [step for step in pipeline if step.type != 'RandomMirrorGrid']
    frame = made_up_frame(cfg)
    cameras = frame['inputs']['cameras']
    assert cameras.frame.tolist() == 6 * [0] + 6 * [-1] + 6 * [-2] and frame['inputs']['img'].shape[0] == 18
    places = np.linalg.inv(cameras.ref2cam[0].numpy())[:, :3, 3]
    np.testing.assert_allclose(places[6:12] - places[:6], [[-2.0, 0, 0]] * 6, atol=1e-9)
    request = dict(REQUEST, config='configs/debug/bevdet_tiny_synthetic-occ3d_gaussrender.py', warmup=0, checkpointing=False)
    losses = measured_step.run_steps(request)['losses']
    assert losses['loss_lss_depth'] > 0 and losses['loss_render_cam_sem'] > 0


def test_a_loading_step_without_stand_in_is_refused(repo_root):
    cfg = Config.fromfile(repo_root / SMALL)
    cfg.train_dataloader.dataset.pipeline.insert(0, ConfigDict(type='LoadRadar'))
    with pytest.raises(ValueError, match='knows no stand-in for LoadRadar'):
        made_up_frame(cfg)


def test_a_failure_is_a_row(tmp_path, monkeypatch):
    (tmp_path / 'doc.md').write_text('<!-- full-size step: begin -->\n<!-- full-size step: end -->\n')
    places = ['--out', str(tmp_path / 'r.json'), '--document', str(tmp_path / 'doc.md')]
    # the import of torch alone takes more
    assert bm_full_size_step.main(['--config', SMALL, '--memory-limit', '0.3', *places]) == 1
    (row,) = json.loads((tmp_path / 'r.json').read_text())['rows']
    assert row['error'] == 'needs more than the 0.3 GiB that --memory-limit allows'
    assert 'needs more than the 0.3 GiB' in (tmp_path / 'doc.md').read_text()

    # a later call replaces the row of the same setting and keeps others
    done = dict(row, seconds=[2.0, 1.0, 9.0], peak_gib=3.0, losses=dict(loss_render_cam_sem=1.0))
    done.pop('error')
    monkeypatch.setattr(bm_full_size_step, 'measure', lambda *_: dict(done))
    assert bm_full_size_step.main(['--config', SMALL, '--memory-limit', '0.3', *places]) == 0
    assert '| voxel, rendered | 2.0 | 3.0 |' in (tmp_path / 'doc.md').read_text()
    monkeypatch.setattr(bm_full_size_step, 'measure', lambda *_: dict(done, amp=True))
    assert bm_full_size_step.main(['--config', SMALL, *places]) == 0
    assert len(json.loads((tmp_path / 'r.json').read_text())['rows']) == 2


def test_the_cells_are_those_with_a_partner():
    configs = bm_full_size_step.listed_configs()
    assert len(configs) >= 10 and len(configs) % 2 == 0 and not any('authors' in c or 'binary' in c for c in configs)
    assert sum('gaussrender' in c for c in configs) == len(configs) // 2


def test_options_are_compared_with_the_first(tmp_path, monkeypatch):
    asked = []

    def measure(config, **arguments):
        asked.append(arguments)
        slow = 2.0 if arguments.get('checkpointing') else 1.0
        return dict(config=config, seconds=[slow], peak_gib=1 + 1 / slow, before_gib=1.0)

    (tmp_path / 'doc.md').write_text('<!-- training options: begin -->\n<!-- training options: end -->\n')
    monkeypatch.setattr(bm_training_options, 'measure', measure)
    places = ['--out', str(tmp_path / 'r.json'), '--document', str(tmp_path / 'doc.md')]
    assert bm_training_options.main(['--config', SMALL, *places]) == 0
    assert [a['options'].get('model.aggregator.cameras.num_cameras') for a in asked].count(6) == 1
    assert all(a['options']['train_dataloader.dataset.pipeline.2.final_wh'] == [400, 224] for a in asked)
    text = (tmp_path / 'doc.md').read_text()
    assert '|  | activation checkpointing (`with_cp=True`) | 2.00 | 2.00 | 0.50 | 0.50 |' in text
    assert "| as configured: one view and the bird's-eye view | 1.00 | 1.00 | 1.00 | 1.00 |" in text
