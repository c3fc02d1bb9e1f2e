"""The head: sum of the planes at every voxel, classification, losses, errors."""

import pytest
import torch
from tiny_tpvformer import GRID, build_head

from projects.occ.structures import OccBatch

PLANES = [(48, (6, 8)), (24, (4, 6)), (32, (8, 4))]


def planes(batch_size=2):
    generator = torch.Generator().manual_seed(4)
    return [torch.randn(batch_size, cells, 16, generator=generator) for cells, _ in PLANES]


def test_fuse_adds_the_three_planes_at_every_voxel():
    head = build_head()
    scene = planes()
    maps = []
    for plane, (_, (rows, columns)) in zip(scene, PLANES):
        image = plane.transpose(1, 2).reshape(2, 16, rows, columns)
        maps.append(torch.nn.functional.interpolate(image, scale_factor=2, mode='bilinear', align_corners=False))
    hw, zh, wz = maps
    volume = head.fuse(scene)
    assert volume.shape == (2, 16, 12, 8, 16)
    for x, y, z in [(0, 0, 0), (15, 11, 7), (3, 10, 5)]:
        torch.testing.assert_close(volume[:, x, y, z], hw[..., y, x] + zh[..., z, y] + wz[..., x, z])


def test_without_scale_nothing_is_interpolated():
    head = build_head(scale=(1, 1, 1))
    scene = [torch.randn(1, n, 16) for n in (16 * 12, 12 * 8, 16 * 8)]
    expected = scene[0][0, 5 * 16 + 7] + scene[1][0, 2 * 12 + 5] + scene[2][0, 7 * 8 + 2]
    assert torch.equal(head.fuse(scene)[0, 7, 5, 2], expected)


def test_prediction():
    head = build_head()
    prediction = head(planes())
    assert len(prediction.logits) == 1
    assert prediction.logits[0].shape == (2, GRID.num_classes, *GRID.shape)
    assert prediction.voxel_feats.shape == (2, 24, *GRID.shape)
    at = head.classifier(head.decoder(head.fuse(planes())[1, 4, 3, 2]))
    torch.testing.assert_close(prediction.logits[0][1, :, 4, 3, 2], at)


def test_recomputing_is_neutral():
    grads = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        head = build_head(with_cp=with_cp)
        head(planes()).logits[0].square().sum().backward()
        grads.append([p.grad for p in head.parameters()])
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b)


def test_losses_of_the_base_class():
    head = build_head(loss_occ=dict(type='OccupancyLoss'))
    batch = OccBatch(None, labels=torch.randint(0, 5, (1, *GRID.shape)))
    losses = head.loss_by_feat(head(planes(1)), batch)
    assert set(losses) == {'loss_occ_ce_0', 'loss_occ_lovasz_0'}
    assert all(torch.isfinite(value) for value in losses.values())


def test_planes_of_another_grid_are_refused():
    scene = planes()
    with pytest.raises(ValueError, match=r'plane hw must be \(B, 192, 16\), got \(2, 48, 16\).*same grid, scale and channels'):
        build_head(scale=(1, 1, 1))(scene)
