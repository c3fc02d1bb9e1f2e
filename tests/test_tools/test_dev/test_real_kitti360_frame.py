"""The real KITTI-360 frame through the tool and the data set. Nothing of the data is kept in the repository."""

import importlib.util

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from projects.occ.datasets import SSCBenchKITTI360Dataset

CAR, ROAD, BUILDING = 1, 7, 11


@pytest.fixture(scope='module')
def tool(repo_root):
    spec = importlib.util.spec_from_file_location('real_kitti360_tool', repo_root / 'tools' / 'dev' / 'real_kitti360_frame.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.FRAMES = module.FRAMES[:1]
    return module


@pytest.fixture(scope='module')
def data_root(tool, shared_data, tmp_path_factory):
    if not (shared_data / 'kitti360_sample').is_dir():
        pytest.skip(f'no kitti360_sample in {shared_data}')
    root = tmp_path_factory.mktemp('real_kitti360')
    (picture,) = tool.prepare(shared_data, root)
    assert cv2.imread(str(picture)).shape == (3 * 376, 1408, 3)
    return root


def dataset(repo_root, data_root, name='sscbench-kitti360-depth', **kwargs):
    config = Config.fromfile(repo_root / 'configs' / '_base_' / 'datasets' / f'{name}.py')
    args = {**config.test_dataloader.dataset.to_dict(), 'data_root': str(data_root), 'sequences': [0], **kwargs}
    args.pop('type')
    return SSCBenchKITTI360Dataset(**args)


def test_the_shipped_config_reads_it(repo_root, data_root):
    (item,) = dataset(repo_root, data_root)
    sample, depth = item['data_samples'], item['inputs']['depth'][0].numpy()
    assert sample.token == '2013_05_28_drive_0000_sync_000855' and item['inputs']['img'].shape == (1, 3, 376, 1408)
    labels = sample.gt_occ.numpy()
    counts = np.bincount(labels.ravel(), minlength=256)
    assert set(np.flatnonzero(counts)) == {0, CAR, ROAD, BUILDING, 255} and counts[[CAR, ROAD, BUILDING]].min() > 2000
    # ground is below the Velodyne, 1.2 to 2 m
    heights = -2 + 0.2 * (np.nonzero(labels == ROAD)[2] + 0.5)
    assert -2 < np.median(heights) < -1.2
    # half of the pixels have depth, the road before the car among them, the sky not
    assert 0.4 < (depth > 0).mean() < 0.8 and (depth[:90] == 0).mean() > 0.95
    # a ray 17 degrees below the horizon from 1.55 m above the road
    assert depth[360, 700] == pytest.approx(1.55 / np.tan(np.radians(17.1)), abs=0.3)


def test_depth_from_the_sweep_equals_the_file(repo_root, data_root):
    """Both ways of getting depth: maps on disk and LoadDepthFromLidar, with the calibration and frame map of the files."""
    pipeline = [dict(type='LoadMultiViewImages'), dict(type='LoadDepthFromLidar'), dict(type='PackOccInputs')]
    options = dict(calibration='calibration', frame_map='kitti_360_match.txt', data_prefix=dict(pts='data_3d_raw'))
    made = dataset(repo_root, data_root, **{**options, 'pipeline': pipeline})[0]['inputs']['depth'][0].numpy()
    (path,) = (data_root / 'depth').rglob('*.npy')
    assert path.name == '000855.npy' and np.array_equal(made, np.load(path))


def test_cars_stand_where_points_are(tool, data_root):
    camera = tool.read_kitti360_calibration(str(data_root / 'calibration'))
    (sweep,) = data_root.rglob('0000000947.bin')
    points = np.fromfile(sweep, '<f4').reshape(-1, 4)[:, :3].astype(np.float64)
    corners = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (0.2, 1.7) for z in (-2.0, 2.0)])
    # a box around the nearest parked car, ahead to the right, its copy half a metre on, and one in the air
    there = [3.0, 0.0, 7.2]
    objects = [dict(corners_cam0=(corners + shift).tolist()) for shift in (there, np.add(there, [0, 0, 0.5]), [0, -9, 20])]
    boxes = tool.car_boxes(objects, camera, points)
    assert boxes.names == ['car'] and boxes.boxes[0, 3] == pytest.approx(4, abs=0.2)
    assert boxes.boxes[0, 1] < 0 < boxes.boxes[0, 0]


def test_missing_sample_gives_one_sentence(tool, tmp_path, capsys):
    assert tool.main(['--shared', str(tmp_path), '--out', str(tmp_path / 'out')]) == 1
    error = capsys.readouterr().err
    assert 'kitti360_sample' in error and 'OCC_SHARED_DATA' in error and error.count('\n') == 1
