"""The shipped configs: what they contain, and training and prediction with the small ones on made-up samples."""

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from occ_batches import with_cameras

from projects.occ.structures import OccDataSample, VoxelGrid

FULL = 'configs/symphonies/symphonies_r50_4xb1-30e_sscbench-kitti360{}.py'
TINY = 'configs/debug/symphonies_tiny_synthetic-sscbench-kitti360{}.py'
IMAGE_WH = (176, 48)


def load(repo_root, path, suffix=''):
    return Config.fromfile(repo_root / path.format(suffix))


def meta_model(config):
    with torch.device('meta'):
        return MODELS.build(config)


def test_full_size(repo_root):
    cfg = load(repo_root, FULL)
    assert VoxelGrid.build(cfg.model.grid) == VoxelGrid.build(cfg.grid) == VoxelGrid.build(cfg.train_dataloader.dataset.grid)
    loss = cfg.model.occ_head.loss_occ
    assert loss.class_weights == cfg.class_weights and len(loss.class_weights) == 19
    model = meta_model(cfg.model)
    assert model.view_encoder.cells.shape == (128, 128, 8) and model.view_encoder.cells.plane_size == (1024, 128)
    assert model.occ_head.embed_dims == model.view_encoder.scene_embed.embedding_dim == 128
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        steps = {step.type: step for step in loader.dataset.pipeline}
        assert {'LoadDepthMaps', 'LoadVoxelProjections'} <= steps.keys()
        assert steps['LoadVoxelProjections'].voxel_scale == cfg.model.view_encoder.volume_scale
    steps = {step.type: step for step in cfg.train_dataloader.dataset.pipeline}
    assert steps['LoadVoxelProjections'].frustums == loss.frustums == model.occ_head.loss_occ.frustums
    assert not steps['RandomFlipScene'].flip_cameras and steps['RandomFlipScene'].prob == 0.5
    assert 'MultiViewPhotoMetricDistortion' not in steps


def test_class_weights_are_those_of_the_original(repo_root, golden_dir):
    theirs = torch.load(golden_dir / 'symphonies_small.pt', weights_only=True)['class_weights']
    torch.testing.assert_close(torch.tensor(load(repo_root, FULL).class_weights), theirs.float(), atol=1e-6, rtol=0)


def test_recipe(repo_root):
    cfg = load(repo_root, FULL)
    model = meta_model(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    assert wrapper.clip_grad_kwargs is None
    rates = {'img_backbone': set(), 'img_neck': set(), 'rest': set()}
    names = {id(p): name.split('.')[0] for name, p in model.named_parameters()}
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            place = names[id(parameter)]
            rates[place if place in rates else 'rest'].add((group['lr'], group['weight_decay'], group['eps']))
    assert rates['rest'] == {(2e-4, 1e-4, 1e-3)}
    for place in ('img_backbone', 'img_neck'):
        ((rate, *others),) = rates[place]
        assert rate == pytest.approx(2e-5) and others == [1e-4, 1e-3]
    assert cfg.train_cfg.max_epochs == 30 and cfg.sync_bn == 'torch' and cfg.auto_scale_lr.base_batch_size == 4
    assert [(step.type, step.milestones, step.gamma) for step in cfg.param_scheduler] == [('MultiStepLR', [25], 0.1)]
    assert cfg.train_dataloader.batch_size == 1


def test_rendering_adds_one_block_and_nothing_else(repo_root):
    base, rendered = load(repo_root, FULL), load(repo_root, FULL, '_gaussrender')
    aggregator = rendered.model.pop('aggregator')
    assert aggregator.gaussians.feat_channels == rendered.model.occ_head.embed_dims
    assert rendered.model.to_dict() == base.model.to_dict()
    block = MODELS.build(aggregator, default_args=dict(grid=base.grid))
    assert block.gaussians.gaussian_scale == pytest.approx(0.1)
    model = meta_model(base.model)
    count = sum(p.numel() for p in block.parameters())
    assert sum(p.numel() for p in model.parameters()) + count == 59346809
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) + count == 58571513


def samples(grid, batch_size=2):
    """Images in the colours of a street, flat ground and a wall in depth and label."""
    width, height = IMAGE_WH
    cam2img = np.float32([[69, 0, 85.3], [0, 69, 29.8], [0, 0, 1]])
    padded = np.eye(4, dtype=np.float32)
    padded[:3, :3] = cam2img
    packed, images, depths = [], [], []
    for index in range(batch_size):
        ref2cam = np.float32([[0, -1, 0, 0], [0, 0, -1, 0.1], [1, 0, 0, 0.3 * index], [0, 0, 0, 1]])
        wall = 40 - 8 * index
        label = torch.zeros(grid.shape, dtype=torch.uint8)
        label[..., 0] = 7
        label[wall:, :, :6] = 11
        label[:2] = 255
        rows = torch.arange(height, dtype=torch.float32).view(-1, 1).expand(height, width)
        ground = 69 * 1.8 / (rows - 29.8).clamp(min=1e-3)
        distance = wall * grid.voxel_size[0]
        depths.append(ground.clamp(max=distance).unsqueeze(0))
        image = torch.full((1, 3, height, width), 90, dtype=torch.uint8)
        image[:, 0, depths[-1][0] >= distance] = 200
        images.append(image)
        sample = OccDataSample(gt_occ=label)
        sizes = np.float32([IMAGE_WH])
        cameras = dict(ref2cam=ref2cam, cam2img=cam2img, ref2img=padded @ ref2cam)
        sample.set_metainfo({key: value[None] for key, value in cameras.items()})
        sample.set_metainfo(dict(img_wh=sizes, ori_img_wh=sizes, token=f'{index}', img_shape=(height, width)))
        packed.append(sample)
    return with_cameras(dict(inputs=dict(img=images, depth=depths), data_samples=packed))


def test_small_model_learns_from_a_batch_of_two(repo_root):
    cfg = load(repo_root, TINY)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    data = model.data_preprocessor(samples(VoxelGrid.build(cfg.grid)), training=True)
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    totals = []
    for _ in range(4):
        losses = model(data['inputs'], data['data_samples'], mode='loss')
        assert set(losses) == {f'loss_occ_{t}_{s}' for t in ('ce', 'sem_scal', 'geo_scal', 'frustum') for s in range(3)}
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(float(total.detach()))
    assert totals[-1] < 0.9 * totals[0]
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    model.eval()
    predictions = model(data['inputs'], data['data_samples'], mode='predict')
    assert predictions[1].pred_occ.shape == model.grid.shape and predictions[1].pred_occ.dtype == torch.uint8


def test_rendering_changes_the_training_but_no_prediction(repo_root):
    cfg, rendered_cfg = load(repo_root, TINY), load(repo_root, TINY, '_gaussrender')
    base, rendered = MODELS.build(cfg.model), MODELS.build(rendered_cfg.model)
    missing, unexpected = rendered.load_state_dict(base.state_dict(), strict=False)
    assert not unexpected and missing and all(key.startswith('aggregator.') for key in missing)
    data = base.data_preprocessor(samples(VoxelGrid.build(cfg.grid), 1), training=False)
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


def test_without_depth_maps(repo_root):
    cfg = load(repo_root, TINY)
    model = MODELS.build(cfg.model).eval()
    batch = samples(VoxelGrid.build(cfg.grid), 1)
    del batch['inputs']['depth']
    data = model.data_preprocessor(batch)
    with pytest.raises(ValueError, match='Symphonies needs a depth map of every image, for prediction too: put LoadDepthMaps'):
        model(data['inputs'], data['data_samples'], mode='predict')
