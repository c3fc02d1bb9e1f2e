"""The view encoder: shapes, start values, embeddings, padding, batches, errors."""

import pytest
import torch
from mmdet3d.registry import MODELS
from occ_batches import batch_of
from tiny_surroundocc import CELLS, EMBED_DIMS, GRID, build_encoder, build_inputs, randomize


def run(encoder, feats, cameras):
    return encoder(feats, batch_of(cameras))


def single(feats, cameras, index):
    """One sample of a batch."""
    cut = slice(index, index + 1)
    return [f[cut] for f in feats], {k: v[cut] if torch.is_tensor(v) else v for k, v in cameras.items()}


def test_shapes_and_registry():
    volumes = run(build_encoder(), *build_inputs(2))
    assert [tuple(v.shape) for v in volumes] == [(2, d, *c) for d, c in zip(EMBED_DIMS, CELLS)]
    encoder = MODELS.build(dict(type='SurroundOccViewEncoder', grid=GRID, scales=[(2, 2, 1), (4, 4, 2), (8, 8, 4)]))
    assert encoder.cells == [(8, 4, 4), (4, 2, 2), (2, 1, 1)]
    assert [len(t.encoder.layers) for t in encoder.transformer] == [1, 3, 6]


def test_one_number_serves_all_levels_and_lists_give_one_each():
    encoder = build_encoder(in_channels=8, embed_dims=32, num_layers=2, ffn=dict(feedforward_channels=(40, 48)), num_convs=1)
    for transformer, conv, hidden, points in zip(encoder.transformer, encoder.transfer_conv, (40, 48), (2, 4)):
        assert conv[0].weight.shape == (32, 8, 1, 1)
        for layer in transformer.encoder.layers:
            assert layer.ffns[0].layers[0][0].weight.shape == (hidden, 32)
            assert layer.attentions[0].deformable_attention.num_points == points and len(layer.deblock) == 1
    widths = [t.encoder.layers[0].ffns[0].feedforward_channels for t in build_encoder().transformer]
    assert widths == [32, 64]


@torch.no_grad()
def test_samples_of_a_batch_do_not_touch_each_other():
    encoder = randomize(build_encoder())
    feats, cameras = build_inputs(3)
    joint = run(encoder, feats, cameras)
    for index in range(3):
        for both, alone in zip(joint, run(encoder, *single(feats, cameras, index))):
            torch.testing.assert_close(both[index : index + 1], alone, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(joint[0][0], joint[0][1], atol=1e-2)


@torch.no_grad()
def test_voxels_in_view_depend_on_the_image_and_the_others_do_not():
    """Without convolutions every voxel stands alone."""
    encoder = randomize(build_encoder(num_convs=0))
    feats, cameras = build_inputs()
    cameras = dict(cameras, ref2img=cameras['ref2img'][:, :1].repeat(1, 2, 1, 1))  # both look along +x
    before = run(encoder, feats, cameras)
    after = run(encoder, [f + torch.randn_like(f) for f in feats], cameras)
    for a, b in zip(before, after):
        changed = (a != b).any(1)[0]
        half = a.shape[2] // 2
        assert changed[half:].any() and not changed[:half].any()


@torch.no_grad()
def test_a_wider_embedding_table_counts_like_the_original_and_changes_nothing():
    one = randomize(build_encoder(num_cams=1))
    six = build_encoder(num_cams=1, num_cam_embeds=6).eval()
    state = one.state_dict()
    for level, dims in enumerate(EMBED_DIMS):
        key = f'transformer.{level}.cams_embeds'
        state[key] = torch.cat((state[key], torch.randn(5, dims)))
    six.load_state_dict(state)
    inputs = build_inputs(num_cams=1)
    for a, b in zip(run(one, *inputs), run(six, *inputs)):
        assert torch.equal(a, b)
    # and such weights load into the small table
    again = build_encoder(num_cams=1).eval()
    again.load_state_dict(state)
    for a, b in zip(run(one, *inputs), run(again, *inputs)):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match='num_cam_embeds must be at least num_cams=2, got 1'):
        build_encoder(num_cam_embeds=1)


