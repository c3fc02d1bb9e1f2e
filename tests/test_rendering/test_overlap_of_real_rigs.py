"""Overlap masks at full size on the calibrations of real nuScenes and DDAD vehicles."""

import numpy as np
import pytest
import torch

from projects.occ.datasets.dgp_scenes import SceneReader
from projects.occ.datasets.info_formats import read_info_file
from projects.rendering.cross_view import erode, overlap_masks, ring_pairs

SIZE = (224, 352)
NUSCENES = ('CAM_FRONT', 'CAM_FRONT_LEFT', 'CAM_BACK_LEFT', 'CAM_BACK', 'CAM_BACK_RIGHT', 'CAM_FRONT_RIGHT')
DDAD = ('CAMERA_01', 'CAMERA_05', 'CAMERA_07', 'CAMERA_09', 'CAMERA_08', 'CAMERA_06')
# per camera: overlap with the next one and eroded, with the previous one and eroded
TABLES = dict(
    nuscenes=[
        (0.1567, 0.1499, 0.1274, 0.1205),
        (0.2070, 0.2000, 0.1527, 0.1456),
        (0.0717, 0.0659, 0.2002, 0.1925),
        (0.0972, 0.0903, 0.0475, 0.0420),
        (0.1721, 0.1650, 0.1395, 0.1337),
        (0.1301, 0.1233, 0.1704, 0.1631),
    ],
    ddad=[
        (0.3748, 0.3690, 0.2101, 0.2043),
        (0.1802, 0.1730, 0.1436, 0.1355),
        (0.3359, 0.3273, 0.1812, 0.1740),
        (0.3502, 0.3417, 0.3507, 0.3430),
        (0.1941, 0.1867, 0.3529, 0.3444),
        (0.0822, 0.0761, 0.1987, 0.1914),
    ],
)


def nuscenes_rig(shared_data):
    path = next((shared_data / 'nuscenes_frame').glob('*.pkl'))
    cameras = read_info_file(str(path)).records[0].cameras
    K = np.stack([cameras[name].cam2img for name in NUSCENES])
    return K, np.stack([cameras[name].cam2ego for name in NUSCENES]), (1600, 900)


def ddad_rig(shared_data):
    root = shared_data / 'ddad_dgp_test_scene'
    scene = next((root / 'scene_02').glob('scene_*.json'))
    cameras = SceneReader(str(root), DDAD).read(f'scene_02/{scene.name}')[0].cameras
    K = np.stack([cameras[name].cam2img for name in DDAD])
    return K, np.stack([cameras[name].cam2ego for name in DDAD]), (1936, 1216)


@pytest.mark.parametrize('name, read, far', [('nuscenes', nuscenes_rig, 80.0), ('ddad', ddad_rig, 200.0)])
def test_published_fractions(shared_data, name, read, far):
    K, cam2ego, (width, height) = read(shared_data)
    scaled = K * np.array([SIZE[1] / width, SIZE[0] / height, 1])[:, None]
    pairs = ring_pairs(6)
    overlap = overlap_masks(torch.from_numpy(scaled), torch.from_numpy(cam2ego), SIZE, pairs, far=far)
    eroded = erode(overlap, 5)
    share = {pair: (float(a.float().mean()), float(b.float().mean())) for pair, a, b in zip(pairs, overlap, eroded)}
    for camera, expected in enumerate(TABLES[name]):
        found = (*share[camera, (camera + 1) % 6], *share[camera, (camera - 1) % 6])
        np.testing.assert_allclose(found, expected, atol=2e-4, err_msg=f'camera {camera}')
