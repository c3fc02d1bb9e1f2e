"""The view encoder: start values, checkpoints of other grids, batches, errors."""

import pytest
import torch
from mmdet3d.registry import MODELS
from occ_batches import batch_of
from tiny_tpvformer import GRID, build_encoder, build_inputs, randomize

from projects.occ.structures import VoxelGrid


def run(encoder, feats, cameras):
    return encoder(feats, batch_of(cameras))


def test_plane_shapes_and_registry():
    encoder = MODELS.build(dict(type='TPVFormerViewEncoder', grid=GRID, embed_dims=16, num_cams=2, num_levels=2, num_layers=1))
    assert type(encoder) is type(build_encoder())
    planes = run(build_encoder(), *build_inputs(2))
    assert [tuple(p.shape) for p in planes] == [(2, 48, 16), (2, 24, 16), (2, 32, 16)]


def test_two_samples_with_different_cameras_equal_two_single_runs():
    encoder = randomize(build_encoder())
    feats, cameras = build_inputs(3)
    joint = run(encoder, feats, cameras)
    for sample in range(3):
        one = [f[sample : sample + 1] for f in feats]
        cams = {k: v[sample : sample + 1] if torch.is_tensor(v) else v for k, v in cameras.items()}
        for plane, single in zip(joint, run(encoder, one, cams)):
            torch.testing.assert_close(plane[sample : sample + 1], single, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(joint[0][0], joint[0][1], atol=1e-2)


def test_order_of_cameras_does_not_matter_beyond_their_embedding():
    encoder = randomize(build_encoder())
    feats, cameras = build_inputs()
    planes = run(encoder, feats, cameras)
    with torch.no_grad():
        encoder.cams_embeds.copy_(encoder.cams_embeds.flip(0))
    swapped = run(encoder, [f.flip(1) for f in feats], dict(cameras, ref2img=cameras['ref2img'].flip(1)))
    for a, b in zip(planes, swapped):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_padding_is_taken_into_account():
    """Features on a larger canvas are found at the same places. (Padding with zero values is like the outside of the image.)"""
    encoder = randomize(build_encoder())
    with torch.no_grad():
        encoder.level_embeds.zero_()
        encoder.cams_embeds.zero_()
        for layer in encoder.encoder.layers:
            layer.attentions[1].deformable_attention.value_proj.bias.zero_()
    feats, cameras = build_inputs()
    padded = [torch.nn.functional.pad(f, (0, 0, 0, f.shape[3])) for f in feats]
    width, height = cameras['input_wh']
    for plane, other in zip(run(encoder, feats, cameras), run(encoder, padded, dict(cameras, input_wh=(width, 2 * height)))):
        torch.testing.assert_close(plane, other, atol=1e-5, rtol=1e-5)


def test_checkpointing_is_neutral():
    feats, cameras = build_inputs()
    grads = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        encoder = randomize(build_encoder(with_cp=with_cp))
        sum(p.square().sum() for p in run(encoder, feats, cameras)).backward()
        grads.append({name: p.grad for name, p in encoder.named_parameters()})
    assert all(grad is not None for grad in grads[0].values())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-4, rtol=1e-4)


def test_autocast_stays_close_to_float32():
    encoder = randomize(build_encoder(), scale=0.05)
    feats, cameras = build_inputs()
    expected = run(encoder, feats, cameras)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        planes = run(encoder, [f.bfloat16() for f in feats], cameras)
    for plane, other in zip(planes, expected):
        assert torch.isfinite(plane).all()
        assert (plane.float() - other).abs().mean() < 0.05 * other.abs().mean()


