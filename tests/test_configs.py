"""The matrix: every family on the benchmarks that its released code knows, with and without GaussRender.

A cell is a full config, listed in ``model-index.yml``, and a small child under ``configs/debug`` that trains on generated
frames. Every child is trained for 20 iterations and tested here, by the tools.
"""

import ast
import copy
import importlib.util
import json
import math
import re
import uuid
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
import torch
import yaml
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner

from projects.occ.engine.config_options import apply_cfg_options
from projects.occ.structures import VoxelGrid

ROOT = Path(__file__).resolve().parents[1]
# benchmark -> format of the generated frames
FORMATS = {'occ3d-nus': 'occ3d', 'surroundocc-nus': 'surroundocc', 'sscbench-kitti360': 'sscbench-kitti360'}
FULL = {
    'tpvformer': 'tpvformer_r101-dcn_8xb1-20e_{}.py',
    'surroundocc': 'surroundocc_r101-dcn_8xb1-20e_{}.py',
    'symphonies': 'symphonies_r50_4xb1-30e_{}.py',
    'bevdet': 'bevdet_r50-4d-stereo_8xb4-24e_{}.py',
}
CELLS = (
    ('tpvformer', 'occ3d-nus'),
    ('tpvformer', 'surroundocc-nus'),
    ('tpvformer', 'sscbench-kitti360'),
    ('surroundocc', 'occ3d-nus'),
    ('surroundocc', 'surroundocc-nus'),
    ('surroundocc', 'sscbench-kitti360'),
    ('symphonies', 'sscbench-kitti360'),
    ('bevdet', 'occ3d-nus'),
)
RENDERED = {f'loss_render_{view}_{what}' for view in ('cam', 'bev') for what in ('sem', 'depth')}
ITERATIONS = 20
# of the generated frames: six cameras, one camera
IMAGE_WH = {'both': (96, 48), 'sscbench-kitti360': (176, 48)}

every_cell = pytest.mark.parametrize(('family', 'benchmark'), CELLS)
with_and_without = pytest.mark.parametrize('suffix', ['', '_gaussrender'], ids=['baseline', 'gaussrender'])


def full_path(family: str, benchmark: str, suffix: str = '') -> Path:
    """The config of a cell."""
    return ROOT / 'configs' / family / FULL[family].format(benchmark + suffix)


def small_path(family: str, benchmark: str, suffix: str = '') -> Path:
    """Its child for generated frames."""
    return ROOT / 'configs' / 'debug' / f'{family}_tiny_synthetic-{FORMATS[benchmark]}{suffix}.py'


@cache
def load(path: Path) -> Config:
    """A config, read once; not to be changed."""
    return Config.fromfile(path)


@cache
def parameter_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of everything in the checkpoint of a config, without memory for the network."""
    model = load(path).model.to_dict()
    aggregator = model.pop('aggregator', None)
    with torch.device('meta'):
        network = MODELS.build(model)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    if aggregator:
        block = MODELS.build(aggregator, default_args=dict(grid=network.grid))
        shapes.update({f'aggregator.{name}': tuple(value.shape) for name, value in block.state_dict().items()})
    return shapes


@every_cell
@with_and_without
def test_full_config_says_where_it_departs_and_builds(family, benchmark, suffix):
    path = full_path(family, benchmark, suffix)
    header = ast.get_docstring(ast.parse(path.read_text()))
    assert 'Departures' in header and 'mIoU' in header
    cfg = load(path)
    grid = VoxelGrid.build(cfg.model.grid)
    for part in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset, cfg.test_dataloader.dataset, cfg.val_evaluator):
        part = part[0] if isinstance(part, list) else part
        assert VoxelGrid.build(part.grid) == grid
    assert len(parameter_shapes(path)) > 300


@every_cell
def test_without_the_block_it_is_the_baseline(family, benchmark):
    paths = [full_path(family, benchmark, suffix) for suffix in ('', '_gaussrender')]
    baseline, rendered = (load(path).to_dict() for path in paths)
    assert 'aggregator' not in baseline['model']
    assert rendered['model'].pop('aggregator')['type'] == 'GaussRenderAggregator'
    assert rendered['model'] == baseline['model']
    for key in ('train_dataloader', 'test_dataloader', 'test_evaluator', 'optim_wrapper', 'param_scheduler', 'train_cfg'):
        assert rendered[key] == baseline[key], key
    names, more = (parameter_shapes(path) for path in paths)
    assert names == {name: shape for name, shape in more.items() if not name.startswith('aggregator.')}
    assert len(more) > len(names)


@every_cell
@with_and_without
def test_small_child_is_of_the_same_kind(family, benchmark, suffix):
    full, small = (load(path(family, benchmark, suffix)) for path in (full_path, small_path))
    for part in ('view_encoder', 'occ_head'):
        assert small.model[part].type == full.model[part].type
    assert small.train_dataloader.dataset.type == full.train_dataloader.dataset.type
    for key in ('frame', 'free_index', 'ignore_index', 'class_names'):
        assert small.grid[key] == full.grid[key]
    if suffix:
        assert small.model.aggregator.cameras == full.model.aggregator.cameras


def listed_models() -> list[dict]:
    """Entries of all metafiles that the index imports."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    return [model for path in index['Import'] for model in yaml.safe_load((ROOT / path).read_text())['Models']]


