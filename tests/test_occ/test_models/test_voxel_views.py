"""Projections of voxels computed from the cameras of a batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from projects.occ.models.voxel_views import frustum_index, image_intrinsics, project_grid
from projects.occ.structures import Cameras, OccBatch, VoxelGrid, frustum_indices, project_voxel_centres

GRID = VoxelGrid((0, -4, -2, 8, 4, 2), 1, (8, 8, 4), 'lidar', free_index=0, class_names=('free', 'car'))
REF2CAM = np.float32([[0, -1, 0, 0.1], [0, 0, -1, 0.2], [1, 0, 0, 0.3], [0, 0, 0, 1]])
CAM2IMG = np.float32([[20, 0, 15.5], [0, 21, 10.25], [0, 0, 1]])
SIZE = (32, 20)


def make_batch(num_cams=1, scales=(1.0,), **fields):
    """A batch whose network images are ``scales`` times as large as the originals."""
    shifts = np.repeat(np.eye(4, dtype=np.float32)[None], num_cams, 0)
    shifts[:, 0, 3] = np.arange(num_cams)
    ref2cam = torch.from_numpy(shifts @ REF2CAM).expand(len(scales), num_cams, 4, 4)
    lead = ref2cam.shape[:2]
    sizes = torch.tensor(SIZE).expand(*lead, 2)
    factors = torch.tensor(scales)
    warp = torch.stack([torch.diag(torch.tensor([s, s, 1.0])) for s in scales])[:, None].expand(*lead, 3, 3)
    cameras = Cameras(ref2cam, torch.from_numpy(CAM2IMG).expand(*lead, 3, 3), sizes, warp=warp)
    return OccBatch(cameras, image_sizes=sizes * factors[:, None, None], tokens=['a'], **fields)


def test_every_sample_and_camera_has_its_projection():
    batch = make_batch(2, (1.0, 2.0))
    pixels, visible = project_grid(GRID, batch.cameras, batch.image_sizes, 2)
    assert pixels.shape == (2, 2, 4 * 4 * 2, 2) and pixels.dtype == torch.int64 and visible.dtype == torch.bool
    for sample, scale in enumerate((1.0, 2.0)):
        intrinsics = np.diag([scale, scale, 1]) @ CAM2IMG
        size = tuple(int(n * scale) for n in SIZE)
        for view in (0, 1):
            expected = project_voxel_centres(GRID, batch.cameras.ref2cam[sample, view].numpy(), intrinsics, size, 2)
            assert np.array_equal(visible[sample, view], expected.visible)
            seen = expected.visible
            assert np.array_equal(pixels[sample, view][seen], expected.pixels[seen])


def test_intrinsics_follow_the_images():
    batch = make_batch(1, (1.0, 2.0))
    intrinsics = image_intrinsics(batch.cameras)
    assert torch.equal(intrinsics[0, 0], torch.from_numpy(CAM2IMG).double())
    torch.testing.assert_close(intrinsics[1, 0], torch.from_numpy(np.diag([2, 2, 1]) @ CAM2IMG), rtol=1e-6, atol=0)
    # a projection without ego motion says nothing about the intrinsics
    moved = batch.cameras.ref2img.clone()
    moved[..., :3, 3] += 5
    torch.testing.assert_close(
        image_intrinsics(replace(batch.cameras, network_projection=moved)), intrinsics, rtol=1e-6, atol=0
    )


def test_frustums_are_taken_from_the_batch_or_computed():
    own = torch.zeros(1, 8, 8, 4, dtype=torch.int16)
    assert frustum_index(make_batch(frustum_index=own, frustums=4), GRID, 4) is own
    projection = project_voxel_centres(GRID, REF2CAM, CAM2IMG, SIZE)
    computed = frustum_index(make_batch(), GRID, 4)
    assert computed.shape == (1, *GRID.shape) and computed.max() > 3
    assert np.array_equal(computed.flatten(), frustum_indices(projection, SIZE, 4))


def test_errors():
    with pytest.raises(ValueError, match='meant for one camera.*a.*set it to 0'):
        frustum_index(make_batch(2), GRID, 4)
    given = replace(make_batch(), frustum_index=torch.zeros(1, 8, 8, 4), frustums=8)
    with pytest.raises(ValueError, match='8 boxes per side.*loss_occ.frustums is 4'):
        frustum_index(given, GRID, 4)
