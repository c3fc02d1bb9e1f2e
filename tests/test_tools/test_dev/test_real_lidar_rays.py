"""Rays of a real LiDAR sequence through the loader of training, against a label made of all its frames."""

import sys

import numpy as np
import pytest

from projects.occ.datasets.transforms import LoadLidarRays
from projects.occ.structures.benchmarks import BENCHMARKS


@pytest.fixture(scope='module')
def tool(repo_root):
    sys.path.insert(0, str(repo_root / 'tools' / 'dev'))
    import real_lidar_rays

    return real_lidar_rays


def test_rays_of_seven_real_frames_end_on_voxels_of_their_class(tool, shared_data, tmp_path):
    from real_frame import read_frames

    grid = BENCHMARKS['occ3d'].grid
    scene = tool.scene_from_folder(shared_data / tool.SEQUENCE)
    label = tool.label_of(scene, grid)
    results = tool.rays_of(scene, read_frames(shared_data)[0].record, grid, tmp_path)
    assert np.unique(results['rays']['frame']).tolist() == list(tool.OFFSETS)
    occupied, same, count = tool.shares(results, label, grid, (0,))
    assert count > 15000 and occupied > 0.99 and same > 0.95
    for offset in (-3, -1, 2):
        occupied, same, count = tool.shares(results, label, grid, (offset,))
        assert count > 15000 and occupied > 0.95 and same > 0.92
    # without the motion of the vehicle they do not
    still = results['lidar_frames'][0]['lidar2ref']
    results['lidar_frames'] = [dict(scan, lidar2ref=still) for scan in results['lidar_frames']]
    moved = LoadLidarRays(num_rays=10**7)(results)
    assert tool.shares(moved, label, grid, (-3,))[1] < 0.85
