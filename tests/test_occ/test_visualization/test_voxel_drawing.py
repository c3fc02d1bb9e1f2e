"""The ray caster against projection formulas and a brute-force march."""

import numpy as np
import pytest
from matplotlib.path import Path as Polygon
from scipy.spatial import ConvexHull

from projects.occ.visualization.view_cameras import look_at, project_matrix
from projects.occ.visualization.voxel_drawing import FACE_LIGHT, draw_voxels

FREE = 9
COLORS = np.zeros((256, 3), dtype=np.uint8)
COLORS[:3] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
DRAWN = np.zeros(256, dtype=bool)
DRAWN[:3] = True
LOWER, SIZE = np.array([-2.0, -1.5, 0.5]), np.array([0.5, 0.25, 0.4])
WIDTH, HEIGHT = 90, 60
CAM2IMG = np.array([[80.0, 0, 41.0], [0, 75.0, 33.0], [0, 0, 1]])


def volume(**voxels):
    """Empty (8, 12, 5) grid with voxels ``label_x_y_z``."""
    labels = np.full((8, 12, 5), FREE, dtype=np.uint8)
    for name in voxels:
        label, x, y, z = (int(part) for part in name[1:].split('_'))
        labels[x, y, z] = label
    return labels


def draw(labels, ref2img, **kwargs):
    return draw_voxels(labels, COLORS, DRAWN, LOWER, SIZE, ref2img, WIDTH, HEIGHT, free_index=FREE, **kwargs)


def camera(eye=(-5.0, 1.0, 3.0), target=(0.0, 0.0, 1.5)):
    return project_matrix(look_at(eye, target), CAM2IMG)


def pixel_centres():
    u, v = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    return np.stack([u, v], -1).reshape(-1, 2)


def corners(index):
    return LOWER + (np.asarray(index) + np.indices((2, 2, 2)).reshape(3, 8).T) * SIZE


def project(points, ref2img):
    uvd = points @ ref2img[:3, :3].T + ref2img[:3, 3]
    return uvd[:, :2] / uvd[:, 2:], uvd[:, 2]


@pytest.mark.parametrize('eye', [(-5.0, 1.0, 3.0), (4.0, 4.0, 2.0), (0.3, -6.0, -1.0), (-0.2, 0.1, 5.0)])
def test_single_voxel_projects_where_the_formula_says(eye):
    matrix = camera(eye, (-0.25, 0.1, 1.5))
    index = (3, 6, 2)
    view = draw(volume(_1_3_6_2=1), matrix)
    pixels, depth = project(corners(index), matrix)
    outline = pixels[ConvexHull(pixels).vertices]
    inside = Polygon(outline).contains_points(pixel_centres(), radius=-1e-6).reshape(HEIGHT, WIDTH)
    outside = ~Polygon(outline).contains_points(pixel_centres(), radius=1e-6).reshape(HEIGHT, WIDTH)
    hit = view.labels == 1
    # contains_points takes radius with the sign of the orientation: accept either, disagreement is allowed on the line only
    certain = inside | outside
    assert inside.sum() > 20 and certain.mean() > 0.95
    np.testing.assert_array_equal(hit[inside & ~outside], True)
    np.testing.assert_array_equal(hit[outside & ~inside], False)
    assert depth.min() - 1e-4 <= view.depth[hit].min() and view.depth[hit].max() <= depth.max() + 1e-4
    assert (view.depth[~hit] == 0).all() and (view.labels[~hit] == FREE).all()
    # coverage of the antialiased picture is the area of the outline
    assert view.rgba[..., 3].sum() / 255 == pytest.approx(ConvexHull(pixels).volume, rel=0.03)


def test_depth_of_a_face_is_camera_z():
    # looks straight along +x at the faces x = LOWER + 4 * SIZE
    labels = volume()
    labels[4] = 0
    view = draw(labels, camera((-6.0, 0.0, 1.5), (1.0, 0.0, 1.5)))
    hit = view.labels == 0
    assert hit.sum() > 500
    np.testing.assert_allclose(view.depth[hit], 6.0 + LOWER[0] + 4 * SIZE[0], atol=1e-5)


def test_nearer_voxel_hides_farther():
    matrix = camera((-6.0, 0.05, 1.55), (1.0, 0.05, 1.55))
    far = draw(volume(_1_7_6_2=1), matrix)
    both = draw(volume(_1_7_6_2=1, _2_2_6_2=1), matrix)
    assert (far.labels == 1).any()
    assert not (both.labels == 1).any() and (both.labels == 2).sum() > (far.labels == 1).sum()
    assert (both.depth[far.labels == 1] < far.depth[far.labels == 1]).all()


def test_only_drawn_ids_are_drawn():
    labels = volume(_1_3_6_2=1)
    labels[labels == FREE] = 7
    assert set(np.unique(draw(labels, camera()).labels)) == {1, FREE}


