"""The depth network of stage 1: ranges, shapes, start value, gradients."""

import pytest
import torch
from torch.testing import assert_close

from projects.gaussianocc import DepthNetwork

K = torch.tensor([[50.0, 0, 48], [0, 50, 32], [0, 0, 1]])


def build(**options):
    backbone = dict(type='mmdet.ResNet', depth=18, base_channels=8, num_stages=4, out_indices=(0, 1, 2, 3), style='pytorch')
    defaults = dict(backbone=backbone, in_channels=(8, 16, 32, 64), channels=(32, 16, 16, 8))
    return DepthNetwork(**{**defaults, **options})


@pytest.mark.parametrize('form', ['inverse', 'linear'])
def test_starts_at_the_given_depth_and_stays_in_range(form):
    network = build(form=form, init_depth=12.0).eval()
    images = torch.randn(2, 3, 3, 64, 96)
    depth = network(images, K.expand(2, 3, 3, 3))
    assert depth.shape == (2, 3, 1, 64, 96)
    assert (depth - 12).abs().max() < 1.5
    with torch.no_grad():
        network.head.weight.normal_(std=50)
    depth = network(images, K.expand(2, 3, 3, 3))
    assert depth.min() >= 0.099 and depth.max() <= 80.1 and depth.max() > 20 * depth.min()


def test_focal_length_scales_depth():
    network = build().eval()
    images = torch.randn(1, 1, 3, 64, 96).expand(1, 3, 3, 64, 96)
    wide, tele = K.clone(), K.clone()
    wide[0, 0], tele[0, 0] = 25, 100
    depth = network(images, torch.stack([wide, K, tele])[None])
    assert_close(depth[:, 0] * 2, depth[:, 1], rtol=1e-4, atol=0)
    assert_close(depth[:, 2], depth[:, 1] * 2, rtol=1e-4, atol=0)
    network.normalise_focal = False
    depth = network(images, torch.stack([wide, K, tele])[None])
    assert_close(depth[:, 0], depth[:, 2])


def test_every_parameter_learns_and_samples_are_independent():
    network = build()
    images = torch.randn(2, 2, 3, 64, 96)
    network(images, K.expand(2, 2, 3, 3)).log().mean().backward()
    unused = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not unused
    network.eval()
    with torch.no_grad():
        both = network(images, K.expand(2, 2, 3, 3))
        single = network(images[1:], K.expand(1, 2, 3, 3))
    assert_close(both[1:], single, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('options', [dict(init_depth=0.05), dict(form='log'), dict(channels=(8, 8))])
def test_options_that_cannot_be_meant(options):
    with pytest.raises(ValueError, match='depth network'):
        build(**options)
