"""tools/eval_predictions.py: the integers of a test run for every benchmark, file names, guards, errors."""

import json
import os
import shutil
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.evaluator import Evaluator

import projects.gaussrender.image_metric  # noqa: F401
from projects.occ.datasets.frame_dataset import FrameDataset
from projects.occ.datasets.kitti360_labels import RAW_IDS
from projects.occ.engine.hooks import PredictionWriterHook
from projects.occ.evaluation.ray_origin_files import write_ray_origins
from projects.occ.structures import OccDataSample, VoxelGrid
from projects.occ.structures.benchmarks import get_benchmark
from projects.occ.structures.frame_record import CameraRecord, FrameRecord
from projects.preparation.label_files import write_occ3d_label, write_surroundocc_label
from projects.streets import build_config, generate

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test_occ' / 'test_engine'))

from toy_occupancy import load_tool  # noqa: E402


@pytest.fixture(scope='module')
def tool():
    return load_tool('eval_predictions')


@pytest.fixture(scope='module')
def streets(tmp_path_factory):
    """Two generated scenes of two frames in both nuScenes formats."""
    root = tmp_path_factory.mktemp('streets')
    config = build_config(
        formats=('occ3d', 'surroundocc'), preset='tiny', image_size=(48, 28), scenes_train=1, scenes_val=2, frames=2
    )
    generate(config, root, workers=2)
    return root


def make_drive(root):
    """SSCBench's files of three frames of the test drive, in voxels of 1.6 m."""
    grid = dict(vars(get_benchmark('sscbench-kitti360').grid), voxel_size=1.6, shape=(32, 32, 4))
    rng = np.random.default_rng(5)
    drive = '2013_05_28_drive_0009_sync'
    for number in (0, 5, 10):
        labels = rng.choice([0, 0, 0, 1, 7, 13, 255], grid['shape']).astype(np.float32)
        (root / 'data_2d_raw' / drive / 'voxels').mkdir(parents=True, exist_ok=True)
        (root / 'preprocess' / 'labels' / drive).mkdir(parents=True, exist_ok=True)
        (root / 'data_2d_raw' / drive / 'voxels' / f'{number:06d}.bin').write_bytes(b'')
        np.save(root / 'preprocess' / 'labels' / drive / f'{number:06d}_1_1.npy', labels)
    (root / 'config.py').write_text(
        f'grid = {grid!r}\ntest_dataloader = dict(dataset=dict(type="SSCBenchKITTI360Dataset", data_root={str(root)!r}, '
        'grid=grid, split="test", pipeline=[dict(type="LoadSSCBenchLabels")]))\n'
        'test_evaluator = dict(type="OccupancyMetric", grid=grid, preset="sscbench-kitti360")\n'
    )
    return root / 'config.py', drive


def run_in_process(cfg, out_dir, extra=()):
    """What Runner.test does with predictions: evaluator and PredictionWriterHook; the model guesses from the label."""
    dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'test_mode': True})
    evaluators = [dict(metric) for metric in (cfg.test_evaluator, *extra)]
    evaluator = Evaluator(evaluators)
    hook = PredictionWriterHook(str(out_dir))
    grid = VoxelGrid.build(cfg.test_dataloader.dataset.grid)
    rng = np.random.default_rng(0)
    for i in range(len(dataset)):
        item = dataset[i]
        sample = item.get('data_samples')
        if sample is None:
            sample = OccDataSample(gt_occ=torch.from_numpy(item['gt_occ']), metainfo=dict(token=item['token']))
        gt = sample.gt_occ.numpy()
        wrong = (rng.random(gt.shape) < 0.2) | (gt == grid.ignore_index)
        guess = np.where(wrong, rng.integers(0, grid.num_classes, gt.shape), gt)
        sample.pred_occ = torch.from_numpy(guess.astype(np.uint8))
        evaluator.process([sample])
        hook.after_test_iter(None, i, outputs=[sample])
    return evaluator.evaluate(len(dataset))


