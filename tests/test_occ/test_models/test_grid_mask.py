"""Tests of GridMask."""

import numpy as np
import torch

from projects.occ.models.grid_mask import OccGridMask, draw_grid_mask


def test_bands_of_one_period():
    mask = draw_grid_mask(30, 50, 0.5, np.random.RandomState(3))
    rows, cols = mask.all(1), mask.all(0)
    assert mask.shape == (30, 50) and 0 < mask.mean() < 1
    # a pixel is kept exactly if its row or its column is
    assert np.array_equal(mask.astype(bool), rows[:, None] | cols[None, :])


def test_parity_with_the_original(golden_dir):
    cases = torch.load(golden_dir / 'surroundocc_small.pt', weights_only=True)['grid_mask']
    for case in cases:
        rng = np.random.RandomState(case['np_seed'])
        expected = case['mask'].numpy()
        drawn = rng.rand() <= 0.7
        mask = draw_grid_mask(*expected.shape, 0.5, rng) if drawn else np.ones_like(expected)
        assert np.array_equal(mask, expected)


def test_module_masks_all_cameras_alike_and_respects_prob():
    imgs = torch.rand(2, 3, 3, 40, 60) + 1
    always = OccGridMask(prob=1.0)(imgs)
    kept = always != 0
    assert kept.any() and not kept.all()
    assert torch.equal(kept, kept[:1, :1, :1].expand_as(kept))
    assert torch.equal(always[kept], imgs[kept])
    assert torch.equal(OccGridMask(prob=0.0)(imgs), imgs)


def test_follows_the_torch_seed():
    imgs = torch.ones(1, 1, 3, 40, 60)
    mask = OccGridMask(prob=1.0)
    torch.manual_seed(5)
    first = mask(imgs)
    second = mask(imgs)
    torch.manual_seed(5)
    assert torch.equal(mask(imgs), first) and not torch.equal(first, second)
