"""The whole network, its losses and its evaluation against the original implementation, stage by stage."""

import copy
import json

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.registry import init_default_scope
from occ_batches import batch_of
from surroundocc_official_config import model_config_from_official

from projects.occ.evaluation.functional import summarize_confusion, voxel_confusion
from projects.occ.models.layers import project_points
from projects.surroundocc.checkpoint import to_project
from projects.surroundocc.volumes import to_queries

ATOL = 1e-4
LOSS_RTOL = 1e-4
GRAD_RTOL = 1e-3
LEVELS = range(3)


@pytest.fixture(scope='module')
def case(golden_dir):
    return torch.load(golden_dir / 'surroundocc_small.pt', weights_only=True)


@pytest.fixture(scope='module')
def model(case):
    init_default_scope('mmdet3d')
    torch.set_num_threads(1)
    model = MODELS.build(model_config_from_official(json.loads(case['config_json'])['model']))
    model.load_state_dict(to_project.state_dict(case['state_dict'], 'authors'), strict=True)
    return model.eval()


@pytest.fixture(scope='module')
def cameras(case):
    height, width = case['inputs']['img_shape'][:2]
    ref2img = case['inputs']['lidar2img']
    sizes = torch.tensor([width, height], dtype=torch.float32).expand(*ref2img.shape[:2], 2)
    return dict(ref2img=ref2img, img_wh=sizes, input_wh=(width, height))


@pytest.fixture(scope='module')
def taps(model, case, cameras):
    """Outputs of the modules of interest during one forward pass without gradients."""
    seen = {}

    def keep(name):
        return lambda module, args, output: seen.setdefault(name, output)

    encoder, head = model.view_encoder, model.occ_head
    watched = dict(backbone_feats=model.img_backbone, fpn_feats=model.img_neck)
    for level in LEVELS:
        layer = encoder.transformer[level].encoder.layers[0]
        watched[f'transfer_feat_{level}'] = encoder.transfer_conv[level]
        watched[f'sca_layer0_{level}'] = layer.attentions[0]
        watched[f'occlayer0_{level}'] = layer
    for index in range(len(head.deblocks)):
        watched[f'deblock_{index}'] = head.deblocks[index]
    handles = [module.register_forward_hook(keep(name)) for name, module in watched.items()]
    with torch.no_grad():
        feats = model.extract_feat(case['inputs']['img'])
        scene = encoder(feats, batch_of(cameras))
        prediction = head(scene)
    for handle in handles:
        handle.remove()
    seen['fpn_feats'] = feats
    seen.update({f'volume_embed_{level}': to_queries(volume) for level, volume in enumerate(scene)})
    seen['prediction'] = prediction
    return seen


def assert_close(ours, theirs, atol=ATOL):
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


def test_every_tap_is_met(taps, case):
    compared = 0
    for name, theirs in case['taps'].items():
        if name.startswith('ref_'):
            continue
        pairs = zip(taps[name], theirs, strict=True) if isinstance(theirs, (list, tuple)) else [(taps[name], theirs)]
        for a, b in pairs:
            assert_close(a, b)
            compared += 1
    assert compared >= 6 + 4 * len(LEVELS) + 5


def test_inputs_stay_as_they_are(model, case, cameras):
    imgs = case['inputs']['img']
    before = imgs.clone()
    with torch.no_grad():
        model.view_encoder(model.extract_feat(imgs), batch_of(cameras))
    assert imgs.shape == before.shape and torch.equal(imgs, before)


@pytest.mark.parametrize('level', LEVELS)
def test_projection(model, case, cameras, level):
    centers = model.view_encoder.transformer[level].encoder.centers
    positions, visible = project_points(centers, cameras['ref2img'], cameras['img_wh'], cameras['input_wh'])
    theirs, mask = (case['taps'][f'ref_{what}_{level}'].squeeze(3).transpose(0, 1) for what in ('cam', 'mask'))
    mask = mask.reshape(visible.shape)
    assert torch.equal(visible, mask) and 0 < mask.float().mean() < 1
    assert_close(positions[mask], theirs.reshape(positions.shape)[mask], atol=1e-5)


@torch.no_grad()
def test_logits(model, taps, case):
    logits = taps['prediction'].logits
    for ours, theirs in zip(logits, case['occ_preds'], strict=True):
        assert_close(ours, theirs)
    assert torch.equal(logits[-1].argmax(1), case['pred_labels'].long())
    # the features for the aggregator are those in front of the last classifier
    weight = model.occ_head.occ[-1].weight[:, :, 0, 0, 0]
    assert_close(torch.einsum('kc,bcxyz->bkxyz', weight, taps['prediction'].voxel_feats), logits[-1])


def scale_losses(losses):
    """Sum of the terms of every scale, coarse to fine."""
    scales = sorted({int(key.rsplit('_', 1)[1]) for key in losses}, reverse=True)
    return [sum(value for key, value in losses.items() if key.endswith(f'_{scale}')) for scale in scales]


def loss_and_gradients(model, imgs, cameras, labels):
    model.zero_grad(set_to_none=True)
    prediction = model.occ_head(model.view_encoder(model.extract_feat(imgs), batch_of(cameras)))
    losses = model.occ_head.loss_occ.compute(prediction.logits, labels)
    sum(losses.values()).backward()
    return losses, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture(scope='module')