def config_of(repo_root, name, root):
    cfg = Config.fromfile(repo_root / 'configs' / '_base_' / 'datasets' / f'{name}.py')
    cfg.test_dataloader.dataset.data_root = f'{root}/'
    return cfg


def same_numbers(written, expected):
    short = {name.split('/', 1)[-1]: value for name, value in expected.items()}
    assert short, expected
    for name, value in short.items():
        assert written[name] == value or (written[name] is None and np.isnan(value)), name


@pytest.mark.parametrize('preset', ['occ3d', 'surroundocc'])
def test_same_integers_as_a_test_run_on_nuscenes(tool, streets, repo_root, tmp_path, preset):
    cfg = config_of(repo_root, f'synthetic-{preset}', streets)
    grid = cfg.test_dataloader.dataset.grid
    scale = get_benchmark(preset).gaussian_scale(VoxelGrid.build(grid))
    extra = [dict(type='RayIoUMetric', grid=grid, preset=preset, origins=cfg.test_dataloader.dataset)]
    extra.append(dict(type='RenderedImageMetric', grid=grid, gaussian_scale=scale, reduction=1))
    extra.append(dict(type='RayProfileMetric', grid=grid, origins=cfg.test_dataloader.dataset))
    arguments = ['--ray-iou', '--ray-profile', '--image-metrics']
    expected = run_in_process(cfg, tmp_path / 'pred', extra)
    assert 0 < expected['occ/mIoU'] < 1 and 0 < expected['occ/RayIoU'] < 1 and 0 < expected['occ/ray_behind'] < 1
    config = repo_root / 'configs' / '_base_' / 'datasets' / f'synthetic-{preset}.py'
    for workers in ('0', '2'):
        out = tmp_path / f'metrics{workers}.json'
        options = ['--cfg-options', f'test_dataloader.dataset.data_root={streets}/']
        code = tool.main(
            ['--preset', preset, '--pred', str(tmp_path / 'pred'), '--config', str(config), '--out', str(out)]
            + ['--workers', workers, *arguments, *options]
        )
        assert code == 0
        written = json.loads(out.read_text())
        same_numbers(written, expected)
        assert written['frames'] == 4 and written['missing_frames'] == written['extra_predictions'] == []
        assert written['source']['preset'] == preset


@pytest.fixture(scope='module')
def drives(tmp_path_factory):
    """Generated drives in the format of SSCBench-KITTI-360."""
    root = tmp_path_factory.mktemp('drives')
    config = build_config(
        formats=('sscbench-kitti360',), preset='tiny', image_size=(88, 24), scenes_train=1, scenes_val=1, frames=2
    )
    generate(config, root, workers=2)
    return root


VOXELS = {'mIoU', 'IoU', 'per_class'}
RAYS = {'RayIoU', 'RayIoU@1', 'RayIoU@2', 'RayIoU@4'}
PROFILES = {'ray_front', 'ray_behind', 'ray_surfaces', 'floaters', 'holes', 'ray_profile_per_range'}
IMAGES = {'img_mIoU', 'img_IoU', 'bev_mIoU', 'depth_L1'}


PAINTED_WITH_IDS = ['--allow-new-keys', '--cfg-options', 'model.keep_logits=False']