def test_start_values():
    encoder = build_encoder(embed_dims=32, self_attn=dict(num_heads=8), num_layers=1)
    encoder.init_weights()
    for name, fans in (('tpv_embedding_hw', 48 + 32), ('tpv_embedding_zh', 24 + 32), ('tpv_embedding_wz', 32 + 32)):
        bound = (6 / fans) ** 0.5
        assert 0.95 * bound < getattr(encoder, name).weight.abs().max() <= bound
    bound = (6 / (6 + 16)) ** 0.5
    assert 0.9 * bound < encoder.positional_encoding.row_embed.weight.abs().max() <= bound
    for embeds in (encoder.level_embeds, encoder.cams_embeds):
        assert embeds.abs().max() > 1.5  # N(0, 1) is wider than Xavier
    layer = encoder.encoder.layers[0]
    for attention in (layer.attentions[0], layer.attentions[1].deformable_attention):
        offsets = attention.sampling_offsets
        for linear in [offsets] if isinstance(offsets, torch.nn.Linear) else offsets:
            assert linear.weight.abs().max() == 0 and linear.bias.abs().max() >= 1
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in layer.norms)
    ffn = layer.ffns[0].layers
    assert 0.8 * (6 / 96) ** 0.5 < ffn[1].weight.abs().max() <= (6 / 96) ** 0.5
    assert 0 < ffn[1].bias.abs().max() <= 64**-0.5


def test_one_model_does_not_change_the_options_of_the_next():
    build_encoder(ffn=dict(feedforward_channels=48))
    assert build_encoder().encoder.layers[0].ffns[0].layers[1].weight.shape == (16, 32)


def test_geometry_of_the_model_wins_over_that_of_a_checkpoint(monkeypatch):
    encoder = build_encoder()
    state = encoder.state_dict()
    own = {k: v.clone() for k, v in state.items() if 'ref_' in k}
    state['encoder.ref_3d_zh'] = torch.rand(1, 3, 7, 3)
    state['encoder.ref_3d_hw'] = state['encoder.ref_3d_hw'] + 0.01
    del state['encoder.ref_2d_wz'], state['tpv_mask_hw']
    messages = []
    monkeypatch.setattr('projects.tpvformer.tpvformer_encoder.print_log', lambda message, **kwargs: messages.append(message))
    encoder.load_state_dict(state, strict=True)
    assert len(messages) == 2
    assert messages[1].startswith('encoder.ref_3d_zh in the checkpoint belongs to another grid')
    for key, value in own.items():
        assert torch.equal(encoder.state_dict()[key], value), key


def test_geometry_that_fits_is_taken_to_the_last_bit():
    encoder = build_encoder()
    state = encoder.state_dict()
    state['encoder.ref_3d_hw'] = state['encoder.ref_3d_hw'] + 1e-7
    encoder.load_state_dict(state)
    assert torch.equal(encoder.encoder.ref_3d_hw, state['encoder.ref_3d_hw'])


def test_single_camera_model_takes_the_first_of_six_camera_embeddings():
    six, one = build_encoder(num_cams=6), build_encoder(num_cams=1)
    one.load_state_dict(six.state_dict(), strict=True)
    assert torch.equal(one.cams_embeds, six.cams_embeds[:1])
    with pytest.raises(RuntimeError, match='size mismatch for cams_embeds'):
        six.load_state_dict(one.state_dict())


def test_grid_may_be_a_dict():
    fields = {name: getattr(GRID, name) for name in GRID.__dataclass_fields__}
    assert build_encoder(grid=fields).cells == build_encoder(grid=VoxelGrid(**fields)).cells == (8, 6, 4)


@pytest.mark.parametrize(
    'options, text',
    [
        (dict(scale=(3, 2, 2)), 'scale must be three positive integers'),
        (dict(num_anchors=(4, 4)), 'num_anchors must hold one number for each of the planes'),
        (dict(self_attn=dict(num_heads=5)), 'self_attn.num_heads must divide embed_dims 16, got 5'),
        (dict(cross_attn=dict(num_heads=3)), 'cross_attn.num_heads must divide embed_dims 16, got 3'),
    ],
)
def test_wrong_options(options, text):
    with pytest.raises(ValueError, match=text):
        build_encoder(**options)


def test_wrong_number_of_cameras():
    feats, cameras = build_inputs(num_cams=3)
    with pytest.raises(ValueError, match=r'N = 2 cameras \(model.view_encoder.num_cams\).*got \(1, 3, 16, 4, 8\)'):
        run(build_encoder(), feats, cameras)


def test_wrong_number_of_levels():
    feats, cameras = build_inputs()
    with pytest.raises(ValueError, match='expects 2 feature levels .* got 1; compare with model.img_neck.num_outs'):
        run(build_encoder(), feats[:1], cameras)
