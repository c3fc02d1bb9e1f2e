"""The shipped configs: what they contain, and training and prediction with the small ones on made-up samples."""

import ast
import math

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from occ_batches import with_cameras

from projects.occ.structures import OccDataSample, VoxelGrid

NAMES = ('occ3d-nus', 'surroundocc-nus')
FOLDER = 'configs/surroundocc'
TINY = 'configs/debug/surroundocc_tiny_synthetic-{}.py'


def load(repo_root, name):
    return Config.fromfile(repo_root / FOLDER / f'surroundocc_r101-dcn_{name}.py')


@pytest.mark.parametrize('name', NAMES)
def test_model_takes_geometry_and_weights_from_the_dataset(repo_root, name):
    cfg = load(repo_root, f'8xb1-20e_{name}')
    grid = VoxelGrid.build(cfg.grid)
    assert VoxelGrid.build(cfg.model.grid) == grid == VoxelGrid.build(cfg.train_dataloader.dataset.grid)
    weights = cfg.model.occ_head.loss_occ.class_weights
    assert len(weights) == grid.num_classes and weights[grid.free_index] == 0.5
    for key in ('scales', 'embed_dims'):
        assert cfg.model.view_encoder[key] == cfg.model.occ_head[key]
    assert cfg.train_cfg.max_epochs == 20 and cfg.optim_wrapper.clip_grad.max_norm == 35
    assert cfg.optim_wrapper.optimizer.weight_decay == 1e-4
    assert 'projects.surroundocc' in cfg.custom_imports.imports and 'aggregator' not in cfg.model


@pytest.mark.parametrize('name', NAMES)
def test_rendering_adds_one_block_and_nothing_else(repo_root, name):
    base, rendered = load(repo_root, f'8xb1-20e_{name}'), load(repo_root, f'8xb1-20e_{name}_gaussrender')
    aggregator = rendered.model.pop('aggregator')
    assert aggregator.gaussians.feat_channels == rendered.model.occ_head.channels[-1] == 32
    assert aggregator.gaussians.gaussian_scale == dict(zip(NAMES, (0.27, 0.25)))[name]
    assert rendered.model.to_dict() == base.model.to_dict()
    for key in ('train_dataloader', 'val_evaluator', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'custom_imports'):
        assert rendered[key] == base[key]


def test_recipe_of_the_authors(repo_root):
    cfg = load(repo_root, 'authors_8xb1-24e_surroundocc-nus')
    loss = cfg.model.occ_head.loss_occ
    assert (loss.ce_weight, loss.lovasz_weight, loss.sem_scal_weight, loss.geo_scal_weight) == (1, 0, 1, 1)
    assert loss.label_reduction == 'sparse_last' and 'class_weights' not in loss
    assert cfg.train_cfg.max_epochs == 24 and cfg.optim_wrapper.optimizer.weight_decay == 0.01
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        steps = [step.type for step in loader.dataset.pipeline]
        assert 'ResizeCropFlipImages' not in steps and steps[-1] == 'PackOccInputs'
    binary = load(repo_root, 'binary_8xb1-24e_surroundocc-nus')
    assert binary.model.occ_head.loss_occ.binary and not binary.model.occ_head.use_semantic
    assert binary.default_hooks.checkpoint.save_best == 'occ/IoU'


def test_kitti360_children_take_geometry_and_weights_from_the_dataset(repo_root):
    for suffix in ('', '_gaussrender'):
        cfg = load(repo_root, f'8xb1-20e_sscbench-kitti360{suffix}')
        assert cfg.model.grid == cfg.grid == cfg.train_dataloader.dataset.grid
        assert cfg.model.data_preprocessor.pad_size_divisor == 1
        with torch.device('meta'):
            aggregator = cfg.model.pop('aggregator', None)
            model = MODELS.build(cfg.model)
        assert model.view_encoder.num_cams == 1 and model.view_encoder.cells == [(128, 128, 16), (64, 64, 8), (32, 32, 4)]
        assert cfg.model.occ_head.loss_occ.class_weights == cfg.class_weights and len(cfg.class_weights) == 19
        size = sum(p.numel() for p in model.parameters() if p.requires_grad)
        if aggregator:
            decoder = MODELS.build(aggregator, default_args=dict(grid=cfg.grid))
            size += sum(p.numel() for p in decoder.parameters())
            assert decoder.gaussians.gaussian_scale == pytest.approx(0.1)
        assert size == (210678412 if aggregator else 210675310)


def test_class_weights_of_nuscenes_are_the_published_ones(repo_root):
    # barrier, bicycle, ..., vegetation
    classes = [1.06897009, 1.30013094, 1.07253735, 0.94637502, 1.10087012, 1.26960524, 1.06258364, 1.189019]
    classes += [1.06217292, 1.00595144, 0.85706115, 1.03923299, 0.90867526, 0.8936431, 0.85486129, 0.8527829]
    assert load(repo_root, '8xb1-20e_surroundocc-nus').class_weights == [0.5, *classes]
    assert load(repo_root, '8xb1-20e_occ3d-nus').class_weights == [1.01552756, *classes, 0.5]


