"""The whole network against the original implementation, stage by stage."""

import json

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.registry import init_default_scope
from occ_batches import batch_of, batch_of_samples
from tpvformer_official_config import model_config_from_official

from projects.occ.structures import OccDataSample
from projects.tpvformer.checkpoint import to_project

CASES = ('r18_nodcn', 'r50_dcn')
ATOL = 1e-4
GRAD_RTOL = 1e-3


@pytest.fixture(scope='module')
def golden(golden_dir):
    return torch.load(golden_dir / 'tpvformer_small.pt', weights_only=True)['cases']


@pytest.fixture(scope='module', params=CASES)
def case(golden, request):
    return golden[request.param]


@pytest.fixture(scope='module')
def model(case):
    init_default_scope('mmdet3d')
    torch.set_num_threads(1)
    model = MODELS.build(model_config_from_official(json.loads(case['config'])))
    model.load_state_dict(to_project.state_dict(case['state_dict'], 'gaussrender'), strict=True)
    return model.eval()


@pytest.fixture(scope='module')
def cameras(case):
    inputs = case['inputs']
    height, width = inputs['img_hw']
    return dict(ref2img=inputs['lidar2img'], img_wh=inputs['image_wh'], input_wh=(width, height))


@pytest.fixture(scope='module')
def taps(model, case, cameras):
    """Outputs of the modules of interest during one forward pass without gradients."""
    seen = {}

    def keep(name):
        return lambda module, args, output: seen.setdefault(name, []).append(output)

    layer = model.view_encoder.encoder.layers[0]
    watched = dict(
        backbone=model.img_backbone,
        fpn=model.img_neck,
        tpv_pos_hw_map=model.view_encoder.positional_encoding,
        **{
            'layer0.self_attn_hw': layer.attentions[0],
            'layer0.norm0': layer.norms[0],
            'layer0.deform_attn_rebatched': layer.attentions[1].deformable_attention,
            'layer0.cross_attn': layer.attentions[1],
            'layer0.norm1': layer.norms[1],
            'layer0.ffn': layer.ffns[0],
        },
        **{f'layer{i}': module for i, module in enumerate(model.view_encoder.encoder.layers)},
    )
    handles = [module.register_forward_hook(keep(name)) for name, module in watched.items()]
    with torch.no_grad():
        feats = model.extract_feat(case['inputs']['imgs'])
        scene = model.view_encoder(feats, batch_of(cameras))
        seen['voxel_fused'] = [model.occ_head.fuse(scene)]
        prediction = model.occ_head(scene)
    for handle in handles:
        handle.remove()
    seen['voxel_feat'] = [prediction.voxel_feats.permute(0, 2, 3, 4, 1)]
    seen['logits'] = [prediction.logits[-1]]
    return seen


def assert_close(ours, theirs, atol=ATOL):
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=0)


@pytest.mark.parametrize('stage', ['backbone', 'fpn', 'layer0', 'layer1'])
def test_lists_of_maps_and_planes(taps, case, stage):
    theirs = case['outputs']['taps'][stage]
    assert len(taps[stage][0]) == len(theirs)
    for a, b in zip(taps[stage][0], theirs):
        assert_close(a, b)


@pytest.mark.parametrize(
    'stage',
    [
        'tpv_pos_hw_map',
        'layer0.self_attn_hw',
        'layer0.norm0',
        'layer0.cross_attn',
        'layer0.norm1',
        'layer0.ffn',
        'voxel_fused',
        'voxel_feat',
    ],
)
def test_single_tensors(taps, case, stage):
    assert_close(taps[stage][0], case['outputs']['taps'][stage])


def test_rebatched_attention_where_a_camera_sees_the_query(taps, case):
    theirs, masks = case['outputs']['taps']['layer0.deform_attn_rebatched'], case['outputs']['taps']['ref_mask']
    for ours, other, mask in zip(taps['layer0.deform_attn_rebatched'], theirs, masks):
        counts = mask[:, 0].any(-1).sum(-1)
        assert ours.shape == other.shape == (len(counts), counts.max(), ours.shape[-1])
        for camera, count in enumerate(counts):
            assert_close(ours[camera, :count], other[camera, :count])


