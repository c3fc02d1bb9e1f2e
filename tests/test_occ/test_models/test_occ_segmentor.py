"""Tests of the segmentor frame and the data preprocessor with toy parts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from mmcv.ops import ModulatedDeformConv2dPack
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from occ_batches import with_cameras
from torch import nn

from projects.occ.models import BaseOccHead, OccDataPreprocessor
from projects.occ.structures import OccDataSample, OccField, OccPrediction

GRID = dict(
    point_cloud_range=[0, 0, 0, 4, 4, 2],
    voxel_size=1.0,
    shape=[4, 4, 2],
    frame='ego',
    free_index=2,
    class_names=['a', 'b', 'free'],
)


@MODELS.register_module()
class ToyBackbone(BaseModule):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x):
        return (self.conv(x),)


@MODELS.register_module()
class ToyDeformableBackbone(BaseModule):
    def __init__(self):
        super().__init__()
        self.conv = ModulatedDeformConv2dPack(3, 4, 3, 2, 1)

    def forward(self, x):
        return (self.conv(x),)


@MODELS.register_module()
class ToyViewEncoder(BaseModule):
    def __init__(self, grid):
        super().__init__()
        self.grid = grid

    def forward(self, img_feats, batch):
        self.batch = batch
        return img_feats[0].mean((1, 3, 4))


@MODELS.register_module()
class ToyOccHead(BaseOccHead):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.linear = nn.Linear(4, self.grid.num_classes * self.grid.num_voxels)

    def forward(self, scene):
        logits = self.linear(scene).view(len(scene), self.grid.num_classes, *self.grid.shape)
        return OccPrediction([logits], logits)


@MODELS.register_module()
class ToyAggregator(BaseModule):
    def __init__(self, grid):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.grid = grid

    def loss(self, prediction, batch):
        return dict(loss_render_toy=self.weight * prediction.voxel_feats.pow(2).mean())

    def field(self, prediction):
        logits = prediction.logits[-1]
        opacity = torch.ones(len(logits), *logits.shape[2:])
        opacity[:, 0] = 0
        return OccField(self.grid, opacity, logits, torch.zeros(3))


def config(**overrides):
    cfg = dict(
        type='OccSegmentor',
        grid=GRID,
        data_preprocessor=dict(type='OccDataPreprocessor', mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 2.0], pad_size_divisor=4),
        img_backbone=dict(type='ToyBackbone'),
        view_encoder=dict(type='ToyViewEncoder'),
        occ_head=dict(type='ToyOccHead', loss_occ=dict(type='OccupancyLoss')),
    )
    cfg.update(overrides)
    return cfg


def make_sample(cameras=2, label=True):
    sample = OccDataSample(
        metainfo=dict(
            ref2img=np.tile(np.eye(4, dtype=np.float32), (cameras, 1, 1)),
            img_wh=np.full((cameras, 2), 6, np.float32),
            token='t0',
        )
    )
    if label:
        sample.gt_occ = torch.randint(0, 3, (4, 4, 2), dtype=torch.uint8)
    return sample


def make_batch(size=2, cameras=2, **kwargs):
    imgs = [torch.randint(0, 255, (cameras, 3, 6, 7), dtype=torch.uint8) for _ in range(size)]
    return with_cameras(dict(inputs=dict(img=imgs), data_samples=[make_sample(cameras, **kwargs) for _ in range(size)]))


def test_preprocessor_normalises_pads_and_stacks():
    batch = make_batch()
    out = OccDataPreprocessor(mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 2.0], pad_size_divisor=4)(batch)
    imgs = out['inputs'].images
    assert imgs.shape == (2, 2, 3, 8, 8) and imgs.dtype == torch.float32
    raw = batch['inputs']['img'][1][0].float()
    torch.testing.assert_close(
        imgs[1, 0, :, :6, :7], (raw - torch.tensor([1.0, 2, 3])[:, None, None]) / torch.tensor([1.0, 1, 2])[:, None, None]
    )
    assert (imgs[..., 6:, :] == 0).all() and (imgs[..., 7:] == 0).all()


def test_preprocessor_masks_in_training_only():
    preprocessor = OccDataPreprocessor(mean=[0.0] * 3, std=[1.0] * 3, grid_mask=dict(type='OccGridMask', prob=1.0))
    images = [torch.full((2, 3, 40, 40), 7, dtype=torch.uint8)]
    batch = with_cameras(dict(inputs=dict(img=images), data_samples=[make_sample()]))
    assert (preprocessor(batch, training=False)['inputs'].images == 7).all()
    assert (preprocessor(batch, training=True)['inputs'].images == 0).any()


def test_preprocessor_refuses_mixed_camera_counts():
    batch = make_batch(1, 2)
    other = make_batch(1, 3)
    for key in ('img', 'cameras', 'img_wh'):
        batch['inputs'][key] += other['inputs'][key]
    batch['data_samples'] += other['data_samples']
    with pytest.raises(ValueError, match='same number of cameras'):
        OccDataPreprocessor(mean=[0.0] * 3, std=[1.0] * 3)(batch)


def test_loss_and_predict():
    model = MODELS.build(config())
    data = model.data_preprocessor(make_batch(), training=True)
    losses = model(**data, mode='loss')
    assert set(losses) == {'loss_occ_ce_0', 'loss_occ_lovasz_0'}
    batch = model.view_encoder.batch
    assert batch.cameras.ref2img.shape == (2, 2, 4, 4) and batch.input_wh == (8, 8) and (batch.image_sizes == 6).all()
    assert batch.labels.dtype == torch.int64 and batch.cameras.ref2cam.dtype == torch.float32 and batch.tokens == ['t0', 't0']
    logits = model(**data, mode='tensor')
    samples = model(**data, mode='predict')
    assert samples[1].pred_occ.dtype == torch.uint8
    assert torch.equal(samples[1].pred_occ.long(), logits[1].argmax(0))
    assert 'pred_logits' not in samples[1]


def test_logits_are_kept_if_asked_for():
    model = MODELS.build(config(keep_logits=True))
    data = model.data_preprocessor(make_batch())
    samples = model(**data, mode='predict')
    logits = model(**data, mode='tensor')
    assert all(torch.equal(sample.pred_logits, scores) for sample, scores in zip(samples, logits, strict=True))
    free = model.grid.free_index
    for sample, scores in zip(samples, logits, strict=True):
        torch.testing.assert_close(sample.pred_opacity, 1 - scores.softmax(0)[free])


def test_opacity_follows_from_a_density_where_there_is_one():
    model = MODELS.build(config())
    density = torch.tensor([-20.0, 0.0, 40.0]).view(1, 3, 1, 1)
    found = model.occ_head.predict_opacity(OccPrediction([torch.zeros(1, model.grid.num_classes, 3, 1, 1)], density=density))
    # zero is DVGO's opacity of one millionth
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 1e-6, 1.0]), atol=1e-8, rtol=1e-3)


def test_mixed_precision_spares_deformable_convolutions_on_a_cpu():
    model = MODELS.build(config(img_backbone=dict(type='ToyDeformableBackbone')))
    data = model.data_preprocessor(make_batch())
    exact = model.extract_feat(data['inputs'].images)[0]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(model.extract_feat(data['inputs'].images)[0], exact)
        assert model(**data, mode='tensor').dtype == torch.bfloat16


def test_the_head_has_its_own_rule_for_labels(monkeypatch):
    model = MODELS.build(config())
    monkeypatch.setattr(model.occ_head, 'classify', lambda prediction: prediction.logits[-1].argmin(1))
    data = model.data_preprocessor(make_batch())
    labels = model(**data, mode='predict')[0].pred_occ
    assert torch.equal(labels.long(), model(**data, mode='tensor')[0].argmin(0))


def test_aggregator_is_a_guest():
    plain = MODELS.build(config())
    guest = MODELS.build(config(aggregator=dict(type='ToyAggregator')))
    assert set(guest.state_dict()) - set(plain.state_dict()) == {'aggregator.weight'}
    assert set(plain.state_dict()) < set(guest.state_dict())
    losses = guest(**guest.data_preprocessor(make_batch()), mode='loss')
    assert set(losses) == {'loss_occ_ce_0', 'loss_occ_lovasz_0', 'loss_render_toy'}


def test_rendering_only_training_and_the_opacity_threshold():
    model = MODELS.build(config(occ_head=dict(type='ToyOccHead'), aggregator=dict(type='ToyAggregator'), opacity_threshold=0.1))
    data = model.data_preprocessor(make_batch())
    assert set(model(**data, mode='loss')) == {'loss_render_toy'}
    predicted = model(**data, mode='predict')[0].pred_occ
    assert (predicted[0] == 2).all() and torch.equal(predicted[1:].long(), model(**data, mode='tensor')[0].argmax(0)[1:])


def test_config_errors():
    with pytest.raises(ValueError, match='nothing supervises this model'):
        MODELS.build(config(occ_head=dict(type='ToyOccHead')))
    with pytest.raises(ValueError, match='needs model.aggregator'):
        MODELS.build(config(opacity_threshold=0.1))


def test_sample_errors():
    model = MODELS.build(config())
    with pytest.raises(ValueError, match="t0.* has no 'gt_occ'.*LoadOccLabels"):
        model(**model.data_preprocessor(make_batch(label=False)), mode='loss')
    masked = MODELS.build(config(occ_head=dict(type='ToyOccHead', loss_occ=dict(type='OccupancyLoss', mask='camera'))))
    with pytest.raises(ValueError, match="'mask_camera'.*loss_occ.mask"):
        masked(**masked.data_preprocessor(make_batch()), mode='loss')
    batch = make_batch(1)
    batch['inputs']['cameras'] = make_batch(1, cameras=3)['inputs']['cameras']
    with pytest.raises(ValueError, match='t0 has 2 images but cameras of 1 x 3 views'):
        model.data_preprocessor(batch)
    batch = make_batch(1)
    del batch['inputs']['cameras']
    with pytest.raises(ValueError, match="t0.*'cameras'.*PackOccInputs"):
        model.data_preprocessor(batch)
    batch = make_batch(1)
    batch['data_samples'][0].gt_occ[0, 0, 0] = 9
    with pytest.raises(ValueError, match='gt_occ of sample t0: class id 9'):
        model.data_preprocessor(batch)


def test_skew_is_refused_only_where_something_is_rendered():
    batch = make_batch(1)
    batch['inputs']['cameras'][0].K[..., 0, 1] = 0.5
    MODELS.build(config()).data_preprocessor(batch)
    with pytest.raises(ValueError, match='sample t0: .*skew'):
        MODELS.build(config(aggregator=dict(type='ToyAggregator'))).data_preprocessor(batch)


def test_masks_reach_the_loss():
    batch = make_batch(1)
    sample = batch['data_samples'][0]
    sample.mask_camera = torch.rand(4, 4, 2) > 0.5
    sample.mask_lidar = torch.rand(4, 4, 2) > 0.5
    model = MODELS.build(config(occ_head=dict(type='ToyOccHead', loss_occ=dict(type='OccupancyLoss', mask='both'))))
    data = model.data_preprocessor(batch)
    got = model(**data, mode='loss')
    seen = sample.mask_camera & sample.mask_lidar
    expected = model.occ_head.loss_occ.compute([model(**data, mode='tensor')], sample.gt_occ[None].long(), seen[None])
    for key in expected:
        torch.testing.assert_close(got[key], expected[key])


def test_view_encoders_get_depths_and_projections_where_the_data_have_them():
    model = MODELS.build(config())
    batch = make_batch(2)
    model(**model.data_preprocessor(batch), mode='tensor')
    assert model.view_encoder.batch.depths is None and model.view_encoder.batch.voxel_pixels is None
    batch['inputs']['depth'] = [torch.rand(2, 6, 7) for _ in range(2)]
    batch['inputs']['voxel_pixels'] = [torch.full((2, 5, 2), index) for index in range(2)]
    batch['inputs']['voxel_visible'] = [torch.ones(2, 5, dtype=torch.bool) for _ in range(2)]
    model(**model.data_preprocessor(batch), mode='tensor')
    seen = model.view_encoder.batch
    assert seen.depths.shape == (2, 2, 8, 8) and torch.equal(seen.depths[1, :, :6, :7], batch['inputs']['depth'][1])
    assert seen.voxel_pixels.shape == (2, 2, 5, 2) and (seen.voxel_pixels[1] == 1).all()
    assert seen.voxel_visible.dtype == torch.bool


def test_view_encoders_see_the_key_frame_unless_they_ask_for_more():
    model = MODELS.build(config())
    batch = make_batch(2, cameras=4)
    batch['inputs']['cameras'] = [replace(item, frame=torch.tensor([0, 0, -1, 1])) for item in batch['inputs']['cameras']]
    data = model.data_preprocessor(batch)
    alone = make_batch(2, cameras=2)
    alone['inputs']['img'] = [image[:2] for image in batch['inputs']['img']]
    torch.testing.assert_close(
        model(**data, mode='tensor'), model(**model.data_preprocessor(alone), mode='tensor'), rtol=0, atol=0
    )
    assert model.view_encoder.batch.images.shape[1] == 2
    model.view_encoder.uses_all_frames = True
    model(**data, mode='tensor')
    assert model.view_encoder.batch.images.shape[1] == 4


def test_raw_predictions_for_tools():
    model = MODELS.build(config()).eval()
    data = make_batch()
    prediction, batch, samples = model.predict_raw(data)
    assert torch.equal(samples[1].pred_occ.long(), prediction.logits[-1][1].argmax(0))
    assert batch.batch_size == 2 and not prediction.logits[-1].requires_grad