def test_the_index_lists_every_config_once():
    listed = [model['Config'] for model in listed_models()]
    families = (*FULL, 'renderocc', 'uniocc')
    existing = sorted(str(path.relative_to(ROOT)) for family in families for path in (ROOT / 'configs' / family).glob('*.py'))
    assert sorted(listed) == existing
    assert {str(full_path(*cell, suffix).relative_to(ROOT)) for cell in CELLS for suffix in ('', '_gaussrender')} <= set(listed)


def test_the_index_agrees_with_configs_and_readmes():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    collections = [c for path in index['Import'] for c in yaml.safe_load((ROOT / path).read_text())['Collections']]
    readmes = {c['Name']: (ROOT / c['README']).read_text() for c in collections}
    assert all((ROOT / c['Code']['URL']).is_dir() for c in collections)
    for model in listed_models():
        path = Path(model['Config'])
        assert model['Name'] == path.stem
        assert path.name in readmes[model['In Collection']], f'{path.name} is missing in the README of its family'
        assert f'{model["Metadata"]["Epochs"]}e_' in path.stem
        gpus, batch = re.search(r'_(\d+)xb(\d+)-', path.stem).groups()
        assert model['Metadata']['Batch Size'] == int(gpus) * int(batch)
        for result in model.get('Results', []):
            assert {'IoU', 'mIoU', 'RayIoU'} >= set(result['Metrics'])


@pytest.fixture(scope='session')
def tool():
    """Loads a script of ``tools/`` by name; by path, because ``test`` is also a package of Python."""

    @cache
    def load_tool(name: str):
        spec = importlib.util.spec_from_file_location(f'matrix_{name}', ROOT / 'tools' / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load_tool


def data_set(kind: str) -> str:
    """What to generate for a format: one data set serves both formats of nuScenes."""
    return 'both' if kind in ('occ3d', 'surroundocc') else kind


@pytest.fixture(scope='module')
def frames(tool, tmp_path_factory):
    """Folder of generated frames of a format, two to train and two held out, made when first asked for."""
    folder = tmp_path_factory.mktemp('frames')
    scenes = ['--preset', 'tiny', '--scenes-train', '1', '--scenes-val', '1', '--frames', '2']

    @cache
    def make(kind: str) -> Path:
        size = 'x'.join(map(str, IMAGE_WH[kind]))
        arguments = ['--format', kind, *scenes, '--image-size', size, '--out', str(folder / kind)]
        assert tool('create_data').main(['synthetic', *arguments]) == 0
        return folder / kind

    return lambda kind: make(data_set(kind))


def overrides(cfg: Config, data: Path, iterations: int = ITERATIONS) -> list[str]:
    """Command-line options that train a small config on a few frames only."""
    options = {
        'train_cfg.max_epochs': None,
        'train_cfg.max_iters': iterations,
        'train_cfg.val_interval': iterations,
        'train_dataloader.batch_size': 1,
        'default_hooks.checkpoint.by_epoch': False,
        'default_hooks.checkpoint.interval': iterations,
        'default_hooks.checkpoint.save_best': None,
        'default_hooks.logger.interval': 1,
        'log_processor.by_epoch': False,
        'log_level': 'ERROR',
        # several runs in one process
        'experiment_name': uuid.uuid4().hex,
        'visualizer.name': uuid.uuid4().hex,
    }
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        options[f'{split}_dataloader.dataset.data_root'] = f'{data}/'
        steps = [step.type for step in dataset.pipeline]
        if 'ResizeCropFlipImages' in steps:
            at = f'{split}_dataloader.dataset.pipeline.{steps.index("ResizeCropFlipImages")}'
            options[f'{at}.final_wh'] = '[{},{}]'.format(*IMAGE_WH[data.name])
    return ['--allow-new-keys', '--cfg-options', *(f'{key}={value}' for key, value in options.items())]


def rows_of(work_dir: Path) -> list[dict]:
    """The log of a training: rows of iterations, and of the validation."""
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in log.read_text().splitlines()]