@torch.no_grad()
def test_padding_is_seen_only_on_request():
    """Voxels that project below the image, onto padding, look at nothing or at the features of the padding."""
    feats, cameras = build_inputs()
    padded = dict(cameras, img_wh=cameras['img_wh'] * torch.tensor([1.0, 0.5]))
    torch.manual_seed(1)
    right = randomize(build_encoder())
    torch.manual_seed(1)
    like_the_authors = randomize(build_encoder(see_padding=True))
    for whole, seen, cut in zip(run(right, feats, cameras), run(like_the_authors, feats, padded), run(right, feats, padded)):
        assert torch.equal(whole, seen) and not torch.allclose(whole, cut, atol=1e-3)


def test_recomputing_is_neutral():
    feats, cameras = build_inputs()
    grads = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        encoder = randomize(build_encoder(with_cp=with_cp))
        sum(v.square().sum() for v in run(encoder, feats, cameras)).backward()
        grads.append({name: p.grad for name, p in encoder.named_parameters()})
    assert all(grad is not None for grad in grads[0].values())
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, atol=1e-4, rtol=1e-4)


def test_recomputing_counts_batch_norms_once():
    feats, cameras = build_inputs()
    states = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        encoder = build_encoder(with_cp=with_cp, conv_norm_cfg=dict(type='BN3d')).train()
        sum(v.square().sum() for v in run(encoder, feats, cameras)).backward()
        states.append(dict(encoder.named_buffers()))
    counts = [value for name, value in states[1].items() if name.endswith('num_batches_tracked')]
    assert len(counts) == 6 and all(count == 1 for count in counts)
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value)


@torch.no_grad()
def test_autocast_stays_close_to_float32():
    encoder = randomize(build_encoder(), scale=0.05)
    feats, cameras = build_inputs()
    expected = run(encoder, feats, cameras)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        volumes = run(encoder, [f.bfloat16() for f in feats], cameras)
    for volume, other in zip(volumes, expected):
        assert torch.isfinite(volume).all()
        assert (volume.float() - other).abs().mean() < 0.05 * other.abs().mean()


def test_start_values():
    encoder = build_encoder(num_cams=2)
    encoder.init_weights()
    for transformer in encoder.transformer:
        assert 0.5 < transformer.level_embeds.std() < 1.5 and 0.5 < transformer.cams_embeds.std() < 1.5
        for layer in transformer.encoder.layers:
            attention = layer.attentions[0]
            assert (attention.deformable_attention.sampling_offsets.weight == 0).all()
            assert (attention.deformable_attention.sampling_offsets.bias != 0).any()
            assert (attention.output_proj.bias == 0).all() and (attention.output_proj.weight != 0).any()
            kernel = layer.deblock[0][0].weight
            fan = kernel[0].numel() * 2  # as many inputs as outputs
            assert kernel.abs().max() <= (6 / fan) ** 0.5


@pytest.mark.parametrize(
    'options, text',
    [
        (dict(num_layers=(1, 2, 3)), r'view_encoder.num_layers must be one number or a list of 2 .*got \(1, 2, 3\)'),
        (dict(cross_attn=dict(num_points=(2,))), 'view_encoder.cross_attn.num_points must be one number or a list of 2'),
        (dict(scales=(2, 8)), r'view_encoder.scales must divide grid.shape \(16, 8, 4\)'),
        (dict(scales=(2, 0.5)), 'every element of view_encoder.scales must be one positive integer or three'),
        (dict(cross_attn=dict(num_heads=3, num_points=2)), 'num_heads must divide'),
    ],
)
def test_config_errors(options, text):
    with pytest.raises(ValueError, match=text):
        build_encoder(**options)


def test_input_errors():
    encoder = build_encoder()
    feats, cameras = build_inputs()
    with pytest.raises(ValueError, match='2 volumes .* needs as many feature levels, got 1'):
        run(encoder, feats[:1], cameras)
    with pytest.raises(ValueError, match=r'N = 2 cameras .* C = 8 .*in_channels.*got \(1, 2, 12, 2, 4\)'):
        run(encoder, feats[::-1], cameras)
