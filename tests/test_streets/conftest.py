"""Generated streets shared by the tests of the generator: some in memory, one data set on disk."""

from pathlib import Path

import numpy as np
import pytest

from projects.streets import CameraSettings, FrameMaker, World, build_config, generate
from projects.streets.labels import label_volume

FORMATS = ('occ3d', 'surroundocc')


@pytest.fixture(scope='session')
def street_frames():
    """Two scenes in memory: list of (world, maker, frame, time)."""
    config = build_config(FORMATS, frames=2)
    frames = []
    for index in (0, 3):
        world = World(config, index)
        maker = FrameMaker(world)
        frames.append((world, maker, maker.make(1), world.key_time(1)))
    return frames


@pytest.fixture(scope='session')
def street_labels():
    """Occ3D labels (X, Y, Z) of the first frame of ten scenes, without images."""
    config = build_config(('occ3d',), frames=1)
    grid = config.grids['occ3d']
    labels = []
    for index in range(10):
        world = World(config, index)
        maker = FrameMaker(world)
        world2ego = np.linalg.inv(world.ego_pose(0.0))
        labels.append(label_volume(world, world.objects_at(0.0), grid, world2ego, maker.look_around(0))[0])
    return labels


@pytest.fixture(scope='session')
def small_config():
    """Three scenes with two frames, coarse images."""
    return build_config(
        FORMATS,
        scenes_train=2,
        scenes_val=1,
        frames=2,
        image_size=(96, 54),
        camera=CameraSettings(samples=1),
        legacy_infos=True,
        seed=7,
    )


@pytest.fixture(scope='session')
def street_root(tmp_path_factory, small_config) -> Path:
    """A data set on disk."""
    root = tmp_path_factory.mktemp('streets')
    generate(small_config, root, workers=2, previews=1, progress=False)
    return root


@pytest.fixture(scope='session')
def kitti360_config():
    """Two scenes in the format of SSCBench-KITTI-360, with small images."""
    return build_config(('sscbench-kitti360',), scenes_train=1, scenes_val=1, frames=2, image_size=(264, 72), seed=3)


@pytest.fixture(scope='session')
def kitti360_root(tmp_path_factory, kitti360_config) -> Path:
    """A data set of it on disk."""
    root = tmp_path_factory.mktemp('drives')
    generate(kitti360_config, root, workers=2, previews=1, progress=False)
    return root