def train_and_test(path: Path, data: Path, tool, folder: Path, iterations: int = ITERATIONS) -> tuple[list[dict], dict]:
    """Trains a config and tests its checkpoint with the tools: logged rows, metrics."""
    # laying out the dumped config nicely takes long
    with mock.patch('mmengine.config.config.FormatCode', lambda text, **_: (text, False)):
        options = overrides(load(path), data, iterations)
        assert tool('train').main([str(path), '--work-dir', str(folder / 'train'), *options]) == 0
        arguments = [
            str(path),
            str(folder / 'train' / f'iter_{iterations}.pth'),
            '--metrics-json',
            str(folder / 'metrics.json'),
        ]
        options = overrides(load(path), data, iterations)
        assert tool('test').main([*arguments, '--work-dir', str(folder / 'test'), *options]) == 0
    return rows_of(folder / 'train'), json.loads((folder / 'metrics.json').read_text())


def losses_of(rows: list[dict], suffix: str, iterations: int = ITERATIONS) -> dict[str, list[float]]:
    """Loss terms of every iteration, checked: finite, and rendered ones exactly if the config renders."""
    rows = [row for row in rows if 'loss' in row]
    assert [row['step'] for row in rows] == list(range(1, iterations + 1))
    assert all(math.isfinite(value) for row in rows for value in row.values())
    terms = {name for name in rows[0] if name.startswith('loss_')}
    assert terms & RENDERED == (RENDERED if suffix else set()) and terms - RENDERED
    return {name: [row[name] for row in rows] for name in terms}


@every_cell
@with_and_without
def test_every_cell_trains_and_is_tested(family, benchmark, suffix, tool, frames, tmp_path):
    path = small_path(family, benchmark, suffix)
    rows, metrics = train_and_test(path, frames(FORMATS[benchmark]), tool, tmp_path)
    # two frames are soon learnt, each is in both parts; the terms are those that both configs of a cell have
    learnt = [values for name, values in losses_of(rows, suffix).items() if name not in RENDERED]
    assert sum(sum(values[-4:]) for values in learnt) < 0.95 * sum(sum(values[:4]) for values in learnt)
    assert 0 <= metrics['mIoU'] <= 1 and 0 <= metrics['IoU'] <= 1
    if load(path).val_dataloader == load(path).test_dataloader:
        (validated,) = (row for row in rows if 'occ/mIoU' in row)
        assert [metrics[key] for key in ('mIoU', 'IoU')] == pytest.approx([validated[f'occ/{key}'] for key in ('mIoU', 'IoU')])


@pytest.mark.parametrize('suffix', ['', '_gaussrender'])
def test_a_model_of_ones_own_trains_by_config(suffix, tool, frames, tmp_path):
    path = ROOT / f'projects/example_model/configs/voxel-network_synthetic-occ3d{suffix}.py'
    rows, metrics = train_and_test(path, frames('occ3d'), tool, tmp_path, iterations=4)
    losses_of(rows, suffix, iterations=4)
    assert 0 <= metrics['mIoU'] <= 1


