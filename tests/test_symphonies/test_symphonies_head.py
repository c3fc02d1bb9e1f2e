"""The completion head."""

import pytest
import torch

from projects.occ.structures import VoxelGrid
from projects.symphonies import SymphoniesHead

GRID = VoxelGrid((0, 0, 0, 8, 4, 8), 1, (8, 4, 8), 'lidar', free_index=0, class_names=('free', 'car', 'road'))


@pytest.mark.parametrize('scale, z_scale', [(2, 2), (2, 1), (1, 2), (1, 4), (1, 1)])
def test_shapes(scale, z_scale):
    head = SymphoniesHead(GRID, scale, z_scale, embed_dims=8)
    volume = torch.randn(2, 8, 8 // scale, 4 // scale, 8 // scale // z_scale)
    prediction = head([volume, volume + 1])
    assert [level.shape for level in prediction.logits] == [(2, 3, 8, 4, 8)] * 2
    assert prediction.voxel_feats.shape == (2, 8, 8, 4, 8)
    torch.testing.assert_close(head.classifier(prediction.voxel_feats), prediction.logits[-1])


def test_errors():
    with pytest.raises(ValueError, match='occ_head.volume_scale must be 1 or 2, got 4'):
        SymphoniesHead(GRID, 4)
    head = SymphoniesHead(GRID, embed_dims=8)
    with pytest.raises(ValueError, match=r'expects volumes .*\(8, 4, 2, 2\), got .*must have the same grid, volume_scale'):
        head([torch.zeros(1, 8, 4, 2, 4)])
