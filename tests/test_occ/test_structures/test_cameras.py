import math
import pickle
from dataclasses import fields

import pytest
import torch

from projects.gaussrender import CameraBatch
from projects.occ.structures import Cameras
from projects.occ.structures.cameras import looks_inverted


def make(batch=2, views=3, dtype=torch.float64, **changes):
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(batch, views, 3, 3, generator=generator, dtype=torch.float64))[0]
    ref2cam = torch.eye(4, dtype=torch.float64).repeat(batch, views, 1, 1)
    ref2cam[..., :3, :3] = rotation * torch.linalg.det(rotation)[..., None, None].sign()
    ref2cam[..., :3, 3] = torch.randn(batch, views, 3, generator=generator, dtype=torch.float64)
    K = torch.tensor([[20.0, 0, 8], [0, 24, 6], [0, 0, 1]], dtype=torch.float64).repeat(batch, views, 1, 1)
    values = dict(ref2cam=ref2cam.to(dtype), K=K.to(dtype), sizes=torch.tensor([16, 12]).repeat(batch, views, 1))
    return Cameras(**(values | changes))


def test_a_ray_through_a_pixel_meets_the_point_that_projects_there():
    cameras = make()
    generator = torch.Generator().manual_seed(1)
    view = torch.randint(0, 3, (2, 5), generator=generator)
    uv = torch.rand(2, 5, 2, generator=generator, dtype=torch.float64) * 12
    rays = cameras.rays(view, uv)
    torch.testing.assert_close(rays.direction.norm(dim=-1), torch.ones(2, 5, dtype=torch.float64))
    reach = 7.0
    points = torch.cat([rays.origin + reach * rays.direction, torch.ones(2, 5, 1, dtype=torch.float64)], -1)
    batch = torch.arange(2)[:, None]
    local = (cameras.ref2cam[batch, view] @ points[..., None])[..., 0]
    torch.testing.assert_close(local[..., 2], reach * rays.depth_per_range)
    image = (cameras.ref2img[batch, view] @ points[..., None])[..., 0]
    torch.testing.assert_close(image[..., :2] / image[..., 2:3], uv)


def test_rays_pass_gradients_to_the_poses():
    cameras = make()
    ref2cam = cameras.ref2cam.clone().requires_grad_()
    rays = cameras.with_poses(ref2cam).rays(torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1, 2, dtype=torch.float64))
    rays.origin.sum().backward()
    assert ref2cam.grad[:, 0].abs().sum() > 0 and ref2cam.grad[:, 1:].abs().sum() == 0


def test_frames_lie_on_the_view_axis():
    cameras = make(views=4, frame=torch.tensor([0, 0, -1, -1]))
    assert cameras.at(0).num_cameras == 2 and torch.equal(cameras.at(-1).ref2cam, cameras.ref2cam[:, 2:])
    assert cameras.at(0).at(0).num_cameras == 2
    assert cameras.select([3, 0]).frame.tolist() == [-1, 0]
    with pytest.raises(ValueError, match='frame 2'):
        cameras.at(2)


def test_projection_follows_the_warp_unless_it_is_given():
    warp = torch.tensor([[0.5, 0, -1], [0, 0.5, -2], [0, 0, 1]], dtype=torch.float64).repeat(2, 3, 1, 1)
    cameras = make(warp=warp)
    expected = warp @ cameras.K @ cameras.ref2cam[..., :3, :]
    torch.testing.assert_close(cameras.ref2img[..., :3, :], expected)
    torch.testing.assert_close(cameras.network_K, warp @ cameras.K)
    given = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    assert make(warp=warp, network_projection=given).ref2img is given
    assert make(warp=warp, network_projection=given).with_poses(cameras.ref2cam).network_projection is None


def test_sizes_and_frames_stay_on_the_cpu_and_keep_their_type():
    cameras = make().to(torch.float32)
    assert cameras.ref2cam.dtype == cameras.K.dtype == torch.float32 and cameras.sizes.dtype == torch.int64
    assert make().to('meta').sizes.device.type == 'cpu'


def test_different_sizes():
    same = make()
    assert same.one_size == (16, 12) and (same.width, same.height) == (16, 12)
    assert [(b, v) for b, v, _ in same.by_size()] == [([0, 1], [0, 1, 2])]
    sizes = torch.tensor([[16, 12], [8, 6], [16, 12]]).repeat(2, 1, 1)
    by_view = make(sizes=sizes)
    assert by_view.one_size is None
    assert [(b, v, c.one_size) for b, v, c in by_view.by_size()] == [([0, 1], [0, 2], (16, 12)), ([0, 1], [1], (8, 6))]
    sizes = sizes.clone()
    sizes[1, 0] = 4
    groups = list(make(sizes=sizes).by_size())
    assert len(groups) == 6 and groups[3][2].one_size == (4, 4)
    with pytest.raises(ValueError, match='different sizes'):
        _ = by_view.width
    assert by_view.reduced(5).sizes[0].tolist() == [[3, 2], [1, 1], [3, 2]]


