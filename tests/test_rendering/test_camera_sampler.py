import copy

import numpy as np
import pytest
import torch

from projects.gaussrender import CameraBatch
from projects.rendering.camera_sampler import CameraSampler


@pytest.fixture
def six_cameras():
    ref2cam = torch.eye(4).repeat(2, 6, 1, 1)
    ref2cam[..., 0, 3] = torch.arange(6.0)
    K = torch.tensor([[100.0, 0, 80], [0, 100, 45], [0, 0, 1]]).repeat(2, 6, 1, 1)
    return CameraBatch(ref2cam, K, 160, 90)


def test_weights_decide_how_often_a_camera_is_drawn():
    sampler = CameraSampler(num_cameras=8000, weights=[2, 1, 1, 2, 1, 1])
    counts = torch.bincount(sampler.draw(6)['indices'], minlength=6) / 8000
    np.testing.assert_allclose(counts.numpy(), [1 / 4, 1 / 8, 1 / 8, 1 / 4, 1 / 8, 1 / 8], atol=0.02)
    uniform = torch.bincount(CameraSampler(num_cameras=8000).draw(4)['indices'], minlength=4) / 8000
    np.testing.assert_allclose(uniform.numpy(), [0.25] * 4, atol=0.02)


def test_one_draw_serves_the_batch_and_may_repeat_cameras(six_cameras):
    cameras = CameraSampler(num_cameras=9)(six_cameras)
    assert cameras.ref2cam.shape == (2, 9, 4, 4)
    torch.testing.assert_close(cameras.ref2cam[0], cameras.ref2cam[1])
    assert CameraSampler()(six_cameras).num_cameras == 1


def test_fixed_indices(six_cameras):
    assert CameraSampler(indices=[4, 1], weights=[1, 2])(six_cameras).ref2cam[0, :, 0, 3].tolist() == [4, 1]
    assert CameraSampler(indices='all')(six_cameras).ref2cam[0, :, 0, 3].tolist() == [0, 1, 2, 3, 4, 5]


def test_reduction_and_image_size(six_cameras):
    small = CameraSampler(reduction=4)(six_cameras)
    assert (small.width, small.height) == (40, 22)
    np.testing.assert_allclose(small.K[0, 0].numpy(), [[25, 0, 20], [0, 25, 11.25], [0, 0, 1]])
    own = CameraSampler(type='ListCameras', ref2cam=np.eye(4)[None], K=np.diag([30.0, 30, 1])[None], width=64, height=32)
    listed = own(six_cameras)
    assert (listed.width, listed.height, listed.num_cameras) == (64, 32, 1)


def sequence(sampler, cameras, steps):
    return torch.stack([sampler(cameras).ref2cam for _ in range(steps)])


def make(**kwargs):
    return CameraSampler(type='RandomCameras', num_cameras=2, **kwargs)


def test_sequence_depends_on_the_seed_alone(six_cameras):
    first = sequence(make(), six_cameras, 4)
    torch.manual_seed(99)
    torch.testing.assert_close(sequence(make(), six_cameras, 4), first, rtol=0, atol=0)
    assert not torch.equal(sequence(make(seed=1), six_cameras, 4), first)
    assert not torch.equal(first[0], first[1])


def test_drawing_ahead_changes_nothing_and_draws_can_be_replayed(six_cameras):
    sampler = make()
    draws = sampler.draw(6)
    assert sampler.steps == 0
    torch.testing.assert_close(sampler.place(six_cameras, draws).ref2cam, sampler(six_cameras).ref2cam, rtol=0, atol=0)
    assert sampler.steps == 1
    given = sampler.draw(6, torch.Generator().manual_seed(3))
    torch.testing.assert_close(given, sampler.draw(6, torch.Generator().manual_seed(3)))


def test_ranks_draw_differently(six_cameras, monkeypatch):
    def at_rank(rank):
        monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
        monkeypatch.setattr(torch.distributed, 'get_rank', lambda: rank)
        return sequence(make(), six_cameras, 3)

    zero, one = at_rank(0), at_rank(1)
    assert not torch.equal(zero, one)
    monkeypatch.undo()
    torch.testing.assert_close(sequence(make(), six_cameras, 3), zero, rtol=0, atol=0)


def test_a_resumed_run_draws_what_an_uninterrupted_one_draws(six_cameras, tmp_path):
    run = make()
    uninterrupted = sequence(copy.deepcopy(run), six_cameras, 7)
    sequence(run, six_cameras, 3)
    torch.save(run.state_dict(), tmp_path / 'state.pth')
    resumed = make()
    resumed.load_state_dict(torch.load(tmp_path / 'state.pth', weights_only=True))
    torch.testing.assert_close(sequence(resumed, six_cameras, 4), uninterrupted[3:], rtol=0, atol=0)


def test_weights_without_the_state_load_strictly():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.cameras = torch.nn.Linear(2, 2), make()

    model = Model()
    state = model.state_dict()
    assert list(state) == ['layer.weight', 'layer.bias', 'cameras._extra_state'] and state['cameras._extra_state'].dim() == 0
    del state['cameras._extra_state']
    model.cameras.steps = 5
    model.load_state_dict(state, strict=True)
    assert model.cameras.steps == 5
    with pytest.raises(RuntimeError, match='layer.bias'):
        model.load_state_dict({'layer.weight': state['layer.weight']}, strict=True)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(num_cameras=2, indices=[0]), r'cameras.indices=\[0\] fixes the cameras, so cameras.num_cameras=2'),
        (dict(num_cameras=0), 'cameras.num_cameras must be at least 1, got 0'),
        (dict(indices='front'), "cameras.indices must be a list of camera indices or 'all', got 'front'"),
        (dict(indices=[]), r"cameras.indices must be a list of camera indices or 'all', got \[\]"),
        (dict(weights=[]), r'cameras.weights must be non-negative numbers with a positive sum, got \[\]'),
        (dict(weights=[0, 0]), r'cameras.weights must be non-negative numbers with a positive sum, got \[0, 0\]'),
        (dict(reduction=0.5), 'cameras.reduction must be at least 1, got 0.5'),
        (dict(seed=-1), 'cameras.seed must not be negative, got -1'),
        (dict(type='Sensor'), "unknown camera strategy 'Sensor'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        CameraSampler(**arguments)


def test_one_index_is_a_list_of_one(six_cameras):
    assert torch.equal(CameraSampler(indices=4)(six_cameras).ref2cam, CameraSampler(indices=[4])(six_cameras).ref2cam)


def test_wrong_number_of_weights(six_cameras):
    with pytest.raises(ValueError, match='cameras.weights has 2 entries, but the batch has 6 cameras'):
        CameraSampler(weights=[1, 2])(six_cameras)
    with pytest.raises(ValueError, match=r'camera indices must lie in 0..5'):
        CameraSampler(indices=[6])(six_cameras)
