"""The cross-view loss: the parity case, and where its minimum lies on a rig whose true depths are known."""

import json

import pytest
import torch
from torch.testing import assert_close

from projects.rendering.cross_view import cross_view_loss, erode, overlap_masks, pixel_points, ring_pairs


@pytest.fixture(scope='module')
def case(golden_dir):
    case = torch.load(golden_dir / 'gaussianocc_small.pt', weights_only=True)
    return {**case, 'config': json.loads(case['config_json'])}


@pytest.fixture(scope='module')
def rig(case):
    inputs = case['inputs']
    return dict(
        images=inputs['color'][0].float() / 255,
        K=inputs['K_scaled'][0][:, :3, :3],
        cam2ref=inputs['cam2ego'],
        pairs=[tuple(pair) for pair in case['gsp']['pairs']],
    )


def test_pairs_of_a_ring(case):
    assert ring_pairs(case['config']['N']) == [tuple(pair) for pair in case['gsp']['pairs']]
    assert ring_pairs(2) == [(0, 1), (1, 0)] and ring_pairs(1) == []


def test_masks_of_the_parity_case(case, rig):
    gsp, size = case['gsp'], case['gsp']['depth'].shape[-2:]
    options = {key: gsp[key] for key in ('near', 'far', 'samples', 'need')}
    ours = overlap_masks(rig['K'], rig['cam2ref'], size, rig['pairs'], **options)
    assert ((ours != gsp['overlap']).flatten(1).sum(1) <= 2).all()
    assert torch.equal(erode(gsp['overlap'], gsp['erosion']), gsp['eroded'])


def test_loss_of_the_parity_case(case, rig):
    gsp = case['gsp']
    depth = gsp['depth'].clone().requires_grad_()
    result = cross_view_loss(
        rig['images'],
        depth,
        rig['K'],
        rig['cam2ref'],
        rig['pairs'],
        gsp['overlap'],
        gsp['eroded'],
        scale=gsp['gaussian_scale'],
        alpha_min=gsp['alpha_min'],
        alpha_floor=gsp['alpha_floor'],
    )
    difference = (result.alphas - gsp['alpha']).abs()
    assert difference.max() < 0.02 and (difference > 1e-3).float().mean() < 1e-3
    # the last digits of a depth decide which of two Gaussians comes first
    changed = (result.colors[:2].permute(0, 2, 3, 1) - gsp['color_first_two']).abs().amax(-1)
    assert changed.mean() < 2e-4 and (changed > 1e-3).float().mean() < 0.02
    assert_close(result.counts.double(), gsp['sum_and_count_per_pair'][:, 1], rtol=0, atol=1)
    assert_close(result.loss, gsp['loss'], rtol=1e-5, atol=0)
    result.loss.backward()
    largest = float(gsp['grad_depth'].abs().max())
    error = (depth.grad - gsp['grad_depth']).abs()
    assert error.max() < 0.02 * largest and (error > 1e-3 * largest).float().mean() < 1e-3


def street(rig_K, cam2ref, size, wall=12.0):
    """Images and depths of a textured ground and a round wall, seen by all cameras of a rig."""
    ones = torch.ones(len(rig_K), 1, *size)
    origin = cam2ref[:, :3, 3].unsqueeze(1)
    direction = pixel_points(ones, rig_K, cam2ref) - origin
    ground = torch.where(
        direction[..., 2] < -1e-3, -origin[..., 2] / direction[..., 2], torch.full_like(direction[..., 0], 1e4)
    )
    a, b = (direction[..., :2] ** 2).sum(-1), (origin[..., :2] * direction[..., :2]).sum(-1)
    c = (origin[..., :2] ** 2).sum(-1) - wall**2
    depth = torch.minimum(ground, (-b + (b**2 - a * c).sqrt()) / a)
    point = origin + depth.unsqueeze(-1) * direction
    phases = torch.tensor([[1.1, 0.3, 0.2], [0.4, 1.3, 0.7], [0.2, 0.5, 1.9], [2.3, 1.9, 1.2]])
    waves = torch.stack([torch.sin(point @ phase + 1.3 * i) for i, phase in enumerate(phases)], -1)
    image = 0.5 + 0.25 * torch.stack(
        [waves[..., 0] + 0.6 * waves[..., 3], waves[..., 1], waves[..., 2] - 0.4 * waves[..., 3]], -1
    )
    shape = (len(rig_K), *size)
    return image.clamp(0, 1).view(*shape, 3).permute(0, 3, 1, 2), depth.view(shape).unsqueeze(1)