def test_stack_joins_samples():
    one, two = make(1), make(1)
    joined = Cameras.stack([one, two])
    assert joined.batch_size == 2 and torch.equal(joined.samples([1]).ref2cam, two.ref2cam)
    with pytest.raises(ValueError, match='batch_size=1'):
        Cameras.stack([one, make(1, 2)])
    with pytest.raises(ValueError, match='batch_size=1'):
        Cameras.stack([one, make(1, frame=torch.tensor([0, 0, 1]))])
    with pytest.raises(ValueError, match='warp'):
        Cameras.stack([one, make(1, warp=torch.eye(3, dtype=torch.float64).repeat(1, 3, 1, 1))])


def test_cameras_travel_between_processes():
    again = pickle.loads(pickle.dumps(make()))
    assert all(torch.equal(getattr(again, f.name), getattr(make(), f.name)) for f in fields(Cameras)[:4])


@pytest.mark.parametrize(
    'change, name',
    [
        (dict(ref2cam=torch.eye(4)), 'ref2cam'),
        (dict(K=torch.eye(3).repeat(2, 2, 1, 1)), 'K'),
        (dict(K=torch.eye(3).long().repeat(2, 3, 1, 1)), 'floating point'),
        (dict(sizes=torch.zeros(2, 3, 2, dtype=torch.long)), 'width and height'),
        (dict(frame=torch.zeros(2, dtype=torch.long)), 'frame'),
        (dict(warp=torch.eye(3)), 'warp'),
        (dict(ref2cam=torch.full((2, 3, 4, 4), torch.nan)), 'finite'),
        (dict(K=-torch.eye(3).repeat(2, 3, 1, 1)), 'focal lengths'),
        (dict(K=(torch.eye(3) + 0.1).repeat(2, 3, 1, 1)), 'last row'),
        (dict(K=torch.tensor([[2.0, 0.5, 1], [0, 2, 1], [0, 0, 1]]).repeat(2, 3, 1, 1)), 'skew'),
        (dict(ref2cam=make().ref2cam.mT.contiguous()), 'transposed'),
    ],
)
def test_what_cannot_be_a_camera_is_refused(change, name):
    with pytest.raises(ValueError, match=name):
        make(**change).checked('frame t7')
    with pytest.raises(ValueError, match='frame t7'):
        make(**change).checked('frame t7')


def test_good_cameras_pass():
    cameras = make()
    assert cameras.checked() is cameras
    skewed = make(K=torch.tensor([[2.0, 0.5, 1], [0, 2, 1], [0, 0, 1]]).repeat(2, 3, 1, 1))
    assert skewed.checked(skew=True) is skewed


def rig(yaws, pitch=0.0):
    """Reference frame (x ahead, y left, z up) -> cameras that look along these directions (radians), 1.5 m up."""
    matrices = []
    for yaw in yaws:
        ahead = torch.tensor([math.cos(yaw) * math.cos(pitch), math.sin(yaw) * math.cos(pitch), -math.sin(pitch)])
        right = torch.tensor([math.sin(yaw), -math.cos(yaw), 0.0])
        rotation = torch.stack([right, torch.linalg.cross(ahead, right), ahead])
        matrix = torch.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ torch.tensor([0.5, 0.0, 1.5])
        matrices.append(matrix)
    return torch.stack(matrices).double()[None]


@pytest.mark.parametrize('yaws', [[0.0], [0.0, 1.0, 2.1, -1.0, 3.1], [0.3, -0.3], [-math.pi / 2]])
@pytest.mark.parametrize('pitch', [0.0, 0.3, -0.1])
def test_inverted_rigs_are_refused(yaws, pitch):
    ref2cam = rig(yaws, pitch)
    views = len(yaws)
    good = make(1, views, ref2cam=ref2cam)
    assert good.checked() is good
    inverted = torch.linalg.inv(ref2cam)
    # a camera that looks to the right is upright either way
    if yaws != [-math.pi / 2]:
        with pytest.raises(ValueError, match='ref2cam is inverted'):
            make(1, views, ref2cam=inverted).checked()
        with pytest.raises(ValueError, match='ref2cam is inverted'):
            CameraBatch(inverted, good.K, 16, 12)
    down = rig([0.0], math.pi / 2 - 1e-3)  # from above
    assert not looks_inverted(down) and not looks_inverted(torch.linalg.inv(down).numpy())
