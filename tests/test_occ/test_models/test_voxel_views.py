"""Projections of voxels computed from the cameras of samples."""

import numpy as np
import pytest
import torch

from projects.occ.models.voxel_views import image_intrinsics, project_grid, sample_frustum_index
from projects.occ.structures import OccDataSample, VoxelGrid, frustum_indices, project_voxel_centres

GRID = VoxelGrid((0, -4, -2, 8, 4, 2), 1, (8, 8, 4), 'lidar', free_index=0, class_names=('free', 'car'))
REF2CAM = np.float32([[0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, 0.3], [0, 0, 0, 1]])
CAM2IMG = np.float32([[20, 0, 15.5], [0, 21, 10.25], [0, 0, 1]])
SIZE = (32, 20)


def sample(num_cams=1, scale=1.0, **fields):
    padded = np.eye(4, dtype=np.float32)
    padded[:3, :3] = np.diag([scale, scale, 1]).astype(np.float32) @ CAM2IMG
    shifts = np.repeat(np.eye(4, dtype=np.float32)[None], num_cams, 0)
    shifts[:, 0, 3] = np.arange(num_cams)
    ref2cam = shifts @ REF2CAM
    element = OccDataSample(**fields)
    element.set_metainfo(
        dict(
            ref2cam=ref2cam,
            cam2img=np.repeat(CAM2IMG[None], num_cams, 0),
            ref2img=padded @ ref2cam,
            img_wh=np.float32([[n * scale for n in SIZE]] * num_cams),
            token='a',
        )
    )
    return element


def batched(*samples):
    return {
        key: torch.from_numpy(np.stack([s.metainfo[key] for s in samples])) for key in samples[0].metainfo if key != 'token'
    }


def test_every_sample_and_camera_has_its_projection():
    cameras = batched(sample(2), sample(2, scale=2.0))
    intrinsics = image_intrinsics(cameras)
    assert np.array_equal(intrinsics[0, 1], CAM2IMG.astype(np.float64))
    np.testing.assert_allclose(intrinsics[1, 0], np.diag([2, 2, 1]) @ CAM2IMG, rtol=1e-6)
    pixels, visible = project_grid(GRID, cameras, 2)
    assert pixels.shape == (2, 2, 4 * 4 * 2, 2) and pixels.dtype == torch.int64 and visible.dtype == torch.bool
    for view in (0, 1):
        expected = project_voxel_centres(GRID, cameras['ref2cam'][0, view].numpy(), CAM2IMG, SIZE, 2)
        assert np.array_equal(pixels[0, view], expected.pixels) and np.array_equal(visible[0, view], expected.visible)
    assert torch.equal(visible[0], visible[1]) and not torch.equal(pixels[0], pixels[1])


def test_frustums_are_taken_from_the_sample_or_computed():
    own = torch.zeros(8, 8, 4, dtype=torch.int16)
    assert sample_frustum_index(sample(frustum_index=own), GRID, 4) is own
    projection = project_voxel_centres(GRID, REF2CAM, CAM2IMG, SIZE)
    computed = sample_frustum_index(sample(), GRID, 4)
    assert computed.shape == GRID.shape and computed.max() > 3
    assert np.array_equal(computed.flatten(), frustum_indices(projection, SIZE, 4))


def test_errors():
    with pytest.raises(ValueError, match='meant for one camera, sample a has 2; set it to 0'):
        sample_frustum_index(sample(2), GRID, 4)
    cameras = batched(sample())
    del cameras['cam2img']
    with pytest.raises(ValueError, match="needs the cameras of a sample, but .'cam2img'. is missing; add it to meta_keys"):
        image_intrinsics(cameras)
