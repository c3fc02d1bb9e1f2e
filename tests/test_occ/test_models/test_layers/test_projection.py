"""Projection of reference points."""

import torch

from projects.occ.models.layers import project_points

FORWARD_IS_X = torch.tensor([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def pinhole(focal, cx, cy):
    """A camera at the origin that looks along +x, with y to its left and z up."""
    intrinsics = torch.eye(4)
    intrinsics[0, 0] = intrinsics[1, 1] = focal
    intrinsics[0, 2], intrinsics[1, 2] = cx, cy
    return intrinsics @ FORWARD_IS_X


def test_hand_computed_point():
    points = torch.tensor([[10.0, 2.0, -1.0], [10.0, 20.0, 0.0], [-10.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    positions, visible = project_points(points, pinhole(100, 80, 40)[None, None], torch.tensor([[[160.0, 80.0]]]))
    assert positions.shape == (1, 1, 4, 2) and visible.shape == (1, 1, 4)
    torch.testing.assert_close(positions[0, 0, 0], torch.tensor([60.0 / 160, 50.0 / 80]))
    assert visible[0, 0].tolist() == [True, False, False, False]
    assert torch.isfinite(positions).all()


def test_border_is_outside():
    ref2img = pinhole(100, 80, 40)[None, None]
    corner = torch.tensor([[10.0, 8.0, 4.0]])
    positions, visible = project_points(corner, ref2img, torch.tensor([[[160.0, 80.0]]]))
    assert positions.abs().max() == 0 and not visible.any()


def test_every_camera_has_its_own_size_and_padding_is_not_image():
    points = torch.tensor([[10.0, -7.5, -3.5]])  # pixel (155, 75)
    ref2img = pinhole(100, 80, 40).expand(1, 2, 4, 4)
    sizes = torch.tensor([[[160.0, 80.0], [160.0, 72.0]]])
    positions, visible = project_points(points, ref2img, sizes, input_wh=(160, 96))
    torch.testing.assert_close(positions[0, :, 0], torch.tensor([155.0 / 160, 75.0 / 96]).expand(2, 2))
    assert visible[0, :, 0].tolist() == [True, False]


def test_samples_and_shapes_equal_a_matrix_product():
    generator = torch.Generator().manual_seed(1)
    ref2img = torch.randn(2, 3, 4, 4, generator=generator)
    points = torch.randn(5, 4, 3, generator=generator)
    positions, visible = project_points(points, ref2img, torch.full((2, 3, 2), 2.0))
    homogeneous = torch.nn.functional.pad(points, (0, 1), value=1.0)
    expected = torch.einsum('bnij,qdj->bnqdi', ref2img, homogeneous)
    in_front = expected[..., 2] > 0.1
    assert positions.shape == (2, 3, 5, 4, 2) and visible.shape == (2, 3, 5, 4)
    torch.testing.assert_close(
        positions[in_front], (expected[..., :2] / expected[..., 2:3] / 2)[in_front], rtol=1e-4, atol=1e-4
    )
    assert not visible[expected[..., 2] < 0].any()


def test_autocast_does_not_round_metres():
    points = torch.tensor([[37.123, 3.001, 0.517]])
    size = torch.tensor([[[1600.0, 896.0]]])
    ref2img = pinhole(1266, 800, 450)[None, None]
    expected, _ = project_points(points, ref2img, size)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        positions, _ = project_points(points, ref2img, size)
    assert positions.dtype == torch.float32
    assert torch.equal(positions, expected)
