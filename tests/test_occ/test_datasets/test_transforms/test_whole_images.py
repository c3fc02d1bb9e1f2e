"""Resizing of whole images, and colours that change alike."""

import numpy as np
import pytest
import torch

from projects.occ.datasets.transforms import JitterColors, ResizeImages


def item(*sizes):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in sizes]
    eyes = np.tile(np.eye(4), (len(sizes), 1, 1))
    return dict(token='f3', img=images, ref2img=eyes.copy(), warp=eyes[:, :3, :3].copy(), img_wh=np.array(sizes, float))


def test_sizes_and_matrices():
    results = ResizeImages((6, 10))(item((20, 18), (40, 6)))
    assert [image.shape for image in results['img']] == [(6, 10, 3)] * 2 and results['img_wh'].tolist() == [[10, 6]] * 2
    assert np.allclose(results['warp'][0], np.diag([0.5, 1 / 3, 1])) and np.allclose(results['warp'][1], np.diag([0.25, 1, 1]))
    assert np.allclose(results['ref2img'][1], np.diag([0.25, 1, 1, 1]))


def test_flat_colours_stay_and_what_cannot_be_resized_is_refused():
    results = item((20, 18))
    results['img'][0][:] = (10, 200, 77)
    assert (ResizeImages((6, 10))(results)['img'][0] == (10, 200, 77)).all()
    with pytest.raises(ValueError, match='f3'):
        ResizeImages((6, 10))(dict(item((20, 18)), depth=[]))
    with pytest.raises(ValueError, match='size'):
        ResizeImages((0, 10))


@pytest.mark.parametrize('dtype', [np.uint8, np.float32])
def test_one_draw_for_all_images_of_an_item(dtype):
    torch.manual_seed(1)
    results = item((8, 8), (8, 8))
    results['img'] = [results['img'][0].astype(dtype), results['img'][0].astype(dtype)]
    before = results['img'][0].copy()
    changed = JitterColors(prob=1.0)(results)['img']
    assert changed[0].dtype == dtype and np.array_equal(changed[0], changed[1]) and not np.array_equal(changed[0], before)
    assert changed[0].min() >= 0 and changed[0].max() <= 255
    results['img'] = [before.copy(), before.copy()]
    changed = JitterColors(prob=1.0, per_image=True)(results)['img']
    assert not np.array_equal(changed[0], changed[1])


def test_probability_and_nothing_to_change():
    results = item((8, 8))
    before = results['img'][0].copy()
    assert np.array_equal(JitterColors(prob=0.0)(results)['img'][0], before)
    assert np.array_equal(JitterColors(0, 0, 0, 0, prob=1.0)(results)['img'][0], before)
    with pytest.raises(ValueError, match='prob'):
        JitterColors(prob=2)
