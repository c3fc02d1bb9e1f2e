import numpy as np
import pytest

from projects.preparation.voxel_rays import mark_traversed, mark_visible

SHAPE = (7, 6, 5)


def _touched_by_sampling(origin, point, shape, step=1e-3):
    """Voxels that contain a sample of the way, tiny touches aside."""
    length = np.linalg.norm(point - origin)
    way = origin + (point - origin) * np.linspace(0, 1, int(length / step) + 2)[:, None]
    index = np.floor(way).astype(int)
    index = index[((index >= 0) & (index < shape)).all(1)]
    cells, count = np.unique(index, axis=0, return_counts=True)
    return {tuple(c) for c in cells}, {tuple(c) for c, n in zip(cells, count) if n > 2}


@pytest.mark.parametrize('seed', range(5))
def test_traversed_voxels_are_those_the_ray_goes_through(seed):
    rng = np.random.default_rng(seed)
    for _ in range(10):
        origin, point = rng.uniform(-3, 9, (2, 3))
        seen = np.zeros(SHAPE, bool)
        mark_traversed(seen, origin, point[None])
        marked = {tuple(c) for c in np.argwhere(seen)}
        touched, surely = _touched_by_sampling(origin, point, SHAPE)
        assert surely <= marked
        # what sampling missed is at most a corner cut shorter than two steps
        assert len(marked - touched) <= 2


def test_rays_along_axes_and_within_one_voxel():
    seen = np.zeros(SHAPE, bool)
    mark_traversed(seen, np.array([-2.0, 2.5, 1.5]), np.array([[4.5, 2.5, 1.5]]))
    assert np.array_equal(np.argwhere(seen), [[x, 2, 1] for x in range(5)])
    seen[:] = False
    mark_traversed(seen, np.array([2.2, 2.5, 1.5]), np.array([[2.3, 2.5, 1.6], [2.2, 2.5, 1.5]]))
    assert np.argwhere(seen).tolist() == [[2, 2, 1]]
    mark_traversed(seen, np.array([2.5, 2.5, 9.0]), np.array([[2.5, 2.5, 4.2], [2.5, 2.5, 7.0]]))
    assert np.argwhere(seen).tolist() == [[2, 2, 1], [2, 2, 4]]


def test_a_wall_hides_what_is_behind_it():
    occupied = np.zeros(SHAPE, bool)
    occupied[3, 1:4, :] = True
    visible = np.zeros(SHAPE, bool)
    everything = np.argwhere(np.ones(SHAPE, bool))
    mark_visible(visible, occupied, np.array([-4.0, 2.5, 2.5]), everything)
    assert visible[:3].all() and visible[3, 1:4].all()
    assert not visible[4:, 2, :].any()
    assert visible[6, 5, 2]  # past the wall's end
    visible[:] = False
    mark_visible(visible, occupied, np.array([-4.0, 2.5, 2.5]), everything[:0])
    assert not visible.any()


def test_a_camera_inside_the_grid_sees_all_of_an_empty_grid():
    visible = np.zeros(SHAPE, bool)
    mark_visible(visible, np.zeros(SHAPE, bool), np.array([3.3, 2.2, 1.1]), np.argwhere(~visible))
    assert visible.all()


def test_a_flat_road_is_seen_to_its_end():
    """Under a low sun of sight the way to a voxel's centre leads through its neighbours, but its upper face is open."""
    road = np.zeros((60, 9, 6), bool)
    road[:, :, 0] = True
    visible = np.zeros(road.shape, bool)
    mark_visible(visible, road, np.array([0.5, 4.5, 4.0]), np.argwhere(road))
    assert visible[:, :, 0].all()
    # a kerb hides the road behind it
    road[30, :, 1:3] = True
    visible[:] = False
    mark_visible(visible, road, np.array([0.5, 4.5, 4.0]), np.argwhere(road))
    assert visible[:30, :, 0].all() and visible[30, :, 2].all() and not visible[32:45, :, 0].any()
