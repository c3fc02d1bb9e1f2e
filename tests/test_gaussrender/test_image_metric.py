"""RenderedImageMetric: against the renderer's own images, perfect and empty predictions, log and errors."""

import json
import logging

import numpy as np
import pytest
import torch
from mmdet3d.registry import METRICS
from mmengine.logging import MMLogger

from projects.gaussrender import GaussRender
from projects.gaussrender.image_metric import RenderedImageMetric
from projects.occ.evaluation.functional import summarize_confusion, voxel_confusion

BEV = dict(size=16)


@pytest.fixture
def samples(cameras, labels, logits):
    return [
        dict(
            token=f'frame-{b}',
            gt_occ=labels[b].to(torch.uint8),
            pred_occ=logits[b].argmax(0).to(torch.uint8),
            ref2cam=cameras.ref2cam[b].numpy(),
            cam2img=cameras.K[b].numpy(),
            ori_img_wh=np.full((2, 2), (20, 14), dtype=np.float32),
        )
        for b in range(2)
    ]


def evaluate(grid, batches, **kwargs):
    metric = METRICS.build(dict(type='RenderedImageMetric', grid=grid, bev=BEV, **kwargs))
    for batch in batches:
        metric.process({}, batch)
    return metric.evaluate(sum(map(len, batches)))


def test_equals_counts_of_the_rendered_images(grid, samples, cameras, labels, logits):
    render = GaussRender(grid, gaussians=dict(gaussian_scale=0.3), bev=BEV)
    with torch.no_grad():
        target = render.render_labels(labels, cameras)
        # one-hot logits: probabilities 0 and 1
        hard = 1e4 * torch.nn.functional.one_hot(logits.argmax(1), 4).movedim(-1, 1).float()
        guesses = {
            'labels': render.render(hard, cameras, labels=labels, hard_opacity=True),
            'logits': render.render(logits, cameras, labels=labels, hard_opacity=True),
        }
    results = {
        'labels': evaluate(grid, [samples], gaussian_scale=0.3),
        'logits': evaluate(grid, [[dict(s, pred_logits=x) for s, x in zip(samples, logits, strict=True)]], gaussian_scale=0.3),
    }
    for kind, guess in guesses.items():
        result = results[kind]
        for prefix in ('cam', 'bev'):
            ids = [getattr(scene, f'{prefix}_sem').argmax(-1).numpy() for scene in (guess, target)]
            expected = summarize_confusion(voxel_confusion(*ids, 4, ignore_index=None), 3)
            name = {'cam': 'img', 'bev': 'bev'}[prefix]
            assert result[f'occ/{name}_mIoU'] == pytest.approx(expected['mIoU'], abs=2e-3), kind
            assert result[f'occ/{name}_IoU'] == pytest.approx(expected['IoU'], abs=2e-3), kind
            assert 0 < result[f'occ/{name}_mIoU'] < 1
        seen = target.cam_depth > 0.1
        error = (guess.cam_depth - target.cam_depth)[seen].abs().double().mean()
        assert result['occ/depth_L1'] == pytest.approx(float(error), rel=1e-5) and error > 0.05
    assert results['labels']['occ/depth_L1'] == pytest.approx(results['logits']['occ/depth_L1'], rel=1e-6)
    assert results['labels']['occ/img_mIoU'] != results['logits']['occ/img_mIoU']


def test_batches_do_not_matter(grid, samples):
    together, apart = evaluate(grid, [samples]), evaluate(grid, [samples[:1], samples[1:]])
    assert together == apart
    json.dumps(together, allow_nan=False)
    assert sorted(together) == sorted(
        f'occ/{key}' for key in ('img_mIoU', 'img_IoU', 'img_per_class', 'bev_mIoU', 'bev_IoU', 'bev_per_class', 'depth_L1')
    )


def test_perfect_and_empty_predictions(grid, samples, labels):
    ignored = labels == 255
    perfect = [
        dict(s, pred_occ=torch.where(i, torch.tensor(1), g).to(torch.uint8))
        for s, g, i in zip(samples, labels, ignored, strict=True)
    ]
    result = evaluate(grid, [perfect])
    # what is predicted in ignored voxels does not show
    assert result['occ/img_mIoU'] == result['occ/bev_IoU'] == 1 and result['occ/depth_L1'] == 0
    empty = [dict(s, pred_occ=torch.full((8, 8, 4), 3, dtype=torch.uint8)) for s in samples]
    result = evaluate(grid, [empty])
    assert result['occ/img_mIoU'] == result['occ/img_IoU'] == result['occ/bev_mIoU'] == 0
    assert result['occ/depth_L1'] > 0.5