@pytest.mark.parametrize(
    ('preset', 'expected', 'metrics', 'options'),
    [
        (
            'occ3d',
            VOXELS | RAYS | IMAGES | PROFILES,
            ['--ray-iou', '--ray-profile', '--image-metrics', '--image-reduction', '2'],
            PAINTED_WITH_IDS,
        ),
        ('surroundocc', VOXELS | RAYS, ['--ray-iou'], []),
        # its frames have no poses
        ('sscbench-kitti360', VOXELS | IMAGES, ['--image-metrics', '--image-reduction', '2'], []),
    ],
)
def test_same_integers_as_tools_test(tool, request, repo_root, tmp_path, preset, expected, metrics, options):
    """A model with random weights through tools/test.py, and its predictions again."""
    root = request.getfixturevalue('drives' if preset == 'sscbench-kitti360' else 'streets')
    config = tmp_path / 'tiny.py'
    config.write_text(
        f'_base_ = [{str(repo_root / f"configs/debug/surroundocc_tiny_synthetic-{preset}.py")!r}]\n'
        f'test_dataloader = dict(dataset=dict(data_root={f"{root}/"!r}))\nexperiment_name = {tmp_path.name!r}\n'
        f'visualizer = dict(name={tmp_path.name!r})\n'
    )
    cfg = Config.fromfile(config)
    torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / 'random.pth')
    outputs = ['--out', tmp_path / 'pred', '--metrics-json', tmp_path / 'run.json', '--work-dir', tmp_path / 'work']
    test_py = load_tool('test')
    with mock.patch('mmengine.config.config.FormatCode', lambda text, **_: (text, False)):
        assert test_py.main([str(item) for item in (config, tmp_path / 'random.pth', *outputs, *metrics, *options)]) == 0
    arguments = ['--preset', preset, '--pred', tmp_path / 'pred', '--config', config, '--out', tmp_path / 'saved.json']
    assert tool.main([str(item) for item in (*arguments, '--workers', '0', *metrics)]) == 0
    run, saved = (json.loads((tmp_path / f'{name}.json').read_text()) for name in ('run', 'saved'))
    assert expected <= set(run)
    # probabilities are not saved: depth does not need them, the classes of the images do
    other = {'source', *(() if options else (key for key in run if key.startswith(('img_', 'bev_'))))}
    assert {key: saved[key] for key in run if key not in other} == {key: run[key] for key in run if key not in other}
    assert other == {'source'} or saved['img_mIoU'] != run['img_mIoU']
    assert saved['frames'] == (2 if preset == 'sscbench-kitti360' else 4)
    assert run['precision'] > 0 and run.get('depth_L1', 1) > 0


def test_same_integers_as_a_test_run_on_sscbench(tool, tmp_path):
    config, drive = make_drive(tmp_path)
    cfg = Config.fromfile(config)
    expected = run_in_process(cfg, tmp_path / 'pred')
    out = tmp_path / 'metrics.json'
    common = ['--preset', 'sscbench-kitti360', '--config', str(config), '--out', str(out), '--workers', '0']
    assert tool.main([*common, '--pred', str(tmp_path / 'pred')]) == 0
    same_numbers(json.loads(out.read_text()), expected)
    # the same as raw .label files in the folders of SSCBench
    raw = np.zeros(19, dtype='<u2')
    for class_id in range(19):
        raw[class_id] = RAW_IDS[class_id][0]
    for path in (tmp_path / 'pred').glob('*.npz'):
        target = tmp_path / 'foreign' / drive / 'predictions' / f'{path.stem[-6:]}.label'
        target.parent.mkdir(parents=True, exist_ok=True)
        raw[np.load(path)['pred']].tofile(target)
    assert tool.main([*common, '--pred', str(tmp_path / 'foreign')]) == 0
    same_numbers(json.loads(out.read_text()), expected)


def full_size(tmp_path, preset, count=2):
    """Labels and predictions on the benchmark's own grid, without a config; predictions in the foreign key arr_0."""
    grid = get_benchmark(preset).grid
    rng = np.random.default_rng(3)
    for i in range(count):
        labels = np.full(grid.shape, grid.free_index, dtype=np.uint8)
        labels[:, :, :3] = rng.integers(0, grid.num_classes, (*grid.shape[:2], 3))
        pred = np.where(rng.random(grid.shape) < 0.1, grid.free_index, labels).astype(np.uint8)
        if preset == 'occ3d':
            mask = np.zeros(grid.shape, dtype=bool)
            mask[:100] = True
            write_occ3d_label(tmp_path / 'gt' / 'scene-0001' / f'token{i}' / 'labels.npz', labels, mask, mask)
            names = f'token{i}', f'scene-0001/token{i}/labels'
        else:
            write_surroundocc_label(tmp_path / 'gt' / f'n015__{i}.pcd.bin.npy', labels, grid)
            names = (f'n015__{i}.pcd.bin',) * 2
        path = tmp_path / 'pred' / f'{names[i % 2]}.npz'
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, pred)
    return ['--preset', preset, '--pred', str(tmp_path / 'pred'), '--gt', str(tmp_path / 'gt'), '--workers', '0']


