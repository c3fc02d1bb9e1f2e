"""Photometric terms against the published formulas and the original implementation."""

import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from projects.rendering.photometric import (
    Neighbour,
    masked_mean,
    photometric_error,
    reprojection_error,
    smallest_error,
    smoothness,
    ssim_distance,
    warp_image,
)


@pytest.fixture(scope='module')
def formulas(golden_dir):
    arrays = np.load(golden_dir / 'rendering_supervision_small.npz')
    return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@pytest.fixture(scope='module')
def case(golden_dir):
    case = torch.load(golden_dir / 'gaussianocc_small.pt', weights_only=True)
    return {**case, 'config': json.loads(case['config_json'])}


def minimum_error(*args, **options):
    return masked_mean(*smallest_error(*args, **options))


def photo(formulas, name):
    return formulas[f'photo/{name}']


def test_errors_of_the_formula_case(formulas):
    target, one, other = (photo(formulas, name) for name in ('target', 'pred_a', 'pred_b'))
    assert_close(ssim_distance(one, target), photo(formulas, 'ssim_loss_map_a'), rtol=1e-9, atol=1e-12)
    errors = [photometric_error(image, target) for image in (one, other)]
    for error, name in zip(errors, ('pe_a', 'pe_b')):
        assert_close(error[:, 0], photo(formulas, name), rtol=1e-9, atol=1e-12)
    assert_close(minimum_error(errors), photo(formulas, 'min_ab_mean'), rtol=1e-9, atol=0)
    still = [photometric_error(photo(formulas, name), target) for name in ('src_a', 'src_b')]
    assert_close(minimum_error(errors, still), photo(formulas, 'automask_min_mean_nonoise'), rtol=1e-9, atol=0)


def test_smoothness_of_the_formula_case(formulas):
    loss = smoothness(photo(formulas, 'depth'), photo(formulas, 'target'))
    assert_close(loss, photo(formulas, 'smooth'), rtol=1e-9, atol=0)


def test_warp_of_the_formula_case(formulas):
    source, depth = formulas['warp/source'][None], formulas['warp/depth'][None, None]
    K, motion = formulas['warp/K'][None, :3, :3], formulas['warp/cam_T_cam'][None]
    warped = warp_image(source, depth, K, K, motion, half_pixel=False)
    assert_close(warped.image[0], formulas['warp/warped_border'], rtol=1e-9, atol=1e-12)
    size = torch.tensor([source.shape[-1], source.shape[-2]])
    assert_close((warped.grid[0] + 1) / 2 * (size - 1), formulas['warp/pix_uv'], rtol=1e-9, atol=1e-9)


def warped_neighbours(case, half_pixel=False):
    inputs = case['inputs']
    K = {f: inputs['K_scaled'][f][:, :3, :3] for f in (0, -1, 1)}
    size = (case['config']['H'], case['config']['W'])
    depth = torch.nn.functional.interpolate(case['render']['depth'], size, mode='bilinear', align_corners=False)
    images = {f: inputs['color'][f].float() / 255 for f in (0, -1, 1)}
    warps = {f: warp_image(images[f], depth, K[0], K[f], case['taps']['cam_T_cam'][f], half_pixel) for f in (-1, 1)}
    return images, depth, warps


@pytest.mark.parametrize('frame', [-1, 1])
def test_warped_neighbours_of_the_original(case, frame):
    _, _, warps = warped_neighbours(case)
    theirs = case['taps']['sample'][frame]
    compared = theirs.abs() < 3
    assert compared.float().mean() > 0.5
    assert_close(warps[frame].grid[compared], theirs[compared], rtol=0, atol=1e-4)
    # where a pixel is looked up far away, a difference of 1e-4 in the place is one of the picture as well
    close = (warps[frame].image - case['taps']['warped'][frame]).abs()
    assert close.mean() < 1e-4 and close.max() < 0.05


@pytest.mark.parametrize('masked', [False, True])
def test_photometric_loss_of_the_original(case, masked):
    images, depth, warps = warped_neighbours(case)
    errors = [photometric_error(warps[f].image, images[0]) for f in (-1, 1)]
    parts = case['loss_parts']
    for error, name in zip(errors, ('pe_prev', 'pe_next')):
        assert_close(error, parts[name], rtol=0, atol=1e-4)
    still = [photometric_error(images[f], images[0]) for f in (-1, 1)]
    noise = case['inputs']['automask_noise'].float() * 1e-5
    smooth = smoothness(depth, images[0])
    weight = case['config']['loss_weights']['smooth']
    if masked:
        loss = minimum_error(errors, still, case['inputs']['mask'], 'zero', noise)
        assert_close(loss + weight * smooth, case['losses_masked']['loss_pe/0'], rtol=1e-5, atol=0)
    else:
        loss = minimum_error(errors, still, noise=noise)
        assert_close(loss, parts['photometric'], rtol=1e-5, atol=0)
        assert_close(smooth, parts['smooth'], rtol=1e-5, atol=0)
        assert_close(loss + weight * smooth, case['losses']['loss_pe/0'], rtol=1e-5, atol=0)
        winner = torch.cat([*(s + n for s, n in zip(still, noise.unsqueeze(2).unbind(1))), *errors], 1).argmin(1)
        assert (winner == case['loss_parts']['choice']).float().mean() > 0.999


