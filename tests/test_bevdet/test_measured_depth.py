"""Depth targets, their loss and the override against reference numbers."""

import numpy as np
import pytest
import torch

from projects.bevdet.bevdet_head import LiftedDepthLoss
from projects.bevdet.geometry import DepthBins, block_bins
from projects.bevdet.measured_depth import MeasuredDepth
from projects.occ.structures import Cameras, OccBatch, OccPrediction

BINS = (1.0, 45.0, 0.5)


@pytest.fixture(scope='module')
def case(golden_dir):
    file = np.load(golden_dir / 'rendering_supervision_small.npz')
    return {key.removeprefix('lss/'): torch.from_numpy(np.array(file[key])) for key in file.files if key.startswith('lss/')}


def cells_first(prob):
    """(N, h, w, D) -> (1, N, D, h, w)."""
    return prob.movedim(-1, 1)[None]


def test_bins(case):
    stride = case['gt_depth'].shape[-1] // case['bin'].shape[-1]
    assert torch.equal(block_bins(case['gt_depth'], stride, DepthBins(*BINS)), case['bin'].long())


@pytest.mark.parametrize('mode, name', [('set_one', 'dts_set_to_one'), ('one_hot', 'dts_onehot')])
def test_override(case, mode, name):
    depth, bins = cells_first(case['prob_bhwd']), case['bin'].long()[None]
    assert torch.equal(MeasuredDepth(mode)(depth, bins), cells_first(case[name]))


def test_modes():
    with pytest.raises(ValueError, match='mode'):
        MeasuredDepth('two_hot')


def test_loss(case):
    depth, maps = cells_first(case['prob_bhwd']), case['gt_depth'][None].float()
    views = maps.shape[1]
    batch = OccBatch(
        images=torch.zeros(1, views, 3, *maps.shape[-2:]),
        image_sizes=torch.ones(1, views, 2),
        cameras=Cameras(
            ref2cam=torch.eye(4).expand(1, views, 4, 4),
            K=torch.eye(3).expand(1, views, 3, 3),
            sizes=torch.ones(1, views, 2, dtype=torch.long),
        ),
        depths=maps,
    )
    logits = depth.log().float().requires_grad_()
    prediction = OccPrediction(logits=[], depth_logits=logits, depth_bins=BINS)
    loss = LiftedDepthLoss()(prediction, batch)
    assert loss.item() == pytest.approx(float(case['bce_loss_w0.05']), rel=1e-5)
    loss.backward()
    unmeasured = (case['bin'] < 0)[None, :, None].expand_as(logits)
    assert logits.grad[~unmeasured].any() and not logits.grad[unmeasured].any()
