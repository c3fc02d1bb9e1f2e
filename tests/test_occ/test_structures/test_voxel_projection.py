"""Tests of the projection of voxel centres, also against the published loader."""

import json

import numpy as np
import pytest
import torch

from projects.occ.structures import VoxelGrid, network_intrinsics
from projects.occ.structures.voxel_projection import VoxelProjection, frustum_indices, project_voxel_centres, scaled_shape

NAMES = tuple(f'class_{i}' for i in range(19))
KITTI360 = VoxelGrid((0, -25.6, -2, 51.2, 25.6, 4.4), 0.2, (256, 256, 32), 'lidar', 0, class_names=NAMES)
CAM2IMG = np.array([[552.554261, 0.0, 682.049453], [0.0, 552.554261, 238.769549], [0.0, 0.0, 1.0]])
CAM2VELO = np.array(
    [
        [0.04307104361, -0.08829286498, 0.995162929, 0.8043914418],
        [-0.999004371, 0.007784614041, 0.04392796942, 0.2993489574],
        [-0.01162548558, -0.9960641394, -0.08786966659, -0.1770225824],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


@pytest.fixture(scope='module')
def golden(golden_dir) -> dict:
    return torch.load(golden_dir / 'symphonies_small.pt', weights_only=True)


@pytest.fixture(scope='module')
def golden_grid(golden) -> VoxelGrid:
    config = json.loads(golden['config'])
    lower, shape, size = config['voxel_origin'], config['scene_size'], config['voxel_size']
    upper = [lo + n * size for lo, n in zip(lower, shape)]
    return VoxelGrid((*lower, *upper), size, shape, 'lidar', 0, class_names=NAMES)


def project_golden(golden: dict, grid: VoxelGrid, scale: int) -> VoxelProjection:
    inputs = golden['inputs']
    image_wh = inputs['img'].shape[:-3:-1]
    return project_voxel_centres(grid, inputs['cam_pose'][0].numpy(), inputs['cam_K'][0].numpy(), image_wh, scale)


@pytest.mark.parametrize('scale', [1, 2])
def test_equals_the_published_projection(golden, golden_grid, scale):
    projection = project_golden(golden, golden_grid, scale)
    inputs = golden['inputs']
    np.testing.assert_array_equal(projection.pixels, inputs[f'projected_pix_{scale}'][0].numpy())
    np.testing.assert_array_equal(projection.visible, inputs[f'fov_mask_{scale}'][0].numpy())
    # the file has the extrinsic matrix rounded to float32, the depth was made with the float64 one
    np.testing.assert_allclose(projection.depth, inputs[f'pix_z_{scale}'][0].numpy(), rtol=0, atol=1e-6)
    assert 0 < projection.visible.sum() < len(projection.visible)
    assert (projection.pixels.dtype, projection.depth.dtype, projection.visible.dtype) == (np.int64, np.float32, bool)


def test_equals_the_published_frustums(golden, golden_grid):
    target, masks = golden['labels']['target'][0].numpy(), golden['labels']['frustums_masks'][0].numpy()
    index = frustum_indices(project_golden(golden, golden_grid, 1), golden['inputs']['img'].shape[:-3:-1], frustums=4)
    assert index.dtype == np.int16
    index = index.reshape(target.shape)
    distributions = golden['labels']['frustums_class_dists'][0].numpy()
    for box in range(16):
        inside = (index == box) & (target != 255)
        np.testing.assert_array_equal(inside, masks[box] != 0)
        counts = np.bincount(target[inside], minlength=19)
        expected = distributions[box] / max(distributions[box].sum(), 1)
        np.testing.assert_allclose(counts / max(counts.sum(), 1), expected, atol=1e-7)
    assert set(np.unique(index)) == {-1, *range(16)}


def test_kitti360_field_of_view():
    projection = project_voxel_centres(KITTI360, np.linalg.inv(CAM2VELO), CAM2IMG, (1408, 376), voxel_scale=2)
    assert len(projection.visible) == 128 * 128 * 16
    # scene voxels twice as high as these, of which one of two is visible; 100353 is the number of the published code
    assert projection.visible.reshape(128, 128, 8, 2).any(-1).sum() == 100353


def test_by_hand():
    # camera at the origin looking along x: left is -u, up is -v
    ref2cam = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    cam2img = np.array([[10.0, 0, 20], [0, 10, 10], [0, 0, 1]])
    grid = VoxelGrid((-2, -2, -1, 2, 2, 1), 1, (4, 4, 2), 'lidar', 0, class_names=NAMES)
    projection = project_voxel_centres(grid, ref2cam, cam2img, (40, 20))
    pixels, depth, visible = (a.reshape(4, 4, 2, -1) for a in (projection.pixels, projection.depth, projection.visible))
    # centre (1.5, 0.5, -0.5): u = 20 - 10 / 3, v = 10 + 10 / 3
    assert pixels[3, 2, 0].tolist() == [17, 13] and depth[3, 2, 0] == 1.5 and visible[3, 2, 0]
    # (1.5, 1.5, 0.5): u = 10
    assert pixels[3, 3, 1].tolist() == [10, 7] and visible[3, 3, 1]
    # (0.5, -1.5, 0.5): u = 50 is outside; (-0.5, 0.5, 0.5) is behind
    assert not visible[2, 0, 1] and not visible[1, 2, 1] and depth[1, 2, 1] == -0.5
    # u = 30, v = 20 is one below the last row
    assert pixels[2, 1, 0].tolist() == [30, 20] and not visible[2, 1, 0]
    index = frustum_indices(projection, (40, 20), frustums=2).reshape(4, 4, 2)
    assert index[3, 2].tolist() == [2, 0] and index[3, 1].tolist() == [3, 1] and index[1, 2, 1] == -1


def test_rounds_half_to_even_and_keeps_points_in_the_camera_plane():
    ref2cam = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    cam2img = np.array([[1.0, 0, 2.0], [0, 1, 3.0], [0, 0, 1]])
    grid = VoxelGrid((-0.5, -1, -1, 1.5, 1, 1), 1, (2, 2, 2), 'lidar', 0, class_names=NAMES)
    projection = project_voxel_centres(grid, ref2cam, cam2img, (100, 100))
    assert projection.pixels.reshape(2, 2, 2, 2)[1, :, 0].tolist() == [[2, 4], [2, 4]]  # u = 2.5 and 1.5, v = 3.5
    assert (projection.depth[:4] == 0).all() and not projection.visible[:4].any() and projection.visible[4:].all()


def test_odd_image_sizes_split_at_fractions():
    pixels = np.array([[152, 46], [153, 46], [152, 47], [1219, 369]])
    projection = VoxelProjection(pixels, np.ones(4, dtype=np.float32), np.ones(4, dtype=bool))
    # bounds at 152.5 and 46.25
    assert frustum_indices(projection, (1220, 370)).tolist() == [0, 1, 8, 63]


def test_scaled_shape():
    assert scaled_shape(KITTI360, 2) == (128, 128, 16) and scaled_shape(KITTI360, 1) == (256, 256, 32)
    for scale in (3, 0, 1.5):
        with pytest.raises(ValueError, match=rf'divides grid.shape \(256, 256, 32\), got {scale}'):
            scaled_shape(KITTI360, scale)


@pytest.mark.parametrize(
    'ref2cam, cam2img, text',
    [
        (np.eye(4)[None], np.eye(3), r'ref2cam must be a finite \(4, 4\) matrix of one camera, got \(1, 4, 4\)'),
        (np.eye(4), np.eye(4), r'cam2img must be a finite \(3, 3\) matrix'),
        (np.full((4, 4), np.nan), np.eye(3), 'ref2cam must be a finite'),
        (np.eye(4), np.diag([1.0, 1, 2]), r'last row \(0, 0, 1\), got \[0.0, 0.0, 2.0\]'),
    ],
)
def test_bad_matrices(ref2cam, cam2img, text):
    with pytest.raises(ValueError, match=text):
        project_voxel_centres(KITTI360, ref2cam, cam2img, (10, 10))


def test_bad_number_of_frustums():
    projection = VoxelProjection(np.zeros((1, 2), dtype=np.int64), np.ones(1, dtype=np.float32), np.ones(1, dtype=bool))
    for frustums in (0, 182):
        with pytest.raises(ValueError, match=f'in 1..181.*got {frustums}'):
            frustum_indices(projection, (10, 10), frustums)


def test_network_intrinsics():
    ref2cam = np.linalg.inv(CAM2VELO)
    ref2img = ref2cam.copy()
    ref2img[:3] = CAM2IMG @ ref2cam[:3]
    assert network_intrinsics(ref2img.astype(np.float32), ref2cam.astype(np.float32), CAM2IMG) is CAM2IMG
    pixels = np.array([[0.5, 0, 0], [0, 0.5, -7], [0, 0, 1]])
    ref2img[:3] = pixels @ ref2img[:3]
    np.testing.assert_allclose(network_intrinsics(ref2img, ref2cam, CAM2IMG), pixels @ CAM2IMG, rtol=1e-9, atol=1e-9)
    ref2img = ref2img @ np.array([[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    with pytest.raises(ValueError, match='ref2img is not intrinsics times ref2cam.*leave out ego motion'):
        network_intrinsics(ref2img, ref2cam, CAM2IMG)
