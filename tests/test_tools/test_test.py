import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet3d.registry import METRICS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

TOY_DIR = Path(__file__).resolve().parents[1] / 'test_occ' / 'test_engine'
sys.path.insert(0, str(TOY_DIR))

from toy_occupancy import evaluate, load_tool, train, write_config  # noqa: E402

from projects.occ.structures.benchmarks import get_benchmark  # noqa: E402
from projects.streets import build_config, generate  # noqa: E402


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Config and checkpoint of a toy training."""
    folder = tmp_path_factory.mktemp('toy')
    config = write_config(folder)
    assert train(config, '--cfg-options', 'train_cfg.max_epochs=1') == 0
    return config, folder / 'work_toy' / 'epoch_1.pth'


def last_error(capfd):
    return capfd.readouterr().err.strip().split('\n')[-1]


def test_as_a_program_with_every_output(trained, tmp_path, repo_root):
    config, checkpoint = trained
    run = subprocess.run(
        [sys.executable, str(repo_root / 'tools' / 'test.py'), str(config), str(checkpoint), '--out', 'predictions']
        + ['--metrics-json', 'results/metrics.json', '--show-dir', 'pictures'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(TOY_DIR), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    metrics = json.loads((tmp_path / 'results' / 'metrics.json').read_text())
    assert 0 < metrics['mIoU'] < 1 and metrics['nothing'] is None
    assert metrics['source'] == {'config': str(config), 'checkpoint': str(checkpoint)}
    assert sorted(path.stem for path in (tmp_path / 'predictions').iterdir()) == [f'frame-{index}' for index in range(7)]
    with np.load(tmp_path / 'predictions' / 'frame-0.npz') as file:
        assert file['pred'].shape == (4, 3, 2) and file['pred'].dtype == np.uint8
    assert len(list((tmp_path / 'pictures').iterdir())) == 4
    assert (tmp_path / 'work_dirs' / 'toy').is_dir()


def test_the_result_belongs_to_the_weights_of_the_file(trained, tmp_path):
    config, checkpoint = trained
    state = torch.load(checkpoint, weights_only=True)
    # a classifier that says 'free' everywhere
    state['state_dict']['classifier.weight'].zero_()
    state['state_dict']['classifier.bias'].copy_(torch.tensor([0.0, 0.0, 1.0]))
    torch.save(state['state_dict'], tmp_path / 'free.pth')
    assert evaluate(config, tmp_path / 'free.pth', '--metrics-json', tmp_path / 'free.json', '--out', tmp_path / 'out') == 0
    hist = np.array(json.loads((tmp_path / 'free.json').read_text())['hist'])
    assert hist[:, :2].sum() == 0 and hist.sum() == 7 * 24
    assert all((np.load(path)['pred'] == 2).all() for path in (tmp_path / 'out').iterdir())


def test_options_reach_the_config(trained, tmp_path):
    config, checkpoint = trained
    options = ('test_dataloader.batch_size=1', 'test_dataloader.dataset.length=3')
    metrics = tmp_path / 'm.json'
    arguments = ('--metrics-json', metrics, '--cfg-options')
    assert evaluate(config, checkpoint, *arguments, options[0]) == 0
    assert len(json.loads(metrics.read_text())['tokens']) == 7
    assert evaluate(config, checkpoint, *arguments, *options, '--allow-new-keys') == 0
    assert len(json.loads(metrics.read_text())['tokens']) == 3


def test_missing_files_and_unwritable_outputs_are_named(trained, tmp_path, capfd):
    config, checkpoint = trained
    assert evaluate(tmp_path / 'absent.py', checkpoint) == 1
    assert 'absent.py' in last_error(capfd)
    assert evaluate(config, tmp_path / 'absent.pth') == 1
    assert 'absent.pth' in last_error(capfd)
    (tmp_path / 'file').write_text('')
    for option in ('--out', '--show-dir', '--metrics-json', '--work-dir'):
        assert evaluate(config, checkpoint, option, tmp_path / 'file' / 'sub' / 'x') == 1
        message = last_error(capfd)
        assert message.startswith('error: cannot write to ') and message.endswith(f'with {option}')
    assert evaluate(config, checkpoint, '--metrics-json', tmp_path) == 1
    assert last_error(capfd) == f"error: --metrics-json '{tmp_path}' is a folder; name the file to write"


def test_a_malicious_checkpoint_is_refused(trained, tmp_path, capfd):
    config, checkpoint = trained

    class Trap:
        def __reduce__(self):
            return os.system, (f'touch {tmp_path}/sprung',)

    torch.save(dict(torch.load(checkpoint, weights_only=True), trap=Trap()), tmp_path / 'trap.pth')
    assert evaluate(config, tmp_path / 'trap.pth') == 1
    assert 'system' in (message := last_error(capfd)) and '--trust-checkpoint' in message
    assert not (tmp_path / 'sprung').exists()
    assert evaluate(config, tmp_path / 'trap.pth', '--trust-checkpoint') == 0
    assert (tmp_path / 'sprung').exists()


def test_windows_are_asked_for_by_a_flag():
    tool = load_tool('test')
    args = tool.parse_args(['c', 'p', '--show', '--wait-time', '1'])
    cfg = tool.Config(dict(default_hooks=dict(visualization=dict(type='OccVisualizationHook', draw=False, interval=5))))
    tool.add_output_hooks(cfg, args)
    assert cfg.default_hooks.visualization == dict(
        type='OccVisualizationHook', draw=True, interval=5, show=True, wait_time=1.0, out_dir=None
    )
    assert cfg.default_hooks.checkpoint_keys.strict is True and 'prediction_writer' not in cfg.default_hooks


def test_windows_without_a_display_are_refused(trained, monkeypatch, capfd):
    from matplotlib import pyplot

    tool = load_tool('test')
    for name, windows in (('agg', False), ('Agg', False), ('svg', False), ('tkagg', True), ('QtAgg', True)):
        monkeypatch.setattr(pyplot, 'get_backend', lambda name=name: name)
        if windows:
            tool.check_display()
        else:
            with pytest.raises(tool.OccError, match=f'--show opens windows, but matplotlib has none .*{name}.*--show-dir DIR'):
                tool.check_display()
    monkeypatch.setattr(pyplot, 'get_backend', lambda: 'agg')
    assert evaluate(*trained, '--show') == 1
    assert last_error(capfd).startswith('error: --show opens windows')


def evaluator_config(**metric):
    tool = load_tool('test')
    voxels = dict(type='OccupancyMetric', grid=dict(vars(get_benchmark('occ3d').grid)), preset='occ3d', **metric)
    return tool, tool.Config(dict(test_evaluator=voxels, test_dataloader=dict(dataset=dict(type='SomeDataset', ann_file='a'))))


def test_metrics_are_added_by_flags():
    tool, cfg = evaluator_config()
    tool.add_metrics(cfg, tool.parse_args(['c', 'p']))
    assert cfg.test_evaluator.type == 'OccupancyMetric'
    tool.add_metrics(cfg, tool.parse_args(['c', 'p', '--ray-iou', '--image-metrics', '--image-reduction', '4']))
    voxels, rays, images = cfg.test_evaluator
    assert voxels.type == 'OccupancyMetric' and rays.type == 'RayIoUMetric' and images.type == 'RenderedImageMetric'
    assert rays.origins == dict(type='SomeDataset', ann_file='a') and rays.grid == voxels.grid and rays.preset == 'occ3d'
    assert images.gaussian_scale == 0.27 and images.reduction == 4 and images.grid == voxels.grid
    assert images.absent == 'exclude'
    # again: what is configured gives way to the flag
    tool.add_metrics(cfg, tool.parse_args(['c', 'p', '--ray-iou', '--origins', 'o.npz']))
    assert [metric.type for metric in cfg.test_evaluator] == ['OccupancyMetric', 'RenderedImageMetric', 'RayIoUMetric']
    assert cfg.test_evaluator[2].origins == 'o.npz'
    tool.add_metrics(cfg, tool.parse_args(['c', 'p', '--ray-profile']))
    assert cfg.test_evaluator[3] == dict(type='RayProfileMetric', grid=voxels.grid, origins=rays.origins)


def test_measured_depth_is_loaded_for_the_depth_metrics():
    tool, cfg = evaluator_config()
    with pytest.raises(tool.OccError, match='PackOccInputs'):
        tool.add_metrics(cfg, tool.parse_args(['c', 'p', '--depth-metrics']))
    cfg.test_dataloader.dataset.pipeline = [dict(type='A'), dict(type='PackOccInputs', extra_meta_keys=('depth',))]
    tool.add_metrics(cfg, tool.parse_args(['c', 'p', '--depth-metrics', '--image-reduction', '4']))
    steps = cfg.test_dataloader.dataset.pipeline
    assert [step.type for step in steps] == ['A', 'LoadDepthPixels', 'PackOccInputs']
    assert tuple(steps[2].extra_meta_keys) == ('depth', 'depth_pixels')
    assert cfg.test_evaluator[1].type == 'RenderedDepthMetric' and cfg.test_evaluator[1].reduction == 4
    # once more changes nothing
    tool.add_metrics(cfg, tool.parse_args(['c', 'p', '--depth-metrics']))
    assert cfg.test_dataloader.dataset.pipeline == steps


def test_image_metrics_take_the_policy_for_absent_classes_of_the_voxels():
    tool, cfg = evaluator_config(absent='one')
    tool.add_metrics(cfg, tool.parse_args(['c', 'p', '--image-metrics']))
    assert METRICS.build(cfg.test_evaluator[1]).absent == 'one'


@pytest.mark.parametrize('wrap', [lambda model: model, torch.nn.DataParallel])
@pytest.mark.parametrize(('config', 'before', 'after'), [({}, False, True), (dict(keep_logits=False), False, False)])
def test_image_metrics_get_the_logits_unless_the_config_says_otherwise(wrap, config, before, after):
    tool = load_tool('test')
    model = torch.nn.Linear(1, 1)
    model.keep_logits = before
    cfg = tool.Config(dict(model=dict(type='SomeModel', **config)))
    tool.hand_logits_to_metrics(SimpleNamespace(model=wrap(model), cfg=cfg))
    assert model.keep_logits is after
    # a model that knows no logits is left alone
    other = torch.nn.Linear(1, 1)
    tool.hand_logits_to_metrics(SimpleNamespace(model=wrap(other), cfg=cfg))
    assert not hasattr(other, 'keep_logits')


def test_metrics_that_cannot_be_added():
    tool, cfg = evaluator_config()
    with pytest.raises(tool.OccError, match='--origins belongs to --ray-iou and --ray-profile'):
        tool.add_metrics(cfg, tool.parse_args(['c', 'p', '--origins', 'o.npz']))
    with pytest.raises(tool.OccError, match='--image-reduction belongs to --image-metrics and --depth-metrics'):
        tool.add_metrics(cfg, tool.parse_args(['c', 'p', '--ray-iou', '--image-reduction', '4']))
    cfg.test_evaluator = dict(type='ToyOccMetric')
    with pytest.raises(tool.OccError, match='no OccupancyMetric.*take grid and preset'):
        tool.add_metrics(cfg, tool.parse_args(['c', 'p', '--ray-iou']))


def test_the_snippet_for_configs(repo_root, tmp_path):
    path = tmp_path / 'all_metrics.py'
    bases = [str(repo_root / 'configs' / name) for name in ('debug/tpvformer_tiny_synthetic-occ3d.py', '_base_/evaluators.py')]
    path.write_text(
        f"""
