"""Tests of the batching of depth maps; images are tested with the segmentor."""

import numpy as np
import pytest
import torch
from occ_batches import with_cameras

from projects.occ.models import OccDataPreprocessor
from projects.occ.structures import OccDataSample


def batch(*sizes, depth=True):
    torch.manual_seed(0)
    inputs = dict(img=[torch.randint(0, 256, (2, 3, h, w), dtype=torch.uint8) for h, w in sizes])
    if depth:
        inputs['depth'] = [1 + torch.rand(2, h, w) for h, w in sizes]
    meta = dict(ref2img=np.eye(4)[None].repeat(2, 0), img_wh=np.full((2, 2), 4.0))
    return with_cameras(dict(inputs=inputs, data_samples=[OccDataSample(metainfo=meta) for _ in sizes]))


@pytest.fixture
def preprocessor():
    return OccDataPreprocessor(mean=[0.0] * 3, std=[1.0] * 3, pad_size_divisor=4)


def test_depth_is_padded_like_the_images(preprocessor):
    data = batch((5, 6), (3, 7))
    maps = [depth.clone() for depth in data['inputs']['depth']]
    out = preprocessor(data)['inputs']
    assert out.images.shape == (2, 2, 3, 8, 8) and out.depths.shape == (2, 2, 8, 8)
    assert out.depths.dtype == torch.float32
    assert torch.equal(out.depths[0, :, :5, :6], maps[0]) and torch.equal(out.depths[1, :, :3, :7], maps[1])
    assert out.depths[0, :, 5:].sum() == 0 and out.depths[1, :, :, 7:].sum() == 0


def test_without_depth_there_is_none(preprocessor):
    out = preprocessor(batch((4, 4), depth=False))['inputs']
    assert out.images.shape == (1, 2, 3, 4, 4) and out.depths is None and out.labels is None and out.masks == {}


def test_originals_reach_the_batch_as_they_are(preprocessor):
    data = batch((4, 4), (4, 4), depth=False)
    images = [[torch.full((3, 5 + i, 7), 10 * n + i, dtype=torch.uint8) for i in range(2)] for n in range(2)]
    data['inputs'].update(originals=images, view_missing=[torch.tensor([False, True]), torch.tensor([False, False])])
    out = preprocessor(data)['inputs']
    assert [[tuple(image.shape) for image in sample] for sample in out.originals] == [[(3, 5, 7), (3, 6, 7)]] * 2
    assert all(torch.equal(a, b) for one, two in zip(out.originals, images) for a, b in zip(one, two))
    assert out.view_missing.tolist() == [[False, True], [False, False]]


def test_depth_of_another_size_is_refused(preprocessor):
    data = batch((4, 4))
    data['inputs']['depth'][0] = data['inputs']['depth'][0][:1]
    with pytest.raises(ValueError, match=r'one \(V, H, W\) map stack per sample.*\(\(1, 4, 4\), \(2, 4, 4\)\)'):
        preprocessor(data)


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(mean=[1, 2], std=[1, 1]), r'mean and std must be three numbers each.*got mean=\[1, 2\], std=\[1, 1\]'),
        (dict(mean=[1, 2, 3]), r'or both None; got mean=\[1, 2, 3\], std=None'),
        (dict(mean=[1, 2, 3], std=[1, 0, 1]), 'std above 0'),
        (dict(pad_size_divisor=0), 'pad_size_divisor must be a positive whole number, got 0'),
        (dict(pad_size_divisor=1.5), 'pad_size_divisor must be a positive whole number, got 1.5'),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OccDataPreprocessor(**settings)