def test_headers_say_where_they_depart(repo_root):
    paths = sorted((repo_root / FOLDER).glob('*.py'))
    assert len(paths) >= 8
    for path in paths:
        header = ast.get_docstring(ast.parse(path.read_text()))
        assert 'Departures' in header and ('mIoU' in header or 'IoU' in header), path.name


def small_model(repo_root, name):
    cfg = Config.fromfile(repo_root / TINY.format(name))
    return MODELS.build(cfg.model), VoxelGrid.build(cfg.grid)


def samples(grid, batch_size=2):
    """Images of 100 x 60 pixels (padded to 112 x 64) from six cameras around the car; the label follows the brightness."""
    packed = []
    for index in range(batch_size):
        ref2cam = []
        for camera in range(6):
            c, s = math.cos(camera * math.pi / 3), math.sin(camera * math.pi / 3)
            ref2cam.append([[s, -c, 0, 0], [0, 0, -1, 1.0], [c, s, 0, 0], [0, 0, 0, 1]])
        ref2cam = np.float32(ref2cam)
        intrinsics = np.float32([[60, 0, 50], [0, 60, 30], [0, 0, 1]])
        padded = np.eye(4, dtype=np.float32)
        padded[:3, :3] = intrinsics
        label = torch.full(grid.shape, grid.free_index, dtype=torch.uint8)
        label[:, :, :2] = 11
        label[10 + index : 14, 20:24, 2:4] = 4
        label[0, 0, 5] = 255
        sample = OccDataSample(gt_occ=label)
        sizes = np.tile(np.float32([100, 60]), (6, 1))
        sample.set_metainfo(
            dict(
                ref2img=padded @ ref2cam,
                img_wh=sizes,
                ref2cam=ref2cam,
                cam2img=np.tile(intrinsics, (6, 1, 1)),
                ori_img_wh=sizes,
                token=f'{index}',
                img_shape=(60, 100),
            )
        )
        packed.append(sample)
    images = [torch.randint(0, 256, (6, 3, 60, 100), dtype=torch.uint8) for _ in packed]
    return with_cameras(dict(inputs=dict(img=images), data_samples=packed))


@pytest.mark.parametrize('name', ['occ3d', 'surroundocc'])
def test_small_model_learns_from_a_batch_of_two(repo_root, name):
    model, grid = small_model(repo_root, name)
    model.init_weights()
    data = model.data_preprocessor(samples(grid), training=True)
    assert data['inputs'].images.shape == (2, 6, 3, 64, 112)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    totals = []
    for _ in range(8):
        losses = model(data['inputs'], data['data_samples'], mode='loss')
        assert set(losses) == {f'loss_occ_{t}_{s}' for t in ('ce', 'lovasz') for s in range(4)}
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.5 * totals[0]
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model.eval()
    predictions = model(data['inputs'], data['data_samples'], mode='predict')
    assert predictions[1].pred_occ.shape == grid.shape and predictions[1].pred_occ.dtype == torch.uint8


def test_mixed_precision_with_the_losses_of_the_authors(repo_root):
    cfg = Config.fromfile(repo_root / TINY.format('surroundocc'))
    cfg.model.occ_head.loss_occ.update(
        class_weights=None, ce_weight=1, lovasz_weight=0, sem_scal_weight=1, geo_scal_weight=1, label_reduction='sparse_last'
    )
    cfg.model.view_encoder.with_cp = cfg.model.occ_head.with_cp = True
    model = MODELS.build(cfg.model)
    model.init_weights()
    data = model.data_preprocessor(samples(VoxelGrid.build(cfg.grid)), training=True)
    full = sum(model.eval()(data['inputs'], data['data_samples'], mode='loss').values())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model(data['inputs'], data['data_samples'], mode='loss')
    assert all(value.dtype == torch.float32 for value in losses.values())
    assert sum(losses.values()).item() == pytest.approx(full.item(), rel=0.02)
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.requires_grad)


def test_rendering_changes_the_training_but_no_prediction(repo_root):
    base, grid = small_model(repo_root, 'surroundocc')
    rendered, _ = small_model(repo_root, 'surroundocc_gaussrender')
    base.init_weights()
    missing, unexpected = rendered.load_state_dict(base.state_dict(), strict=False)
    assert not unexpected and all(key.startswith('aggregator.') for key in missing) and missing
    data = base.data_preprocessor(samples(grid), training=False)
    base.eval(), rendered.eval()
    labels = [
        torch.stack([s.pred_occ.clone() for s in model(data['inputs'], data['data_samples'], mode='predict')])
        for model in (base, rendered)
    ]
    assert torch.equal(*labels)
    losses = rendered(data['inputs'], data['data_samples'], mode='loss')
    plain = base(data['inputs'], data['data_samples'], mode='loss')
    assert {key for key in losses if key not in plain} == {
        f'loss_render_{view}_{what}' for view in ('cam', 'bev') for what in ('sem', 'depth')
    }
    for key, value in plain.items():
        torch.testing.assert_close(losses[key], value)
    sum(losses.values()).backward()
    decoder = [p for name, p in rendered.named_parameters() if name.startswith('aggregator.')]
    assert decoder and all(p.grad is not None and torch.isfinite(p.grad).all() for p in decoder)
