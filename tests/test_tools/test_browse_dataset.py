"""The browsing tool: generated nuScenes-like frames in memory, KITTI-360 files with one camera."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS
from PIL import Image
from torch.utils.data import Dataset

from projects.occ.file_names import plain_name
from projects.occ.structures import OccDataSample
from projects.occ.visualization.view_cameras import look_at, project_matrix

GRID = dict(
    point_cloud_range=(-4, -4, -1, 4, 4, 1),
    voxel_size=1.0,
    shape=(8, 8, 2),
    frame='ego',
    free_index=2,
    class_names=('car', 'driveable_surface', 'free'),
)
CONFIG = """
default_scope = 'mmdet3d'
train_dataloader = dict(dataset=dict(type='FramesToBrowse'))
val_dataloader = dict(dataset=dict(type='FramesToBrowse', length=0))
"""


@DATASETS.register_module()
class FramesToBrowse(Dataset):
    """A camera over a road with a car; the image is mirrored as an augmentation would do it, at random."""

    metainfo = dict(grid=GRID)

    def __init__(self, length=9):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        sample = OccDataSample()
        gt = np.full((8, 8, 2), 2, np.uint8)
        gt[:, :, 0], gt[6, 3, 1], gt[0, 0, 0] = 1, 0, 255
        sample.gt_occ = torch.from_numpy(gt)
        sample.mask_camera = torch.zeros(8, 8, 2, dtype=torch.bool)
        sample.mask_camera[4:] = True
        ref2img = project_matrix(look_at((0, 0, 1), (4, 0, 0.5)), np.array([[40.0, 0, 32], [0, 40, 16], [0, 0, 1]]))
        if torch.rand(1) < 0.5:
            mirror = np.eye(4)
            mirror[0, 0], mirror[0, 2] = -1, 64
            ref2img = mirror @ ref2img
        sample.set_metainfo(dict(ref2img=ref2img[None], cam_names=['CAM_FRONT'], token=f'scene/frame{index}', scene_name='s'))
        return dict(inputs=dict(img=torch.full((1, 3, 32, 64), 90, dtype=torch.uint8)), data_samples=sample)


@pytest.fixture(scope='module')
def tool(repo_root):
    spec = importlib.util.spec_from_file_location('browse_dataset', repo_root / 'tools' / 'browse_dataset.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CONFIG)
    return str(path)


def last_line(capfd):
    return capfd.readouterr().err.strip().split('\n')[-1]


def test_pages_and_statistics(tool, config, tmp_path, capfd):
    out = tmp_path / 'out'
    assert tool.main([config, '--out', str(out), '--max-frames', '3']) == 0
    # spread over the nine frames
    assert sorted(path.name for path in out.glob('*.png')) == [
        f'{index:06d}_{plain_name(f"scene/frame{index}")}_{page}.png' for index in (0, 4, 8) for page in ('input', 'label')
    ]
    statistics = json.loads((out / 'statistics.json').read_text())
    assert statistics['frames'] == statistics['labelled_frames'] == 3 and statistics['frames_in_set'] == 9
    assert statistics['classes'] == {
        'car': dict(voxels=3, frames=3, mask_camera=3),
        'driveable_surface': dict(voxels=3 * 63, frames=3, mask_camera=3 * 32),
        'free': dict(voxels=3 * 63, frames=3, mask_camera=3 * 31),
        'ignored': dict(voxels=3, frames=3, mask_camera=0),
    }
    table = capfd.readouterr().out
    assert 'driveable_surface' in table and '49.219' in table and 'in mask_camera' in table


def car_side(path):
    """Mean column of the car's colour in the overlay, as a share of the page's width."""
    picture = np.asarray(Image.open(path)).astype(int)
    overlay = picture[: picture.shape[0] - 60, picture.shape[1] // 2 :]
    blue = (overlay[..., 2] - overlay[..., 0] > 60) & (overlay[..., 1] < overlay[..., 2])
    return np.argwhere(blue)[:, 1].mean() / overlay.shape[1]


def test_the_overlay_follows_the_augmentation_and_the_seed_repeats_it(tool, config, tmp_path):
    sides = {}
    for run in ('a', 'b'):
        assert tool.main([config, '--out', str(tmp_path / run), '--indices', '0', '1', '2', '3', '--seed', '1']) == 0
        sides[run] = [car_side(tmp_path / run / f'{i:06d}_{plain_name(f"scene/frame{i}")}_input.png') for i in range(4)]
    assert sides['a'] == sides['b']
    assert {side < 0.5 for side in sides['a']} == {True, False}  # some mirrored, some not


def test_statistics_alone(tool, config, tmp_path):
    assert tool.main([config, '--out', str(tmp_path / 'out'), '--no-pictures']) == 0
    assert not list((tmp_path / 'out').glob('*.png'))
    assert json.loads((tmp_path / 'out' / 'statistics.json').read_text())['classes']['car']['voxels'] == 9


def test_one_camera_of_kitti360(tool, repo_root, tmp_path):
    root, sequence = tmp_path / 'kitti', '2013_05_28_drive_0006_sync'
    folders = [root / 'data_2d_raw' / sequence / name for name in ('voxels', 'image_00/data_rect')]
    for folder in (*folders, root / 'preprocess' / 'labels' / sequence):
        folder.mkdir(parents=True)
    (folders[0] / '000010.bin').write_bytes(b'')
    Image.fromarray(np.full((376, 1408, 3), 90, np.uint8)).save(folders[1] / '000010.png')
    label = np.zeros((256, 256, 32), np.float32)
    label[:, 100:156, 1], label[60:80, 140:150, 2:9], label[:, :20] = 7, 1, 255  # road, a car on the left, not observed
    label[200:, 180:190, :20] = 13  # vegetation; labels without a class above 10 are warned of
    np.save(root / 'preprocess' / 'labels' / sequence / '000010_1_1.npy', label)
    config = tmp_path / 'config.py'
    base = repo_root / 'configs' / '_base_' / 'datasets' / 'sscbench-kitti360.py'
    config.write_text(f"_base_ = ['{base}']\nval_dataloader = dict(dataset=dict(data_root={str(root)!r}))\n")
    out = tmp_path / 'out'
    assert tool.main([str(config), '--split', 'val', '--out', str(out), '--show-ignored']) == 0
    assert sorted(p.name.split('_', 1)[1][-10:] for p in out.glob('*.png')) == ['_input.png', '_label.png']
    assert json.loads((out / 'statistics.json').read_text())['classes']['car']['voxels'] == 20 * 10 * 7
    page = np.asarray(Image.open(next(out.glob('*_input.png')))).astype(int)[:280]  # above the legend
    blue = np.argwhere((page[..., 2] - page[..., 0] > 55) & (page[..., 0] < 110) & (page[..., 1] > 90))
    magenta = np.argwhere((page[..., 0] > 150) & (page[..., 1] < 80) & (page[..., 2] > 150))
    # image and overlay side by side; the car stands left of the middle of the road
    assert len(blue) > 500 and len(magenta) > 5000 and blue[:, 1].min() > page.shape[1] / 2
    assert blue[:, 1].mean() < magenta[:, 1].mean() - 50


@pytest.mark.parametrize(('columns', 'terminal'), [(80, False), (80, True), (30, True), (200, True)])
def test_numbers_of_the_table_are_never_cut_off(tool, monkeypatch, capfd, columns, terminal):
    monkeypatch.setenv('COLUMNS', str(columns))
    monkeypatch.setenv('FORCE_COLOR' if terminal else 'NO_COLOR', '1')
    counts = dict(voxels=18_001_920_000, frames=28_130, mask_camera=3_612_345_678, mask_lidar=5_412_345_678)
    names = ['driveable_surface', 'free']
    tool.report(dict(split='train', labelled_frames=28_130, frames_in_set=28_130, classes=dict.fromkeys(names, counts)))
    table = capfd.readouterr().out
    for number in ('18,001,920,000', '50.000', '28130', '3,612,345,678', '5,412,345,678'):
        assert table.count(number) >= 2, table
    assert ('driveable_surface' in table) == (columns == 200 or not terminal)


def test_errors(tool, config, tmp_path, capfd):
    def error(*arguments):
        assert tool.main([config, '--out', str(tmp_path / 'out'), *arguments]) == 1
        return last_line(capfd)

    assert 'has no test_dataloader' in error('--split', 'test')
    assert 'the data set has no frame' in error('--split', 'val')
    assert '--max-frames must be at least 1, got 0' in error('--max-frames', '0')
    assert '--indices [9]: the data set has 9 frames, 0 to 8' in error('--indices', '9')
