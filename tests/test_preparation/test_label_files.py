import numpy as np

from projects.occ.datasets import LoadOccLabels
from projects.occ.structures import VoxelGrid
from projects.preparation.label_files import write_occ3d_label, write_surroundocc_label


def test_occ3d_label_reads_back(formats, tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 18, (8, 8, 2)).astype(np.uint8)
    lidar = rng.uniform(size=labels.shape) < 0.5
    path = tmp_path / 'scene-0001' / 't' / 'labels.npz'
    write_occ3d_label(path, labels, lidar, lidar & (labels == 17))
    with np.load(path) as file:
        assert {key: file[key].dtype for key in file} == dict.fromkeys(('semantics', 'mask_lidar', 'mask_camera'), np.uint8)
    grid = VoxelGrid.build(formats.tiny_grid('occ3d'))
    results = LoadOccLabels()(dict(token='t', occ_path=str(path), grid=grid))
    assert np.array_equal(results['gt_occ'], labels)
    assert np.array_equal(results['mask_lidar'], lidar)
    assert np.array_equal(results['mask_camera'], lidar & (labels == 17))


def test_surroundocc_label_reads_back_in_the_published_form(formats, tmp_path):
    grid = VoxelGrid.build(formats.tiny_grid('surroundocc'))
    labels = np.zeros(grid.shape, np.uint8)
    labels[0, 1, 1], labels[7, 0, 0], labels[0, 1, 0] = 4, 255, 16
    path = tmp_path / 'x.pcd.bin.npy'
    write_surroundocc_label(path, labels, grid)
    rows = np.load(path)
    assert rows.dtype == np.int64 and rows.tolist() == [[0, 1, 0, 16], [0, 1, 1, 4], [7, 0, 0, 0]]
    assert np.array_equal(LoadOccLabels()(dict(token='t', occ_path=str(path), grid=grid))['gt_occ'], labels)