RAY_LOSSES = {'loss_ray_depth', 'loss_ray_sem'}
RAY_REGULARIZERS = {'loss_ray_entropy', 'loss_ray_distortion'}
# small configs with rays -> format of the generated frames and the terms that they train
WITH_RAYS = {
    'renderocc_tiny_synthetic-occ3d': ('occ3d', {*RAY_LOSSES, *RAY_REGULARIZERS, 'loss_lss_depth'}),
    'renderocc-2d3d_tiny_synthetic-occ3d': (
        'occ3d',
        {*RAY_LOSSES, *RAY_REGULARIZERS, 'loss_lss_depth', 'loss_occ_geo_0', 'loss_occ_sem_0'},
    ),
    'uniocc_tiny_synthetic-occ3d': ('occ3d', {*RAY_LOSSES, 'loss_lss_depth', 'loss_occ_ce_0'}),
    'tpvformer_tiny_synthetic-occ3d_renderocc': ('occ3d', {*RAY_LOSSES, *RAY_REGULARIZERS}),
    'tpvformer_tiny_synthetic-occ3d_rays-splat': ('occ3d', {*RAY_LOSSES, 'loss_ray_entropy'}),
    'tpvformer_tiny_synthetic-occ3d_uniocc': ('occ3d', {*RAY_LOSSES, 'loss_occ_ce_0', 'loss_occ_lovasz_0'}),
    'tpvformer_tiny_synthetic-occ3d_gaussrender-march': ('occ3d', {*RENDERED, 'loss_occ_ce_0', 'loss_occ_lovasz_0'}),
    'surroundocc_tiny_synthetic-surroundocc_renderocc': ('surroundocc', {*RAY_LOSSES, *RAY_REGULARIZERS}),
    'symphonies_tiny_synthetic-sscbench-kitti360_renderocc': ('sscbench-kitti360', {*RAY_LOSSES, *RAY_REGULARIZERS}),
}


@pytest.mark.parametrize('name', list(WITH_RAYS))
def test_rays_train_every_host(name, tool, frames, tmp_path):
    kind, expected = WITH_RAYS[name]
    rows, metrics = train_and_test(ROOT / 'configs' / 'debug' / f'{name}.py', frames(kind), tool, tmp_path)
    rows = [row for row in rows if 'loss' in row]
    assert len(rows) == ITERATIONS and all(math.isfinite(value) for row in rows for value in row.values())
    assert {key for key in rows[0] if key.startswith('loss_')} == expected
    learnt = [name for name in expected if name not in RAY_REGULARIZERS]
    total = [sum(row[name] for name in learnt) for row in rows]
    assert sum(total[-4:]) < sum(total[:4])
    assert 0 <= metrics['mIoU'] <= 1


def test_interrupted_training_with_rays_goes_on_as_if_it_had_not_been(tool, frames, tmp_path):
    """The rays drawn after resuming, and so the losses, are those of an uninterrupted training."""
    path = ROOT / 'configs' / 'debug' / 'tpvformer_tiny_synthetic-occ3d_renderocc.py'

    def train(folder, *flags):
        options = overrides(load(path), frames('occ3d'), 6)
        options += ['randomness.seed=0', 'default_hooks.checkpoint.interval=3']
        with mock.patch('mmengine.config.config.FormatCode', lambda text, **_: (text, False)):
            assert tool('train').main([str(path), '--work-dir', str(tmp_path / folder), *flags, *options]) == 0

    def losses(folder):
        logs = sorted((tmp_path / folder).glob('*/vis_data/scalars.json'))
        rows = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
        return {row['step']: [row['loss'], row['loss_ray_depth'], row['loss_ray_sem']] for row in rows if 'loss' in row}

    train('whole')
    train('rest', '--resume', str(tmp_path / 'whole' / 'iter_3.pth'))
    whole, rest = losses('whole'), losses('rest')
    assert set(whole) == set(range(1, 7)) and rest == {step: whole[step] for step in (4, 5, 6)}


FULL_WITH_RAYS = sorted(path for family in ('renderocc', 'uniocc') for path in (ROOT / 'configs' / family).glob('*.py'))