def nuscenes_like_rig(size):
    """Six cameras in a ring, counter-clockwise, with the fields of view and positions of nuScenes."""
    mounts = [(0, 1.7, 0.0, 0.79), (55, 1.5, 0.5, 0.79), (110, 1.0, 0.5, 0.79), (180, 0.0, 0.0, 0.5), (-110, 1.0, -0.5, 0.79)]
    mounts.append((-55, 1.5, -0.5, 0.79))
    height, width = size
    Ks, poses = [], []
    for yaw, x, y, focal in mounts:
        angle = torch.deg2rad(torch.tensor(float(yaw)))
        ahead = torch.stack([angle.cos(), angle.sin(), torch.tensor(0.0)])
        left = torch.stack([-angle.sin(), angle.cos(), torch.tensor(0.0)])
        pose = torch.eye(4)
        pose[:3, :3] = torch.stack([-left, torch.tensor([0.0, 0, -1]), ahead], 1)
        pose[:3, 3] = torch.tensor([x, y, 1.5])
        poses.append(pose)
        Ks.append(torch.tensor([[focal * width, 0, width / 2], [0, focal * width, height / 2], [0, 0, 1]]))
    return torch.stack(Ks), torch.stack(poses)


@pytest.mark.slow
@pytest.mark.parametrize('wall', [8.0, 12.0])
def test_minimum_at_the_true_scale(wall):
    size = (112, 176)
    K, cam2ref = nuscenes_like_rig(size)
    images, depth = street(K, cam2ref, size, wall)
    pairs = ring_pairs(len(K))
    overlap = overlap_masks(K, cam2ref, size, pairs)
    compared = erode(overlap, 5)

    def loss(factor, literal=False):
        return cross_view_loss(images, depth * factor, K, cam2ref, pairs, overlap, compared, literal=literal).loss

    factors = [0.4, 0.7, 0.9, 1.0, 1.1, 1.4, 2.5]
    with torch.no_grad():
        values = [float(loss(factor)) for factor in factors]
    assert factors[values.index(min(values))] in (0.9, 1.0)
    assert values[0] > 2.5 * min(values) and values[-1] > 2.5 * min(values)
    for start, sign in ((0.8, -1), (1.25, 1)):
        log_scale = torch.tensor(start).log().requires_grad_()
        loss(log_scale.exp()).backward()
        assert log_scale.grad.sign() == sign
    with torch.no_grad():
        literal = [float(loss(factor, literal=True)) for factor in (0.4, 1.0, 2.5)]
    assert literal[0] > literal[1] > literal[2], 'the literal loss prefers depths without end'


def test_nothing_to_compare_is_a_loss_of_zero_with_a_gradient(rig):
    depth = torch.full_like(rig['images'][:, :1], 5.0).requires_grad_()
    size = depth.shape[-2:]
    nothing = torch.zeros(len(rig['pairs']), *size, dtype=torch.bool)
    arguments = (rig['images'], depth, rig['K'], rig['cam2ref'], rig['pairs'], nothing, nothing)
    loss = cross_view_loss(*arguments, use=torch.zeros_like(depth)).loss
    loss.backward()
    assert loss == 0 and not depth.grad.any()


def test_one_camera_has_no_pairs():
    depth = torch.ones(1, 1, 8, 9, requires_grad=True)
    K, pose = torch.eye(3)[None], torch.eye(4)[None]
    masks = overlap_masks(K, pose, (8, 9), [])
    result = cross_view_loss(torch.rand(1, 3, 8, 9), depth, K, pose, [], masks, erode(masks, 5))
    result.loss.backward()
    assert result.loss == 0 and depth.grad is not None


def test_the_border_of_the_image_does_not_erode():
    mask = torch.zeros(1, 7, 9, dtype=torch.bool)
    mask[:, :4, :5] = True
    assert erode(mask, 3)[0, :3, :4].all() and erode(mask, 3).sum() == 12
    with pytest.raises(ValueError, match='odd'):
        erode(mask, 4)
