import numpy as np
import pytest

from projects.occ.datasets.transforms import HideLabels
from projects.occ.structures import VoxelGrid

GRID = VoxelGrid((-4, -4, -1, 4, 4, 1), 1.0, (8, 8, 2), 'ego', 2, class_names=('car', 'road', 'free'))
FORWARD = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def results(**more):
    cam2img = np.array([[10.0, 0, 10], [0, 10, 10], [0, 0, 1]])
    return dict(
        grid=GRID,
        cam2img=np.stack([cam2img] * 2),
        ref2cam=np.stack([FORWARD, np.diag([-1.0, -1, 1, 1]) @ FORWARD]),
        frame=np.array([0, -1]),
        ori_img_wh=np.array([[20, 20]] * 2),
        **more,
    )


def test_labels_are_ignored_and_the_mask_is_what_a_camera_sees():
    hidden = HideLabels(masks=('camera', 'lidar'))(results())
    assert hidden['unlabelled'] and hidden['gt_occ'].dtype == np.uint8 and (hidden['gt_occ'] == 255).all()
    x, y, z = np.meshgrid(*[np.arange(n) + 0.5 + lower for n, lower in zip(GRID.shape, GRID.lower)], indexing='ij')
    # a field of view of 90 degrees to the front, of the key frame's camera alone
    assert np.array_equal(hidden['mask_camera'], (x > 0) & (-y >= -x) & (-y < x) & (-z >= -x) & (-z < x))
    assert not hidden['mask_lidar'].any()


def test_masks_and_on_demand_rays_stay():
    mask = np.ones(GRID.shape, dtype=bool)
    rays = dict(depth=np.ones(3), uv=np.ones((3, 2)))
    hidden = HideLabels(masks=('camera',))(results(mask_camera=mask, gt_occ=np.zeros(GRID.shape, np.uint8), rays=rays))
    assert hidden['mask_camera'] is mask and 'mask_lidar' not in hidden and (hidden['gt_occ'] == 255).all()
    assert hidden['rays']['uv'].shape == (0, 2)
    assert len(HideLabels(keep_rays=True)(results(rays=rays))['rays']['depth']) == 3
    with pytest.raises(ValueError, match='radar'):
        HideLabels(masks=('radar',))