@pytest.mark.parametrize('masked', [False, True])
def test_reprojection_in_one_call(case, masked):
    images, depth, _ = warped_neighbours(case)
    K = {f: case['inputs']['K_scaled'][f][:, :3, :3] for f in (0, -1, 1)}
    neighbours = [Neighbour(images[f], K[f], case['taps']['cam_T_cam'][f]) for f in (-1, 1)]
    noise = case['inputs']['automask_noise'].float() * 1e-5
    mask = case['inputs']['mask'] if masked else None
    errors = reprojection_error(depth, images[0], K[0], neighbours, mask, True, 'zero', False, noise=noise)
    smooth = case['config']['loss_weights']['smooth'] * smoothness(depth, images[0])
    expected = case['losses_masked' if masked else 'losses']['loss_pe/0']
    assert_close(masked_mean(*errors) + smooth, expected, rtol=1e-5, atol=0)


def test_only_visible_pixels_count():
    image, K = torch.rand(1, 3, 6, 8), torch.tensor([[[4.0, 0, 4], [0, 4, 3], [0, 0, 1]]])
    sideways = torch.eye(4)[None].clone()
    sideways[:, 0, 3] = 2.0
    depth = torch.full((1, 1, 6, 8), 4.0, requires_grad=True)
    neighbours = [Neighbour(torch.rand(1, 3, 6, 8), K, sideways)]
    error, counted = reprojection_error(depth, image, K, neighbours, automask=False, visible_only=True)
    assert counted[..., :5].all() and not counted[..., 7:].any()
    masked_mean(error, counted).backward()
    assert depth.grad.isfinite().all()


def test_identity_returns_the_neighbour():
    source, depth = torch.rand(2, 3, 6, 9), 1 + 20 * torch.rand(2, 1, 6, 9)
    K = torch.tensor([[7.0, 0, 4.4], [0, 6, 3.1], [0, 0, 1]]).expand(2, 3, 3)
    for half_pixel in (False, True):
        warped = warp_image(source, depth, K, K, torch.eye(4).expand(2, 4, 4), half_pixel)
        assert_close(warped.image, source, rtol=0, atol=1e-5)
    assert warped.visible.all()


def test_a_step_ahead_moves_a_centred_wall_by_similar_triangles():
    """A camera that drives 2 m towards a wall 10 m away sees it 1.25 times as large about the principal point."""
    K = torch.tensor([[[8.0, 0, 8], [0, 8, 4], [0, 0, 1]]], dtype=torch.float64)
    motion = torch.eye(4, dtype=torch.float64)[None].clone()
    motion[:, 2, 3] = -2
    depth = torch.full((1, 1, 8, 16), 10.0, dtype=torch.float64)
    warped = warp_image(torch.rand(1, 3, 8, 16, dtype=torch.float64), depth, K, K, motion)
    uv = (warped.grid[0] + 1) / 2 * torch.tensor([16.0, 8.0])
    assert_close(uv[2, 5], torch.tensor([8 + 1.25 * (5.5 - 8), 4 + 1.25 * (2.5 - 4)], dtype=torch.float64), rtol=0, atol=1e-6)
    assert not warped.visible[0, 0, 0, 0] and warped.visible[0, 0, 4, 8]


def test_points_behind_the_camera_are_not_visible():
    K = torch.eye(3)[None] * torch.tensor([4.0, 4, 1])
    motion = torch.eye(4)[None].clone()
    motion[:, 2, 3] = -5
    warped = warp_image(torch.rand(1, 3, 4, 4), torch.full((1, 1, 4, 4), 2.0), K, K, motion)
    assert not warped.visible.any() and warped.image.isfinite().all()


def test_masked_pixels_are_left_out_or_win_with_zero():
    error = torch.full((1, 1, 2, 2), 0.5, requires_grad=True)
    mask = torch.tensor([[[[1, 0], [1, 1]]]])
    assert_close(minimum_error([error], mask=mask), torch.tensor(0.5))
    assert_close(minimum_error([error], mask=mask, mask_mode='zero'), torch.tensor(0.375))
    loss = minimum_error([error], mask=torch.zeros(1, 1, 2, 2))
    loss.backward()
    assert loss == 0 and not error.grad.any()
    with pytest.raises(ValueError, match='mask_mode'):
        minimum_error([error], mask=mask, mask_mode='other')


def test_gradients_in_double_precision():
    torch.manual_seed(3)
    image, source = torch.rand(1, 3, 5, 6, dtype=torch.float64), torch.rand(1, 3, 5, 6, dtype=torch.float64)
    K = torch.tensor([[[5.0, 0, 3], [0, 5, 2.5], [0, 0, 1]]], dtype=torch.float64)
    depth = (5 + torch.rand(1, 1, 5, 6, dtype=torch.float64)).requires_grad_()
    motion = torch.eye(4, dtype=torch.float64)[None].clone()
    motion[:, :3, 3] = torch.tensor([0.31, -0.12, 0.4])
    motion.requires_grad_()

    def loss(depth, motion):
        error = photometric_error(warp_image(source, depth, K, K, motion).image, image)
        return minimum_error([error]) + smoothness(depth, image)

    assert torch.autograd.gradcheck(loss, (depth, motion), eps=1e-7, atol=1e-5)


def test_depth_on_the_own_car_continues_what_is_around():
    image = torch.rand(1, 3, 6, 4)
    image[:, :, 4:] = 0
    mask = torch.ones(1, 1, 6, 4)
    mask[:, :, 4:] = 0
    depth = torch.full((1, 1, 6, 4), 5.0)
    assert smoothness(depth, image, mask) < 1e-6
    depth[:, :, 4:] = 50.0
    edge = torch.exp(-image.diff(dim=2)[:, :, 3].abs().mean(1))
    inverse = (1 / depth) / (1 / depth).mean()
    step = (inverse[0, 0, 3, 0] - inverse[0, 0, 4, 0]).abs()
    # one of five rows of differences; without the mask the edge of the image excuses it
    assert_close(smoothness(depth, image, mask), step / 5, rtol=1e-4, atol=0)
    assert_close(smoothness(depth, image), step * edge.mean() / 5, rtol=1e-4, atol=0)
