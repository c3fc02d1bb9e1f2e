"""The pixel decoder's levels, unused branch and errors; its numbers are in the parity test."""

import pytest
import torch

from projects.symphonies import MaskDINOPixelDecoder

CHANNELS = (8, 12, 16, 24)


def build(**options):
    defaults = dict(in_channels=CHANNELS, embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=16, num_groups=4)
    return MaskDINOPixelDecoder(**{**defaults, **options})


def feats():
    return [torch.randn(2, channels, 32 // 2**i, 52 // 2**i) for i, channels in enumerate(CHANNELS)]


@pytest.mark.parametrize('num_levels', [3, 4, 5])
def test_levels(num_levels):
    given = feats()
    levels = build(num_levels=num_levels)(given)
    assert levels[0] is given[0]
    sizes = [(16, 26), (8, 13), (4, 6), (2, 3), (1, 2)]
    assert [tuple(level.shape[1:]) for level in levels[1:]] == [(8, *size) for size in sizes[:num_levels]]


def test_mask_branch():
    decoder = build()
    frozen = {name for name, p in decoder.named_parameters() if not p.requires_grad}
    assert len(frozen) == 8 and {name.split('.')[0] for name in frozen} == {'adapter_1', 'layer_1', 'mask_features'}
    without = build(mask_branch=False)
    assert set(decoder.state_dict()) - set(without.state_dict()) == frozen
    sum(level.sum() for level in decoder(feats())).backward()
    assert {name for name, p in decoder.named_parameters() if p.grad is None} == frozen


def test_float32_under_autocast():
    decoder, given = build(), feats()
    expected = decoder(given)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        levels = decoder(given)
    for ours, theirs in zip(levels, expected):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs)


def test_start_values():
    decoder = build()
    decoder.init_weights()
    attention = decoder.encoder.layers[0].self_attn
    assert (attention.sampling_offsets.weight == 0).all() and attention.sampling_offsets.bias.abs().max() == 4
    assert decoder.level_embed.std() > 0.3 and (decoder.input_proj[3][0].bias == 0).all()


def test_errors():
    with pytest.raises(ValueError, match='img_neck.num_levels must be at least 3.*got 2'):
        build(num_levels=2)
    with pytest.raises(ValueError, match=r'expects feature maps with \(8, 12, 16, 24\) channels .*got \(8, 12, 16\); compare'):
        build()(feats()[:3])
