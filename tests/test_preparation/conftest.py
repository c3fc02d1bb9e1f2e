"""One tiny generated data root with the tables of a raw nuScenes download, and cheap copies of it to damage."""

import importlib.util
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from annotation_files import formats  # noqa: F401

from projects.occ.datasets.sscbench_kitti360_dataset import IMAGE_WH, sequence_name
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmark_classes import KITTI360_CLASSES

VERSION = 'synthetic-v1'
VAL_SEQUENCE = sequence_name(6)


@pytest.fixture(scope='session')
def create_data_main(request):
    """``main`` of tools/create_data.py."""
    path = request.config.rootpath / 'tools' / 'create_data.py'
    spec = importlib.util.spec_from_file_location('create_data_for_preparation', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope='session')
def raw_root(tmp_path_factory, create_data_main) -> Path:
    """Two training scenes and one for validation, two frames each; raw tables; annotation files made from them."""
    root = tmp_path_factory.mktemp('raw')
    size = ('--scenes-train', '2', '--scenes-val', '1', '--frames', '2', '--image-size', '48x28', '--seed', '3')
    assert create_data_main(['synthetic', '--out', str(root), '--raw-tables', '--workers', '2', *size]) == 0
    for benchmark in ('occ3d', 'surroundocc'):
        assert create_data_main([benchmark, '--data-root', str(root), '--version', VERSION]) == 0
    return root


def _copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, copy_function=os.link)
    return target


@pytest.fixture
def root_copy(raw_root, tmp_path) -> Path:
    """A copy of ``raw_root`` made of hard links: replace files in it, never write into them."""
    return _copy(raw_root, tmp_path / 'copy')


@pytest.fixture(scope='session')
def kitti_grid() -> VoxelGrid:
    return VoxelGrid((0, -3.2, -2, 6.4, 3.2, 1.2), 0.8, (8, 8, 4), 'lidar', 0, class_names=('empty', *KITTI360_CLASSES))


@pytest.fixture(scope='session')
def kitti_download(tmp_path_factory) -> Path:
    """Raw SSCBench voxels of the validation drive, three frames, 8 x 8 x 4 voxels, and their images."""
    root = tmp_path_factory.mktemp('sscbench')
    voxels = root / 'data_2d_raw' / VAL_SEQUENCE / 'voxels'
    images = root / 'data_2d_raw' / VAL_SEQUENCE / 'image_00' / 'data_rect'
    voxels.mkdir(parents=True)
    images.mkdir(parents=True)
    picture = cv2.imencode('.png', np.full((IMAGE_WH[1], IMAGE_WH[0], 3), 90, dtype=np.uint8))[1].tobytes()
    rng = np.random.default_rng(0)
    for frame in ('000000', '000005', '000010'):
        raw = rng.choice([0, 0, 10, 40, 50, 70, 1], (8, 8, 4)).astype('<u2')
        (voxels / f'{frame}.label').write_bytes(raw.tobytes())
        (voxels / f'{frame}.invalid').write_bytes(rng.integers(0, 2, (8, 8, 4)).astype(np.uint8).tobytes())
        (voxels / f'{frame}.bin').write_bytes(b'')
        (images / f'{frame}.png').write_bytes(picture)
    return root


@pytest.fixture
def kitti_copy(kitti_download, tmp_path) -> Path:
    """A copy of ``kitti_download`` made of hard links."""
    return _copy(kitti_download, tmp_path / 'kitti')
