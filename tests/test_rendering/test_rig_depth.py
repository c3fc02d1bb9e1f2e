"""Losses of a rig that learns depth and motion: pieces, warm-up, masks, batches, degenerate inputs."""

import copy

import pytest
import torch
from torch.testing import assert_close

from projects.rendering.photometric import Neighbour
from projects.rendering.rig_depth import RigDepthLoss

SIZE = (24, 40)


def rig(count=3):
    """Cameras in a ring with overlapping views, ego x ahead."""
    poses = []
    for i in range(count):
        yaw = torch.tensor(2 * torch.pi * i / max(count, 3))
        ahead = torch.stack([yaw.cos(), yaw.sin(), torch.zeros(())])
        left = torch.stack([-yaw.sin(), yaw.cos(), torch.zeros(())])
        pose = torch.eye(4)
        pose[:3, :3] = torch.stack([-left, torch.tensor([0.0, 0, -1]), ahead], 1)
        pose[:3, 3] = 0.4 * ahead + torch.tensor([0, 0, 1.5])
        poses.append(pose)
    K = torch.tensor([[10.0, 0, SIZE[1] / 2], [0, 10.0, SIZE[0] / 2], [0, 0, 1]])
    return K.expand(count, 3, 3).clone(), torch.stack(poses)


def inputs(batch=1, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    K, cam2ref = (part.expand(batch, *part.shape).clone() for part in rig(count))
    image = torch.rand(batch, count, 3, *SIZE, generator=generator)
    depth = 4 + 3 * torch.rand(batch, count, 1, *SIZE, generator=generator)
    motion = torch.eye(4).expand(batch, count, 4, 4).clone()
    motion[..., 2, 3] = -0.5
    neighbours = [
        Neighbour(torch.rand(batch, count, 3, *SIZE, generator=generator), K, step)
        for step in (torch.linalg.inv(motion), motion)
    ]
    return dict(depth=depth.requires_grad_(), image=image, K=K, cam2ref=cam2ref, neighbours=neighbours)


def test_terms_and_gradients():
    values = inputs()
    values['neighbours'][0].motion.requires_grad_()
    losses = RigDepthLoss(warmup_steps=0)(**values)
    assert list(losses) == ['loss_photometric', 'loss_smooth', 'loss_cross_view']
    for name, loss in losses.items():
        values['depth'].grad = None
        loss.backward(retain_graph=True)
        assert loss > 0 and values['depth'].grad.abs().sum() > 0, name
    assert values['neighbours'][0].motion.grad.abs().sum() > 0


def test_terms_of_weight_zero_are_left_out():
    losses = RigDepthLoss(cross_view_weight=0, smooth_weight=0)(**inputs())
    assert list(losses) == ['loss_photometric']


def test_warm_up_is_counted_and_continues_after_loading():
    loss = RigDepthLoss(warmup_steps=4)
    values = inputs()
    shares = [float(loss(**values)['loss_cross_view'].detach()) for _ in range(6)]
    full = shares[-1]
    assert_close(torch.tensor(shares), full * torch.tensor([0, 0.25, 0.5, 0.75, 1, 1]), rtol=1e-4, atol=1e-7)
    again = RigDepthLoss(warmup_steps=4)
    two = RigDepthLoss(warmup_steps=4)
    for _ in range(2):
        two(**values)
    again.load_state_dict(copy.deepcopy(two.state_dict()))
    assert_close(float(again(**values)['loss_cross_view'].detach()), full * 0.5, rtol=1e-4, atol=1e-7)
    again.eval()
    before = again.step
    again(**values)
    assert again.step == before


def test_batch_of_two_is_the_mean_of_its_pixels():
    loss = RigDepthLoss(warmup_steps=0, cross_view_weight=1).eval()
    pair = inputs(batch=2)
    parts = []
    for b in range(2):
        single = {key: value[b : b + 1] for key, value in pair.items() if key != 'neighbours'}
        single['neighbours'] = [Neighbour(*(part[b : b + 1] for part in neighbour)) for neighbour in pair['neighbours']]
        torch.manual_seed(b)
        parts.append(loss(**single))
    both = loss(**pair)
    assert_close(both['loss_smooth'], (parts[0]['loss_smooth'] + parts[1]['loss_smooth']) / 2, rtol=1e-5, atol=0)
    # the noise that breaks ties is drawn anew
    assert_close(both['loss_photometric'], (parts[0]['loss_photometric'] + parts[1]['loss_photometric']) / 2, rtol=1e-3, atol=0)
    low, high = sorted(float(part['loss_cross_view'].detach()) for part in parts)
    assert low <= float(both['loss_cross_view'].detach()) <= high


@pytest.mark.parametrize('count', [1, 2, 3, 4])
def test_any_number_of_cameras(count):
    values = inputs(count=count)
    losses = RigDepthLoss(warmup_steps=0)(**values)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values()) and values['depth'].grad.isfinite().all()


def test_everything_masked_and_a_car_at_rest():
    values = inputs()
    nothing = torch.zeros_like(values['depth'], requires_grad=False)
    losses = RigDepthLoss(warmup_steps=0)(**values, mask=nothing)
    assert losses['loss_photometric'] == 0 and losses['loss_cross_view'] == 0
    still = torch.eye(4).expand(1, 3, 4, 4)
    values['neighbours'] = [Neighbour(values['image'], values['K'], still)] * 2
    losses = RigDepthLoss(warmup_steps=0)(**values)
    sum(losses.values()).backward()
    assert values['depth'].grad.isfinite().all() and losses['loss_photometric'] < 1e-3


def test_windows_that_touch_the_own_car_do_not_count():
    values = inputs()
    mask = torch.ones_like(values['depth'], requires_grad=False)
    mask[..., 16:, :] = 0
    loss = RigDepthLoss(cross_view_weight=0, smooth_weight=0, automask=False)
    before = loss(**values, mask=mask)['loss_photometric']
    values['image'] = values['image'].clone()
    values['image'][..., 16:, :] = 0
    torch.testing.assert_close(loss(**values, mask=mask)['loss_photometric'], before)


def test_own_car_gives_no_gaussians():
    values = inputs()
    mask = torch.ones_like(values['depth'], requires_grad=False)
    mask[..., 16:, :] = 0
    losses = RigDepthLoss(warmup_steps=0, photometric_weight=0, smooth_weight=0)(**values, mask=mask)
    losses['loss_cross_view'].backward()
    assert not values['depth'].grad[..., 16:, :].any() and values['depth'].grad[..., :16, :].any()


@pytest.mark.parametrize('options', [dict(smooth_weight=-1), dict(warmup_steps=-1), dict(mask_mode='none')])
def test_options_that_cannot_be_meant(options):
    with pytest.raises(ValueError, match='RigDepthLoss'):
        RigDepthLoss(**options)