_base_ = {bases!r}
test_evaluator = [
    _base_.test_evaluator,
    dict(_base_.ray_iou, grid=_base_.grid, origins=_base_.test_dataloader.dataset),
    dict(_base_.image_metrics, grid=_base_.grid, gaussian_scale=0.27),
]
model = dict(keep_logits=True)
"""
    )
    cfg = load_tool('test').Config.fromfile(path)
    voxels, rays, images = cfg.test_evaluator
    assert rays.origins.type == 'Occ3DNuScenesDataset' and rays.grid == voxels.grid == images.grid
    assert METRICS.build(images).render.gaussians.gaussian_scale == 0.27
    assert cfg.model.keep_logits and cfg.model.type == 'OccSegmentor'
    rays.origins = {'frame': np.zeros((1, 3))}
    assert METRICS.build(rays).preset.name == 'occ3d'


def test_videos_are_asked_for_by_a_flag_and_need_a_folder(trained, capfd):
    tool = load_tool('test')
    args = tool.parse_args(['c', 'p', '--show-dir', 'pictures', '--show-video', 'mp4'])
    cfg = tool.Config(dict(default_hooks=dict(visualization=dict(type='OccVisualizationHook', draw=False, interval=5))))
    tool.add_output_hooks(cfg, args)
    assert cfg.default_hooks.visualization.video == 'mp4' and cfg.default_hooks.visualization.interval == 5
    config, checkpoint = trained
    assert evaluate(config, checkpoint, '--show-video', 'gif') == 1
    assert last_error(capfd) == 'error: --show-video needs --show-dir, the folder of the videos'


def test_predictions_without_labels(tmp_path, repo_root, capfd):
    root = tmp_path / 'streets'
    generate(build_config(formats=('occ3d',), preset='tiny', scenes_train=0, scenes_val=1, frames=2), root, workers=1)
    shutil.rmtree(root / 'occ3d_nuscenes' / 'gts')
    config = repo_root / 'projects' / 'example_model' / 'configs' / 'voxel-network_synthetic-occ3d.py'
    cfg = Config.fromfile(config)
    init_default_scope('mmdet3d')
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), tmp_path / 'random.pth')
    options = ['--work-dir', str(tmp_path / 'work'), '--cfg-options', f'test_dataloader.dataset.data_root={root}/']
    options += ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']
    tool = load_tool('test')
    arguments = [str(config), str(tmp_path / 'random.pth'), '--no-labels']
    assert tool.main([*arguments, *options]) == 1
    assert '--no-labels predicts alone: give --out' in last_error(capfd)
    arguments += ['--out', str(tmp_path / 'out')]
    assert tool.main([*arguments, '--ray-iou', *options]) == 1
    assert '--ray-iou needs' in last_error(capfd)
    assert tool.main([*arguments, *options]) == 0
    assert len(list((tmp_path / 'out').rglob('*.npz'))) == 2