@pytest.mark.parametrize('kind', [np.int8, np.uint16, bool])
def test_predictions_of_any_integer_type(grid, samples, kind):
    """The ignored label does not exist in the type of the prediction."""
    pred = (samples[0]['pred_occ'] > 1).numpy()
    one, other = (evaluate(grid, [[dict(samples[0], pred_occ=array)]]) for array in (pred.astype(np.int64), pred.astype(kind)))
    assert one == other


def test_without_birds_eye_and_reduced(grid, samples):
    metric = RenderedImageMetric(grid, with_bev=False, reduction=2)
    metric.process({}, samples)
    assert metric.results[0]['camera'].sum() == 2 * 10 * 7
    result = metric.evaluate(2)
    assert 'occ/bev_mIoU' not in result and 0 < result['occ/img_mIoU'] < 1


@pytest.fixture
def log(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_log_names_what_was_counted(grid, samples, log):
    result = evaluate(grid, [samples], gaussian_scale=0.3)
    for text in (
        f'Rendered images of 2 frames, {2 * 2 * 20 * 14} camera pixels',
        'Gaussians of 0.3 m | images reduced by 1',
        f'img_mIoU {100 * result["occ/img_mIoU"]:.2f}',
        f'depth_L1 {result["occ/depth_L1"]:.3f} m',
        'prediction painted with class ids: not comparable with published 2D numbers',
    ):
        assert text in log.text


def test_log_names_what_was_painted(grid, samples, logits, log):
    painted = [dict(sample, pred_logits=scores) for sample, scores in zip(samples, logits, strict=True)]
    evaluate(grid, [painted])
    assert 'prediction painted with class probabilities' in log.text and 'class ids' not in log.text
    log.clear()
    # one sample without is enough
    evaluate(grid, [[painted[0], samples[1]]])
    assert 'prediction painted with class ids: not comparable' in log.text


@pytest.mark.parametrize('kind', [torch.Tensor.half, torch.Tensor.double, torch.Tensor.numpy])
def test_what_is_opaque_is_decided_by_the_prediction(grid, samples, logits, kind):
    """Models may call voxels free, or occupied, against the largest logit: opacity_threshold, thresholds of heads."""
    bottom = torch.zeros(8, 8, 4, dtype=torch.bool)
    bottom[:, :, 0] = True
    preds = [torch.where(bottom, 1, 3).to(torch.uint8) for _ in samples]
    shown = [dict(sample, pred_occ=pred) for sample, pred in zip(samples, preds, strict=True)]
    ids = evaluate(grid, [shown])
    painted = [dict(sample, pred_logits=kind(scores)) for sample, scores in zip(shown, logits, strict=True)]
    probabilities = evaluate(grid, [painted])
    assert probabilities['occ/depth_L1'] == pytest.approx(ids['occ/depth_L1'], rel=1e-6)
    assert probabilities['occ/img_mIoU'] != ids['occ/img_mIoU']


def test_errors(grid, samples):
    metric = RenderedImageMetric(grid)
    for key, text in (
        ('pred_occ', "sample frame-0 has no 'pred_occ': the model must write it in predict"),
        ('cam2img', "sample frame-0 has no 'cam2img', which rendering needs"),
    ):
        with pytest.raises(ValueError, match=text):
            metric.process({}, [{k: v for k, v in samples[0].items() if k != key}])
    volume = samples[0]['pred_occ']
    for pred, text in (
        (volume.float(), r'pred_occ of sample frame-0: expected integer class ids of shape \(8, 8, 4\), got torch.float32'),
        (volume[:1], r'expected integer class ids of shape \(8, 8, 4\), got torch.uint8 \(1, 8, 4\)'),
        (volume[None], r'got torch.uint8 \(1, 8, 8, 4\)'),
        (torch.full_like(volume, 4), 'pred_occ of sample frame-0: class id 4 is outside 0..3'),
        (torch.full_like(volume, 255), 'pred_occ of sample frame-0: holds ignore_index 255, which labels alone may'),
    ):
        with pytest.raises(ValueError, match=text):
            metric.process({}, [dict(samples[0], pred_occ=pred)])
    with pytest.raises(ValueError, match='no sample to score'):
        metric.compute_metrics([])
    with pytest.raises(ValueError, match="absent must be one of .*got 'drop'"):
        RenderedImageMetric(grid, absent='drop')
    with pytest.raises(ValueError, match='reduction must be at least 1, got 0.5'):
        RenderedImageMetric(grid, reduction=0.5)