def test_equals_a_brute_force_march():
    rng = np.random.default_rng(0)
    labels = np.where(rng.random((8, 12, 5)) < 0.1, rng.integers(0, 3, (8, 12, 5)), FREE).astype(np.uint8)
    matrix = camera((-4.0, 2.5, 3.0), (0.0, -0.2, 1.4))
    view = draw(labels, matrix, samples=1)
    inverse = np.linalg.inv(matrix)
    homogeneous = np.concatenate([pixel_centres(), np.ones((WIDTH * HEIGHT, 1))], 1)
    rays = homogeneous @ inverse[:3, :3].T
    expected = np.full(WIDTH * HEIGHT, FREE)
    depth = np.zeros(WIDTH * HEIGHT)
    for t in np.arange(0.1, 12, 0.004):
        index = np.floor((inverse[:3, 3] + t * rays - LOWER) / SIZE).astype(int)
        inside = ((index >= 0) & (index < labels.shape)).all(1) & (expected == FREE)
        found = np.zeros(len(index), bool)
        found[inside] = DRAWN[labels[tuple(index[inside].T)]]
        expected[found], depth[found] = labels[tuple(index[found].T)], t
    assert (expected != FREE).sum() > 500
    same = (view.labels.ravel() == expected) & (np.abs(view.depth.ravel() - depth) < 0.0045)
    assert same.mean() > 0.997  # the march misses corners between two steps


def test_camera_inside_the_grid():
    labels = volume(_0_3_6_2=1, _1_6_6_2=1)
    eye = LOWER + (np.array([3, 6, 2]) + 0.5) * SIZE
    view = draw(labels, camera(eye, eye + [1.0, 0, 0]))
    # its own voxel is not drawn, the one ahead is
    assert set(np.unique(view.labels)) == {1, FREE}
    assert view.depth[HEIGHT // 2, WIDTH // 2] == pytest.approx(2.5 * SIZE[0], abs=1e-5)
    # nothing behind the camera, nothing nearer than the near plane
    assert (draw(labels, camera(eye, eye - [1.0, 0, 0])).labels == FREE).all()
    assert (draw(labels, camera(eye, eye + [1.0, 0, 0]), near=2.0).labels == FREE).all()


def test_edges_are_smooth_only_with_several_samples():
    labels, matrix = volume(_1_3_6_2=1), camera()
    assert set(np.unique(draw(labels, matrix, samples=1).rgba[..., 3])) == {0, 255}
    smooth = draw(labels, matrix, samples=4).rgba[..., 3]
    assert len(np.unique(smooth)) > 6


def test_faces_and_corners_are_shaded():
    labels = volume()
    labels[:, :, 0] = 0
    matrix = project_matrix(look_at((-0.1, 0.01, 6.0), (-0.1, 0.0, 0.0)), CAM2IMG)
    flat = draw(labels, matrix, line=0.0)
    lit = flat.rgba[(flat.labels == 0) & (flat.rgba[..., 3] == 255)]
    assert (lit[:, 0] == round(200 * FACE_LIGHT[5])).all()
    labels[4, :, 1:3] = 1
    walled = draw(labels, matrix, line=0.0)
    beside = walled.rgba[(walled.labels == 0) & (walled.rgba[..., 3] == 255)][:, 0]
    assert beside.min() < 0.8 * 200 and beside.max() == 200
    lined = draw(volume(_0_3_6_2=1), camera((-1.5, 0.2, 1.5), (0.0, 0.1, 1.5)), line=0.5, shadow=0.0)
    reds = lined.rgba[lined.rgba[..., 3] == 255][:, 0]
    assert reds.min() < 0.6 * reds.max()


def test_over_blends_with_alpha():
    view = draw(volume(_1_3_6_2=1), camera())
    background = np.full((HEIGHT, WIDTH, 3), 100, dtype=np.uint8)
    full, half = view.over(background), view.over((100, 100, 100), opacity=0.5)
    clear, solid = view.rgba[..., 3] == 0, view.rgba[..., 3] == 255
    assert (full[clear] == 100).all() and (half[clear] == 100).all()
    np.testing.assert_array_equal(full[solid], view.rgba[solid][:, :3])
    assert np.abs(half[solid].astype(int) - (view.rgba[solid][:, :3].astype(int) + 100) / 2).max() <= 0.5


def test_flipped_projection_draws_the_mirror_image():
    labels = volume(_0_3_6_2=1, _1_5_2_1=1)
    matrix = camera()
    mirror = np.eye(4)
    mirror[0, 0], mirror[0, 2] = -1, WIDTH
    np.testing.assert_array_equal(draw(labels, mirror @ matrix).labels, draw(labels, matrix).labels[:, ::-1])


def test_errors():
    with pytest.raises(ValueError, match=r'labels must be a volume \(X, Y, Z\), got shape \(4, 4\)'):
        draw(np.zeros((4, 4), np.uint8), camera())
    with pytest.raises(ValueError, match='ref2img must be an invertible 4x4 matrix'):
        draw(volume(), np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r'invertible 4x4 matrix.*got shape \(3, 4\)'):
        draw(volume(), camera()[:3])


def test_published_label_from_the_drivers_seat(shared_data):
    folder = shared_data / 'occ3d_label' / '29796060110c4163b07f06eff4af0753'
    with np.load(folder / 'labels.npz') as data:
        labels = data['semantics']
    colors, drawn = np.zeros((256, 3), np.uint8), np.arange(256) < 17
    matrix = project_matrix(look_at((1.5, 0, 1.6), (10, 0, 1.3)), [[400.0, 0, 320], [0, 400, 180], [0, 0, 1]])
    view = draw_voxels(labels, colors, drawn, (-40, -40, -1), (0.4,) * 3, matrix, 640, 360, free_index=17)
    # the road fills the lower middle: its top lies 0.6 m below the ego origin, 2.2 m below this camera
    strip = view.labels[300:, 280:360]
    assert (strip == 11).mean() > 0.95
    ray = np.linalg.inv(matrix)[:3, :3] @ [320.5, 330.5, 1]
    assert view.depth[330, 320] == pytest.approx(-2.2 / ray[2], abs=1e-3)
    # sky above
    assert (view.labels[:20, 280:360] == 17).all()
