"""The shipped configs: what they contain, how the rate runs, and one shrunk training step and prediction."""

import ast
import math

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from occ_batches import with_cameras
from torch import nn

from projects.occ.structures import OccDataSample, VoxelGrid

NAMES = ('occ3d-nus', 'surroundocc-nus')


def config_path(repo_root, name):
    return repo_root / f'configs/tpvformer/tpvformer_r101-dcn_8xb1-20e_{name}.py'


@pytest.mark.parametrize('name', NAMES)
def test_model_takes_geometry_and_weights_from_the_dataset(repo_root, name):
    cfg = Config.fromfile(config_path(repo_root, name))
    grid = VoxelGrid.build(cfg.grid)
    assert VoxelGrid.build(cfg.model.grid) == grid == VoxelGrid.build(cfg.train_dataloader.dataset.grid)
    weights = cfg.model.occ_head.loss_occ.class_weights
    assert len(weights) == grid.num_classes and weights[grid.free_index] == 0.5
    assert cfg.model.view_encoder.scale == cfg.model.occ_head.scale
    assert cfg.train_cfg.max_epochs == 20 and cfg.optim_wrapper.clip_grad.max_norm == 35
    assert 'aggregator' not in cfg.model


@pytest.mark.parametrize('name', NAMES)
def test_rendering_adds_one_block_and_nothing_else(repo_root, name):
    base = Config.fromfile(config_path(repo_root, name))
    rendered = Config.fromfile(config_path(repo_root, f'{name}_gaussrender'))
    aggregator = rendered.model.pop('aggregator')
    assert aggregator.gaussians.feat_channels == rendered.model.occ_head.out_dims
    assert aggregator.gaussians.gaussian_scale == dict(zip(NAMES, (0.27, 0.25)))[name]
    assert rendered.model.to_dict() == base.model.to_dict()
    for key in ('train_dataloader', 'val_evaluator', 'optim_wrapper', 'param_scheduler', 'train_cfg'):
        assert rendered[key] == base[key]


@pytest.mark.parametrize('name', [f'{n}{s}' for n in NAMES for s in ('', '_gaussrender')])
def test_header_says_where_it_departs(repo_root, name):
    header = ast.get_docstring(ast.parse(config_path(repo_root, name).read_text()))
    assert 'Departures' in header and 'mIoU' in header


@pytest.fixture(scope='module')
def schedule(repo_root):
    return Config.fromfile(repo_root / 'configs/_base_/schedules/adamw_20e.py')


def test_rate_over_the_training(schedule):
    model = nn.ModuleDict(dict(img_backbone=nn.Linear(1, 1), occ_head=nn.Linear(1, 1)))
    wrapper = build_optim_wrapper(model, schedule.optim_wrapper)
    epoch_length = 60
    schedulers = []
    for options in map(dict, schedule.param_scheduler):
        cls = PARAM_SCHEDULERS.get(options.pop('type'))
        if options.pop('convert_to_iter_based', False):
            schedulers.append(cls.build_iter_from_epoch(optimizer=wrapper, epoch_length=epoch_length, **options))
        else:
            schedulers.append(cls(optimizer=wrapper, **options))
    steps = 20 * epoch_length
    rates = []
    for _ in range(steps):
        rates.append(sorted({group['lr'] for group in wrapper.param_groups}))
        wrapper.step()
        for scheduler in schedulers:
            scheduler.step()
    rates = np.array(rates)
    assert rates.shape == (steps, 2)
    np.testing.assert_allclose(rates[:, 0], 0.1 * rates[:, 1], rtol=1e-6)
    rate = rates[:, 1]
    assert rate[0] == pytest.approx(2e-4 / 3) and (np.diff(rate[:300]) > 0).all()
    for step in (500, 700, 1000, steps - 1):
        expected = 2e-7 + (2e-4 - 2e-7) * (1 + math.cos(math.pi * step / steps)) / 2
        assert rate[step] == pytest.approx(expected, rel=1e-3)
    assert {group['weight_decay'] for group in wrapper.param_groups} == {1e-4}


def shrunk_config(repo_root, name):
    cfg = Config.fromfile(config_path(repo_root, name))
    model = cfg.model
    lower, upper = cfg.grid.point_cloud_range[:3], cfg.grid.point_cloud_range[3:]
    model.grid.shape = [20, 20, 8]
    model.grid.voxel_size = [(hi - lo) / n for lo, hi, n in zip(lower, upper, model.grid.shape)]
    model.img_backbone.update(
        depth=18, base_channels=8, stem_channels=8, style='pytorch', dcn=None, stage_with_dcn=(False,) * 4
    )
    model.img_neck.update(in_channels=[16, 32, 64], out_channels=16)
    model.view_encoder.update(
        embed_dims=16, num_layers=1, num_anchors=(2, 4, 4), ffn=dict(feedforward_channels=32, ffn_drop=0.1)
    )
    model.view_encoder.cross_attn.num_points = (2, 4, 4)
    model.occ_head.update(in_dims=16, hidden_dims=32, out_dims=16)
    return cfg


def batch(grid, num_classes, batch_size=2):
    """Grey images of 60 x 90 pixels (padded to 64 x 96) from six cameras around the ego vehicle."""
    samples = []
    for _ in range(batch_size):
        views = []
        for i in range(6):
            angle = torch.tensor(i * math.pi / 3)
            c, s = angle.cos(), angle.sin()
            ref2cam = torch.tensor([[s, -c, 0, 0], [0, 0, -1, 1.5], [c, s, 0, 0], [0, 0, 0, 1]])
            views.append(torch.tensor([[60.0, 0, 45, 0], [0, 60, 30, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ ref2cam)
        sample = OccDataSample(gt_occ=torch.randint(0, num_classes, tuple(grid.shape)).to(torch.uint8))
        sample.set_metainfo(
            dict(
                ref2img=torch.stack(views).numpy(), img_wh=np.tile(np.float32([90, 60]), (6, 1)), token='t', img_shape=(60, 90)
            )
        )
        samples.append(sample)
    images = [torch.randint(0, 256, (6, 3, 60, 90), dtype=torch.uint8) for _ in range(batch_size)]
    return with_cameras(dict(inputs=dict(img=images), data_samples=samples))


@pytest.mark.parametrize('name', NAMES)
def test_shrunk_model_learns_from_a_batch_of_two(repo_root, name):
    cfg = shrunk_config(repo_root, name)
    model = MODELS.build(cfg.model)
    model.init_weights()
    data = model.data_preprocessor(batch(cfg.model.grid, len(cfg.grid.class_names)), training=True)
    assert data['inputs'].images.shape == (2, 6, 3, 64, 96)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3)
    totals = []
    for _ in range(8):
        losses = model(data['inputs'], data['data_samples'], mode='loss')
        assert set(losses) == {'loss_occ_ce_0', 'loss_occ_lovasz_0'}
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < totals[0]
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model.eval()
    predictions = model(data['inputs'], data['data_samples'], mode='predict')
    assert predictions[1].pred_occ.shape == (20, 20, 8) and predictions[1].pred_occ.dtype == torch.uint8