def test_projection(model, case, cameras):
    positions, visible = model.view_encoder.encoder.project_anchors(cameras['ref2img'], cameras['img_wh'], cameras['input_wh'])
    encoder = model.view_encoder.encoder
    reference = case['outputs']['taps']
    for plane, ours, mask, theirs, their_mask in zip(
        ('hw', 'zh', 'wz'), positions, visible, reference['ref_points_cam'], reference['ref_mask']
    ):
        assert torch.equal(mask[0], their_mask[:, 0])
        assert 0 < mask.float().mean() < 1
        points = getattr(encoder, f'ref_3d_{plane}')[0].transpose(0, 1) * torch.tensor(encoder.extent)
        points = torch.nn.functional.pad(points + torch.tensor(encoder.lower), (0, 1), value=1.0)
        depth = torch.einsum('nij,qdj->nqdi', cameras['ref2img'][0], points)[..., 2]
        in_front = depth > 1e-3
        torch.testing.assert_close(ours[0][in_front], theirs[:, 0][in_front], atol=1e-4, rtol=1e-4)


def test_logits(taps, case):
    assert_close(taps['logits'][0], case['outputs']['logits'])
    assert_close(taps['logits'][0].flatten(2), case['outputs']['pred_occ'])


def test_logits_through_the_segmentor(model, case):
    inputs = case['inputs']
    sample = OccDataSample(metainfo=dict(ref2img=inputs['lidar2img'][0].numpy(), img_wh=inputs['image_wh'][0].numpy()))
    with torch.no_grad():
        batch = batch_of_samples(inputs['imgs'], [sample])
        logits = model(batch, [sample], mode='tensor')
        predicted = model(batch, [sample], mode='predict')[0].pred_occ
    assert_close(logits, case['outputs']['logits'])
    top = case['outputs']['logits'][0].topk(2, dim=0)
    clear = top.values[0] - top.values[1] > 2 * ATOL
    assert clear.float().mean() > 0.99
    assert torch.equal(predicted[clear].long(), top.indices[0][clear])


def gradients(model, imgs, cameras, probe):
    model.zero_grad(set_to_none=True)
    logits = model.occ_head(model.view_encoder(model.extract_feat(imgs), batch_of(cameras))).logits[-1]
    (logits.flatten(2) * probe).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_gradients_close(ours, theirs):
    for name, grad in theirs.items():
        error = (ours[name] - grad).abs().max() / grad.abs().max().clamp(min=1e-12)
        assert error < GRAD_RTOL, f'{name}: {error:.2e}'


def test_gradients(model, case, cameras):
    ours = gradients(model, case['inputs']['imgs'], cameras, case['grad']['probe'])
    theirs = to_project.state_dict(case['grad']['grads'], 'gaussrender')
    assert len(theirs) >= 17
    assert_gradients_close(ours, theirs)


def test_checkpointing_changes_no_number(model, case, cameras):
    plain = gradients(model, case['inputs']['imgs'], cameras, case['grad']['probe'])
    model.view_encoder.encoder.with_cp = model.occ_head.with_cp = True
    try:
        recomputed = gradients(model, case['inputs']['imgs'], cameras, case['grad']['probe'])
    finally:
        model.view_encoder.encoder.with_cp = model.occ_head.with_cp = False
    assert plain.keys() == recomputed.keys()
    for name, grad in plain.items():
        torch.testing.assert_close(recomputed[name], grad, atol=1e-5 * float(grad.abs().max()) + 1e-12, rtol=0)


def test_two_samples_equal_two_single_runs(model, case, cameras):
    """Also with different calibrations, where the original uses the visibility of the first sample for all."""
    imgs, probe = case['inputs']['imgs'], case['grad']['probe']
    turned = cameras['ref2img'].flip(1)
    turned = turned @ torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0.2], [0, 0, 0, 1]])
    batches = [(imgs, cameras['ref2img']), (imgs.flip(-1), turned)]
    with torch.no_grad():
        single_logits = []
        for img, ref2img in batches:
            planes = model.view_encoder(model.extract_feat(img), batch_of(dict(cameras, ref2img=ref2img)))
            single_logits.append(model.occ_head(planes).logits[-1])
    single = [gradients(model, img, dict(cameras, ref2img=ref2img), probe) for img, ref2img in batches]
    pair = dict(
        ref2img=torch.cat([ref2img for _, ref2img in batches]),
        img_wh=cameras['img_wh'].repeat(2, 1, 1),
        input_wh=cameras['input_wh'],
    )
    both = torch.cat([img for img, _ in batches])
    with torch.no_grad():
        logits = model.occ_head(model.view_encoder(model.extract_feat(both), batch_of(pair))).logits[-1]
    assert_close(logits, torch.cat(single_logits), atol=1e-5)
    assert not torch.allclose(single_logits[0], single_logits[1], atol=1e-2)
    joint = gradients(model, both, pair, probe)
    assert_gradients_close(joint, {name: single[0][name] + single[1][name] for name in joint})