@pytest.mark.parametrize('preset', ['occ3d', 'surroundocc'])
def test_folders_alone(tool, tmp_path, capsys, preset):
    arguments = full_size(tmp_path, preset)
    out = tmp_path / 'metrics.json'
    assert tool.main([*arguments, '--out', str(out)]) == 0
    written = json.loads(out.read_text())
    # one tenth of the occupied voxels was taken away
    assert written['recall'] == pytest.approx(0.9, abs=0.01) and written['precision'] == 1
    assert written['frames'] == 2 and written['left_out_labels'] == 0
    if preset == 'occ3d':
        origins = {f'token{i}': np.array([[0.94, 0.0, 1.84]]) for i in range(2)}
        write_ray_origins(tmp_path / 'origins.npz', origins)
        assert tool.main([*arguments, '--out', str(out), '--ray-iou', '--origins', str(tmp_path / 'origins.npz')]) == 0
        assert 0 < json.loads(out.read_text())['RayIoU'] < 1


def last_line(capsys):
    return capsys.readouterr().err.strip().split('\n')[-1]


def test_what_was_counted_missing_and_extra(tool, tmp_path, capsys):
    arguments = full_size(tmp_path, 'occ3d')
    grid = get_benchmark('occ3d').grid
    empty = np.full(grid.shape, 17, dtype=np.uint8)
    mask = np.ones(grid.shape, dtype=bool)
    for token in ('scene-0001/token8', 'scene-0001/token9', 'scene-0002/token7'):
        write_occ3d_label(tmp_path / 'gt' / token / 'labels.npz', empty, mask, mask)
    np.savez(tmp_path / 'pred' / 'unknown.npz', pred=empty)
    np.savez(tmp_path / 'pred' / 'token8.npz', pred=empty)
    assert tool.main(arguments) == 1
    streams = capsys.readouterr()
    assert '1 frames without a prediction: token9' in streams.out
    assert '1 predictions without a label, left out: unknown' in streams.out
    assert '1 more labels, of scenes without any prediction or without a known scene, are left out' in streams.out
    assert '1 of 4 frames have no prediction: token9; add --allow-missing' in streams.err
    out = tmp_path / 'm.json'
    with mock.patch('projects.occ.evaluation.occupancy_metric.print_log') as log:
        assert tool.main([*arguments, '--allow-missing', '--out', str(out)]) == 0
    report = ' '.join(str(call.args[0]) for call in log.call_args_list)
    for text in (
        'Occupancy of 3 frames',
        'preset occ3d | 18 classes, free 17 (free), ignore 255 | mask camera',
        'range (-40.0',
    ):
        assert text in report
    assert 'Not comparable with published numbers: 3 of 6019 val frames' in report
    assert '1 of 3 predictions hold one class alone: token8 (free)' in capsys.readouterr().out
    written = json.loads(out.read_text())
    assert written['missing_frames'] == ['token9'] and written['extra_predictions'] == ['unknown']
    assert written['single_class_frames'] == ['token8'] and written['left_out_labels'] == 1


def test_labels_without_scenes_that_have_no_prediction_are_counted(tool, tmp_path, capsys):
    arguments = full_size(tmp_path, 'surroundocc')
    (tmp_path / 'pred' / 'n015__1.pcd.bin.npz').unlink()
    assert tool.main([*arguments, '--out', str(tmp_path / 'm.json')]) == 0
    assert '1 more labels, of scenes without any prediction or without a known scene, are left out' in capsys.readouterr().out
    written = json.loads((tmp_path / 'm.json').read_text())
    assert written['frames'] == written['left_out_labels'] == 1 and written['missing_frames'] == []


