import pytest
import torch

from projects.occ.structures import Rays


def some_rays(count, **more):
    torch.manual_seed(count)
    direction = torch.nn.functional.normalize(torch.randn(1, count, 3), dim=-1)
    ones = torch.ones(1, count)
    return Rays(torch.randn(1, count, 3), direction, ones * 0.9, ones.bool(), depth=ones * count, **more)


def test_stacking_pads_with_rays_that_do_not_count():
    items = [some_rays(3, labels=torch.tensor([[1, 2, 3]])), some_rays(5, labels=torch.arange(5)[None]), some_rays(0)]
    both = Rays.stack(items[:2], ignore_index=99)
    assert both.batch_size == 2 and both.num_rays == 5 and both.valid.sum(1).tolist() == [3, 5]
    assert both.labels.tolist() == [[1, 2, 3, 99, 99], [0, 1, 2, 3, 4]] and both.view is None
    assert torch.allclose(both.direction.norm(dim=-1), torch.ones(2, 5))
    alone = both.samples([0])
    for name in ('origin', 'direction', 'depth', 'depth_per_range'):
        assert torch.equal(getattr(alone, name)[:, :3], getattr(items[0], name))
    # a sample without rays, and without classes
    all_three = Rays.stack(items)
    assert all_three.valid.sum(1).tolist() == [3, 5, 0] and all_three.labels is None
    assert Rays.stack([some_rays(0)]).num_rays == 0


def test_shapes_are_checked():
    rays = some_rays(4)
    with pytest.raises(ValueError, match='labels'):
        Rays(rays.origin, rays.direction, rays.depth_per_range, rays.valid, labels=torch.zeros(1, 3))


def test_moving_keeps_whole_numbers():
    rays = some_rays(2, frame=torch.tensor([[0, -1]])).to(torch.float64)
    assert rays.origin.dtype == torch.float64 and rays.frame.dtype == torch.int64 and rays.valid.dtype == torch.bool
