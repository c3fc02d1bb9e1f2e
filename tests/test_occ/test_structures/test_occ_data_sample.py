"""Tests of the data sample."""

import numpy as np
import torch

from projects.occ.structures import OccDataSample


def test_fields_move_and_become_a_dict():
    sample = OccDataSample(metainfo=dict(token='abc', ref2img=np.eye(4)[None]))
    sample.gt_occ = torch.zeros(2, 2, 1, dtype=torch.uint8)
    moved = sample.to('meta')
    assert moved.gt_occ.device.type == 'meta' and moved.token == 'abc'
    assert set(sample.to_dict()) == {'token', 'ref2img', 'gt_occ'}
    assert 'mask_camera' not in sample