def test_a_token_with_two_labels_does_not_count_twice(tool, tmp_path, capsys):
    arguments = full_size(tmp_path, 'occ3d')
    shutil.copytree(tmp_path / 'gt' / 'scene-0001' / 'token0', tmp_path / 'gt' / 'scene-0002' / 'token0')
    assert tool.main(arguments) == 1
    message = last_line(capsys)
    assert 'token0' in message and 'scene-0001' in message and 'scene-0002' in message


def test_labels_of_which_nothing_counts_are_an_error(tool, tmp_path, capsys):
    arguments = full_size(tmp_path, 'occ3d')
    grid = get_benchmark('occ3d').grid
    for path in (tmp_path / 'gt').rglob('labels.npz'):
        nowhere = np.zeros(grid.shape, dtype=bool)
        write_occ3d_label(path, np.load(path)['semantics'], nowhere, nowhere)
    assert tool.main([*arguments, '--out', str(tmp_path / 'm.json')]) == 1
    assert last_line(capsys).startswith('error: nothing was counted') and not (tmp_path / 'm.json').exists()

    # the label knows what the LiDAR saw, or nothing at all
    assert tool.main([*arguments, '--mask', 'none', '--out', str(tmp_path / 'm.json')]) == 0
    assert json.loads((tmp_path / 'm.json').read_text())['recall'] == pytest.approx(0.9, abs=0.01)


OWN = VoxelGrid((-4, -4, 0, 4, 4, 2), 1.0, (8, 8, 2), 'ego', 3, class_names=('road', 'car', 'person', 'free'))


def own_data(root, stored=True, ids=None):
    """Labels without masks and predictions of another vehicle, in 8 x 8 x 2 voxels."""
    rng = np.random.default_rng(2)
    for token in ('a', 'b', 'c'):
        labels = rng.integers(0, 4, OWN.shape).astype(np.uint8)
        (root / 'gt').mkdir(exist_ok=True)
        (root / 'pred').mkdir(exist_ok=True)
        np.savez(root / 'gt' / f'{token}.npz', semantics=labels)
        pred = labels.copy()
        pred[4:] = np.where(labels[4:] == 1, 2, labels[4:])  # ahead, cars are called persons
        pred = pred if ids is None else np.asarray(ids, dtype=np.uint8)[pred]
        np.savez(root / 'pred' / f'{token}.npz', pred=pred, **(OWN.to_arrays() if stored else {}))
    return ['--pred', str(root / 'pred'), '--gt', str(root / 'gt'), '--workers', '0', '--out', str(root / 'm.json')]


def written(root):
    return json.loads((root / 'm.json').read_text())


def test_data_of_ones_own_from_files_alone(tool, tmp_path, capsys):
    assert tool.main(own_data(tmp_path)) == 0
    result = written(tmp_path)
    assert result['frames'] == 3 and result['per_class']['road'] == 1 and 0.3 < result['per_class']['car'] < 0.7
    assert set(result['per_class']) == set(OWN.class_names)
    # without metadata something has to tell the grid
    arguments = own_data(tmp_path, stored=False)
    assert tool.main(arguments) == 1
    assert 'give --config FILE' in last_line(capsys)