@pytest.mark.parametrize('path', FULL_WITH_RAYS, ids=lambda path: path.stem)
def test_full_configs_with_rays(path):
    """They say where they depart, their parts fit each other, and what they train is trained by rays of the data set."""
    header = ast.get_docstring(ast.parse(path.read_text()))
    assert 'Departures' in header and 'mIoU' in header
    cfg = load(path)
    aggregator = MODELS.build(cfg.model.aggregator, default_args=dict(grid=cfg.model.grid))
    assert set(aggregator.terms) >= RAY_LOSSES and not list(aggregator.parameters())
    steps = [step.type for step in cfg.train_dataloader.dataset.pipeline]
    assert 'LoadLidarRays' in steps and 0 in cfg.train_dataloader.dataset.lidar_frames
    # without voxel labels nothing loads them, and with them something does
    labels = {'LoadOccLabels', 'LoadSSCBenchLabels'} & set(steps)
    assert bool(labels) == (cfg.model.occ_head.get('loss_occ') is not None)
    grid = VoxelGrid.build(cfg.model.grid)
    for part in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset, cfg.val_evaluator):
        part = part[0] if isinstance(part, list) else part
        assert VoxelGrid.build(part.grid) == grid
    options = cfg.model.aggregator.terms.loss_ray_sem.options
    assert len(options.class_counts or grid.class_names) == grid.num_classes


DECODER = 'model.aggregator.gaussians.{}=True'
# what README.md and docs/configs.md offer as overrides, and every switch of the Gaussians
DOCUMENTED = [
    'model.aggregator=None',
    'model.aggregator.loss.bev_sem=0 model.aggregator.loss.bev_depth=0',
    'model.aggregator.loss.cam_sem=0 model.aggregator.loss.cam_depth=0',
    'model.aggregator.loss.cam_depth=0 model.aggregator.loss.bev_depth=0',
    'model.aggregator.loss.cam_sem=0 model.aggregator.loss.bev_sem=0',
    'model.aggregator.loss.mask_elems=True',
    'model.aggregator.loss.kl_loss=True',
    'model.aggregator.gaussians.feat_channels=None',
    'model.aggregator.gaussians.with_cp=True model.occ_head.with_cp=True model.view_encoder.with_cp=True',
    'model.aggregator.gaussians.transfer_colors=False',
    'model.aggregator.gaussians.overwrite_scales=False',
    *map(DECODER.format, ('transfer_opacity', 'overwrite_opacity', 'mask_elements', 'overwrite_rotations')),
    'model.occ_head.loss_occ=None',
    'model.occ_head.loss_occ=None model.aggregator.gaussians.transfer_opacity=True',
    'model.occ_head.loss_occ.lovasz_weight=0',
]


@pytest.mark.parametrize('family', list(FULL))
def test_every_parameter_learns_under_every_documented_override(family, tool, frames, subtests):
    """A trainable parameter without gradient ends a distributed training at its second iteration."""
    benchmark = next(benchmark for name, benchmark in CELLS if name == family)
    path, data = small_path(family, benchmark, '_gaussrender'), frames(FORMATS[benchmark])
    batch = None
    # the switches of the aggregator once, what concerns the network for each
    for documented in DOCUMENTED if family == 'tpvformer' else [text for text in DOCUMENTED if '.aggregator.' not in text]:
        args = tool('train').parse_args([str(path), *overrides(load(path), data, 1)])
        cfg = copy.deepcopy(load(path))
        apply_cfg_options(cfg, args.cfg_options, allow_new_keys=True)
        options = tool('train').parse_args([str(path), '--cfg-options', *documented.split()]).cfg_options
        apply_cfg_options(cfg, options)
        with subtests.test(documented):
            if batch is None:
                batch = next(iter(Runner.build_dataloader(cfg.train_dataloader)))
            model = MODELS.build(cfg.model)
            model.init_weights()
            losses, _ = model.parse_losses(model(**model.data_preprocessor(copy.deepcopy(batch), training=True), mode='loss'))
            losses.backward()
            idle = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
            assert not idle
