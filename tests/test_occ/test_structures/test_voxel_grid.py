"""Tests of the voxel grid."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmarks import BENCHMARKS

OCC3D = dict(
    point_cloud_range=[-40, -40, -1, 40, 40, 5.4],
    voxel_size=0.4,
    shape=[200, 200, 16],
    frame='ego',
    free_index=17,
    ignore_index=255,
    class_names=[f'class_{i}' for i in range(17)] + ['free'],
)


def test_occ3d_geometry():
    grid = VoxelGrid.build(OCC3D)
    assert grid.shape == (200, 200, 16) and grid.num_classes == 18 and grid.num_voxels == 640000
    assert grid.voxel_size == (0.4, 0.4, 0.4) and grid.semantic_classes == tuple(range(17))
    centers = grid.centers()
    assert centers.shape == (200, 200, 16, 3) and centers.dtype == torch.float32
    torch.testing.assert_close(centers[0, 0, 0], torch.tensor([-39.8, -39.8, -0.8]))
    torch.testing.assert_close(centers[199, 0, 15], torch.tensor([39.8, -39.8, 5.2]))
    np.testing.assert_allclose(grid.extent, (80, 80, 6.4))


def test_index_and_point_are_inverse():
    grid = VoxelGrid.build(OCC3D)
    index = np.random.default_rng(0).integers(0, grid.shape, size=(100, 3))
    back, inside = grid.point_to_index(grid.index_to_point(index))
    assert inside.all() and np.array_equal(back, index)
    _, inside = grid.point_to_index([[-40.01, 0, 0], [0, 0, 5.41], [39.99, 39.99, 5.39]])
    assert inside.tolist() == [False, False, True]


def test_one_size_per_axis():
    grid = VoxelGrid([0, 0, 0, 4, 4, 2], (1, 2, 0.5), (4, 2, 4), 'lidar', 0, class_names=('free', 'car'))
    np.testing.assert_allclose(grid.centers()[1, 1, 3].numpy(), (1.5, 3.0, 1.75))


@pytest.mark.parametrize(
    'change, text',
    [
        (dict(shape=[200, 200, 17]), r'does not fit.*expected \(200, 200, 16\)'),
        (dict(point_cloud_range=[0, 0, 0, -1, 1, 1]), 'with min < max'),
        (dict(voxel_size=0), 'positive lengths'),
        (dict(frame='velodyne'), "got 'velodyne'"),
        (dict(free_index=18), r'must lie in 0\.\.17, got 18'),
        (dict(ignore_index=3), "also the class 'class_3'"),
        # both would wrap in uint8 volumes, without a word
        (dict(ignore_index=-1), 'grid.ignore_index must lie in 0..255'),
        (dict(ignore_index=256), 'grid.ignore_index must lie in 0..255'),
        (dict(class_names=[f'class_{i}' for i in range(256)], ignore_index=300), 'lists 256 classes'),
        (dict(class_names=[]), 'must name every class'),
    ],
)
def test_bad_fields(change, text):
    with pytest.raises(ValueError, match=text):
        VoxelGrid.build({**OCC3D, **change})


def test_bad_config():
    with pytest.raises(TypeError, match='must have the keys.*voxel_siz'):
        VoxelGrid.build({**OCC3D, 'voxel_siz': 1})
    with pytest.raises(TypeError, match='a dict of its fields, got list'):
        VoxelGrid.build([1, 2])


@pytest.mark.parametrize('convert', [np.asarray, torch.as_tensor])
def test_check_labels(convert):
    grid = VoxelGrid([0, 0, 0, 2, 2, 1], 1, (2, 2, 1), 'ego', 1, class_names=('car', 'free'))
    grid.check_labels(convert([[[0], [1]], [[255], [1]]]))
    with pytest.raises(ValueError, match=r'a.npz: class id 7 is outside 0..1'):
        grid.check_labels(convert([[[0], [7]], [[1], [1]]]), 'a.npz')
    with pytest.raises(ValueError, match=r'expected a label volume of shape \(2, 2, 1\)'):
        grid.check_labels(convert([[[0], [1]]]))


def test_a_grid_survives_a_file(tmp_path):
    for grid in (bench.grid for bench in BENCHMARKS.values()):
        np.savez(tmp_path / 'a.npz', pred=np.zeros(1), **grid.to_arrays())
        with np.load(tmp_path / 'a.npz') as file:
            assert VoxelGrid.from_arrays(dict(file)) == grid
    single = {key: value.astype(np.float32) if value.dtype == float else value for key, value in grid.to_arrays().items()}
    assert VoxelGrid.from_arrays(single) == grid
    assert VoxelGrid.from_arrays(dict(pred=np.zeros(1), voxel_size=np.ones(3))) is None
    with pytest.raises(ValueError, match='free_index'):
        VoxelGrid.from_arrays(dict(grid.to_arrays(), free_index=np.array(99)))
    with pytest.raises(ValueError, match='the grid that it tells is none'):
        VoxelGrid.from_arrays(dict(grid.to_arrays(), point_cloud_range=np.zeros(3)))


def test_differences_of_grids():
    occ3d, surround = BENCHMARKS['occ3d'].grid, BENCHMARKS['surroundocc'].grid
    assert occ3d.differences(occ3d) == []
    text = ' '.join(occ3d.differences(surround))
    for key in ('point_cloud_range', 'voxel_size', 'frame', 'ahead', 'free_index', 'num_classes'):
        assert key in text
    spelled = replace(occ3d, class_names=(*(name.replace('_', '-') for name in occ3d.class_names[:-1]), 'empty'))
    assert occ3d.differences(spelled) == []
    swapped = (occ3d.class_names[1], occ3d.class_names[0], *occ3d.class_names[2:])
    assert "class 0 'barrier' instead of 'others'" in occ3d.differences(replace(occ3d, class_names=swapped))