def test_regions_classes_and_numbers_of_ones_own(tool, tmp_path, capsys):
    arguments = own_data(tmp_path)
    assert tool.main([*arguments, '--region', '-4', '-4', '0', '0', '4', '2']) == 0
    assert written(tmp_path)['mIoU'] == 1  # behind the vehicle all is right
    assert tool.main([*arguments, '--leave-out', 'car', '2']) == 0
    result = written(tmp_path)
    assert result['mIoU_kept'] == 1 > result['mIoU'] and 0 < result['per_class']['car'] < 1
    assert tool.main([*arguments, '--map', 'person=car', '--map-gt', '2=1']) == 0
    result = written(tmp_path)
    assert result['mIoU'] == 1 and result['source']['map'] == ['person=car']
    assert tool.main([*arguments, '--map-gt', 'car=ignore', '--absent', 'exclude']) == 0
    assert written(tmp_path)['mIoU'] == 1
    assert tool.main(own_data(tmp_path, ids=(10, 20, 30, 40)) + ['--map', '10=road', '20=1', '30=2', '40=free']) == 0
    assert written(tmp_path)['per_class']['road'] == 1
    for extra, message in (
        (['--leave-out', 'lorry'], "no class 'lorry'"),
        (['--map', 'car'], 'expects FROM=TO'),
        (['--map', 'car=ignore'], "no class 'ignore'"),
        (['--region', '9', '9', '9', '10', '10', '10'], 'holds no voxel centre'),
    ):
        assert tool.main([*arguments, *extra]) == 1
        assert message in last_line(capsys)


def test_data_of_ones_own_by_a_config(tool, tmp_path, monkeypatch, repo_root):
    config = tmp_path / 'config.py'
    arguments = own_data(tmp_path, stored=False)
    config.write_text(
        f'grid = dict(point_cloud_range={OWN.point_cloud_range}, voxel_size=1.0, shape={OWN.shape}, frame="ego", free_index=3, '
        f'class_names={OWN.class_names})\ntest_dataloader = dict(dataset=dict(type="OwnFrames", root={str(tmp_path)!r}, '
        'grid=grid))\n'
    )
    assert tool.main([*arguments, '--config', str(config)]) == 0
    assert written(tmp_path)['frames'] == 3 and 0.3 < written(tmp_path)['per_class']['car'] < 0.7


@DATASETS.register_module()
class OwnFrames(FrameDataset):
    def __init__(self, root, **kwargs):
        self.root = root
        super().__init__(**kwargs, lazy_init=False)

    def load_data_list(self):
        camera = CameraRecord('x.jpg', np.eye(3), np.eye(4), np.eye(4), np.eye(4))
        records = [
            FrameRecord(
                token, 0.0, lidar2ego=np.eye(4), ego2global=np.eye(4), cameras={'front': camera}, label_path=f'{token}.npz'
            )
            for token in 'abc'
        ]
        self.data_prefix = dict(img='', pts='', occ=f'{self.root}/gt')
        return self.list_frames(records, range(3))


def test_origins_without_the_frames_that_are_scored(tool, tmp_path, capsys):
    arguments = full_size(tmp_path, 'surroundocc', count=1)
    write_ray_origins(tmp_path / 'origins.npz', {'token': np.zeros((1, 3))}, 'lidar')
    assert tool.main([*arguments, '--ray-iou', '--origins', str(tmp_path / 'origins.npz')]) == 1
    message = last_line(capsys)
    assert 'has no origins for 1 of 1 frames: n015__0.pcd.bin; these labels are named after their LiDAR files' in message
    arguments = full_size(tmp_path / 'occ3d', 'occ3d', count=1)
    write_ray_origins(tmp_path / 'origins.npz', {'token': np.zeros((1, 3))})
    assert tool.main([*arguments, '--ray-iou', '--origins', str(tmp_path / 'origins.npz')]) == 1
    assert '1 of 1 frames: token0; make them from all frames of the split' in last_line(capsys)


def test_configs_that_do_not_fit(tool, tmp_path, capsys):
    for text, message in (
        ('a = (', "or a base of it is not valid Python: '(' was never closed"),
        ('model = dict()', 'has no test set with a voxel grid (test_dataloader.dataset.grid); give the config of an'),
        ('test_dataloader = None', 'has no test set with a voxel grid'),
        ('test_dataloader = dict(dataset=dict(type="SomeDataset"))', 'has no test set with a voxel grid'),
    ):
        (tmp_path / 'config.py').write_text(text)
        assert tool.main(['--preset', 'occ3d', '--pred', str(tmp_path), '--config', str(tmp_path / 'config.py')]) == 1
        line = last_line(capsys)
        assert line.startswith(f"error: config '{tmp_path / 'config.py'}' ") and message in line