def step(model, case, cameras):
    return loss_and_gradients(model, case['inputs']['img'], cameras, case['inputs']['gt_dense'].long())


def test_losses(step, case):
    ours = scale_losses(step[0])
    for value, theirs in zip(ours, case['losses'].values(), strict=True):
        assert value.item() == pytest.approx(float(theirs), rel=LOSS_RTOL)
    assert sum(ours).item() == pytest.approx(float(case['loss_total']), rel=LOSS_RTOL)
    for level, parts in case['loss_components'].items():
        scale = len(ours) - 1 - int(level)
        for name, theirs in dict(ce='ce', sem_scal='sem', geo_scal='geo').items():
            value = step[0][f'loss_occ_{name}_{scale}'] / parts['weight']
            assert value.item() == pytest.approx(parts[theirs], rel=LOSS_RTOL)


def assert_gradients_close(ours, theirs, rtol=GRAD_RTOL):
    for name, grad in theirs.items():
        error = (ours[name] - grad).abs().max() / grad.abs().max().clamp(min=1e-12)
        assert error < rtol, f'{name}: {error:.2e}'


def test_gradients(step, case):
    theirs = to_project.state_dict(case['grads'], 'authors')
    assert len(theirs) == len(case['grads']) >= 24
    assert_gradients_close(step[1], theirs)


def test_every_trainable_parameter_gets_a_gradient(model, step):
    assert {name for name, p in model.named_parameters() if p.requires_grad} == step[1].keys()


def test_counts_of_the_evaluation(taps, case):
    pred, gt = taps['prediction'].logits[-1].argmax(1), case['inputs']['gt_dense'].long()
    num_classes = case['occ_preds'][-1].shape[1]
    total = 0
    for index, theirs in enumerate(case['eval']['score']):
        hist = torch.as_tensor(voxel_confusion(pred[index], gt[index], num_classes))
        ours = torch.stack((hist.diagonal(), hist.sum(1), hist.sum(0)), dim=1)
        ours[0] = torch.stack((hist[1:, 1:].sum(), hist[1:].sum(), hist[:, 1:].sum()))
        assert torch.equal(ours.to(theirs.dtype), theirs)
        total = total + hist
    summary = summarize_confusion(total, free_index=0, absent='exclude_union')
    ious = [summary['IoU'], *summary['per_class'][1:]]
    assert ious == pytest.approx(case['eval']['ious'], rel=1e-6)
    assert summary['mIoU'] == pytest.approx(case['eval']['miou'], rel=1e-6)


def test_checkpointing_changes_no_number(model, case, cameras, step):
    modules = [model.occ_head, *(transformer.encoder for transformer in model.view_encoder.transformer)]
    for module in modules:
        module.with_cp = True
    try:
        losses, grads = loss_and_gradients(model, case['inputs']['img'], cameras, case['inputs']['gt_dense'].long())
    finally:
        for module in modules:
            module.with_cp = False
    for key, value in step[0].items():
        torch.testing.assert_close(losses[key], value)
    assert grads.keys() == step[1].keys()
    assert_gradients_close(grads, step[1], rtol=1e-5)


def test_two_samples_equal_two_single_runs(model, case, cameras):
    """Also with different calibrations, where the original uses the visibility of the first sample for all.

    In float64: kernels sum in another order for another batch size, which float32 shows in the fifth digit on some machines.
    """
    model = copy.deepcopy(model).double()
    imgs, labels = case['inputs']['img'][:1].double(), case['inputs']['gt_dense'].long()[:1]
    turn = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0.2], [0, 0, 0, 1]])
    first = dict(cameras, ref2img=cameras['ref2img'][:1], img_wh=cameras['img_wh'][:1])
    second = dict(first, ref2img=first['ref2img'].flip(1) @ turn)
    samples = [(imgs, first, labels), (imgs.flip(-1), second, labels.flip(1))]

    def run(imgs, cameras):
        with torch.no_grad():
            return model.occ_head(model.view_encoder(model.extract_feat(imgs), batch_of(cameras))).logits

    single = [run(img, cams) for img, cams, _ in samples]
    both = dict(
        ref2img=torch.cat([cams['ref2img'] for _, cams, _ in samples]),
        img_wh=first['img_wh'].repeat(2, 1, 1),
        input_wh=first['input_wh'],
    )
    joint = run(torch.cat([img for img, _, _ in samples]), both)
    for level, logits in enumerate(joint):
        assert_close(logits, torch.cat([logits_of[level] for logits_of in single]), atol=1e-10)
    assert not torch.allclose(single[0][-1], single[1][-1], atol=1e-2)

    def probe_gradients(img, cams):
        model.zero_grad(set_to_none=True)
        logits = model.occ_head(model.view_encoder(model.extract_feat(img), batch_of(cams))).logits
        sum(level.square().sum() for level in logits).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    alone = [probe_gradients(img, cams) for img, cams, _ in samples]
    together = probe_gradients(torch.cat([img for img, _, _ in samples]), both)
    assert_gradients_close(together, {name: alone[0][name] + alone[1][name] for name in together})