def test_predictions_of_another_benchmark(tool, tmp_path, capsys):
    arguments = full_size(tmp_path, 'occ3d', count=1)
    np.savez(tmp_path / 'pred' / 'token0.npz', pred=np.zeros((200, 200, 16), np.uint8))
    assert tool.main(arguments) == 0
    assert "100 % of all voxels are class 0 ('others'), which is free space in surroundocc" in capsys.readouterr().out
    surround = get_benchmark('surroundocc').grid
    np.savez(tmp_path / 'pred' / 'token0.npz', pred=np.zeros((200, 200, 16), np.uint8), **surround.to_arrays())
    assert tool.main(arguments) == 1
    assert 'free_index 0 instead of 17' in last_line(capsys)
    np.savez(tmp_path / 'pred' / 'token0.npz', pred=np.full((200, 200, 16), 18, np.uint8))
    assert tool.main(arguments) == 1
    assert '18 is no class id' in last_line(capsys)
    np.savez(tmp_path / 'pred' / 'token0.npz', pred=np.zeros((256, 256, 32), np.uint8))
    # also from a worker process
    assert tool.main([*arguments[:-1], '1']) == 1
    assert 'has the shape (256, 256, 32), the grid (200, 200, 16)' in last_line(capsys)


def test_moved_axes_and_masks_are_told(tool, tmp_path, capsys):
    arguments = full_size(tmp_path, 'occ3d')
    path = tmp_path / 'pred' / 'token0.npz'
    labels = np.load(path)['arr_0']
    np.savez_compressed(path, labels[:, ::-1])
    other = next((tmp_path / 'pred').rglob('labels.npz'))
    np.savez_compressed(other, np.load(other)['arr_0'][:, ::-1])
    assert tool.main(arguments) == 0
    assert 'warning: with y flipped, 9' in capsys.readouterr().out
    for file in (path, other):
        np.savez_compressed(file, (labels != 17).astype(np.uint8))
    assert tool.main(arguments) == 0
    assert 'all predictions hold 0 and 1 alone' in capsys.readouterr().out
    np.savez_compressed(path, labels != 17)
    assert tool.main(arguments) == 1
    assert 'holds bool' in last_line(capsys)


def test_arguments_that_do_not_fit(tool, tmp_path, capsys):
    arguments = full_size(tmp_path, 'occ3d', count=1)
    for extra, message in (
        (['--ray-iou'], '--ray-iou needs the places where rays start: give --origins FILE, or --config'),
        (['--ray-profile'], '--ray-profile needs the places where rays start: give --origins FILE, or --config'),
        (['--origins', 'o.npz'], '--origins belongs to --ray-iou and --ray-profile, which are not given'),
        (['--image-reduction', '4'], '--image-reduction belongs to --image-metrics, which is not given'),
        (['--out', str(tmp_path)], f"--out '{tmp_path}' is a folder; name the file to write"),
        (['--image-metrics'], '--image-metrics needs the cameras of every frame: give --config'),
        (['--config', 'absent.py'], "config 'absent.py' does not exist"),
        (['--gt', str(tmp_path / 'none')], "none' does not exist"),
        (['--preset', 'surroundocc'], "no label of preset 'surroundocc' lies below"),
        (['--pred', str(tmp_path / 'gt' / 'scene-0001' / 'none')], "none' does not exist"),
    ):
        assert tool.main([*arguments, *extra]) == 1
        assert message in last_line(capsys)
    assert tool.main(arguments[:4]) == 1
    assert 'where are the labels? Give --gt DIR, or --config FILE' in last_line(capsys)
    os.rename(tmp_path / 'pred' / 'token0.npz', tmp_path / 'pred' / 'other.npz')
    assert tool.main(arguments) == 1
    assert 'none of the 1 predictions (such as other) is named like one of the 1 labels (such as token0)' in last_line(capsys)
