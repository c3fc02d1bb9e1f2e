import gzip
import math
from collections import OrderedDict
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from projects.occ.datasets import SSCBenchKITTI360Dataset
from projects.occ.datasets.kitti360_poses import write_poses
from projects.occ.datasets.kitti_calibration import read_frame_map, read_kitti360_calibration
from projects.occ.datasets.sscbench_kitti360_dataset import (
    CAM2IMG,
    CAM2VELO,
    IMAGE_WH,
    SPLITS,
    published_calibration,
    sequence_name,
)
from projects.occ.structures.benchmark_classes import KITTI360_CLASSES

PIPELINE = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadSSCBenchLabels'),
    dict(type='ResizeCropFlipImages', final_wh=IMAGE_WH, training=False),
    dict(type='PackOccInputs'),
]
SHAPE = (8, 8, 2)
GRID = dict(
    point_cloud_range=[0.0, -8.0, -2.0, 16.0, 8.0, 2.0],
    voxel_size=2.0,
    shape=list(SHAPE),
    frame='lidar',
    free_index=0,
    ignore_index=255,
    class_names=['empty', *KITTI360_CLASSES],
)
SAMPLE = 'kitti360_sample'
DRIVE = '2013_05_28_drive_0000_sync'


def add_frame(root, sequence, frame, label=None, size=IMAGE_WH):
    raw = root / 'data_2d_raw' / sequence
    for folder in (raw / 'voxels', raw / 'image_00' / 'data_rect', root / 'preprocess' / 'labels' / sequence):
        folder.mkdir(parents=True, exist_ok=True)
    (raw / 'voxels' / f'{frame}.bin').write_bytes(b'')
    image = np.full((size[1], size[0], 3), (int(frame) % 250, 20, 30), np.uint8)
    cv2.imwrite(str(raw / 'image_00' / 'data_rect' / f'{frame}.png'), image)
    if label is not None:
        np.save(root / 'preprocess' / 'labels' / sequence / f'{frame}_1_1.npy', label.astype(np.float32))


@pytest.fixture
def tree(tmp_path):
    """Val and test sequence with three and two frames, made out of order."""
    rng = np.random.default_rng(0)
    labels = {}
    for split, frames in (('val', ('000010', '000000', '000005')), ('test', ('000855', '000015'))):
        for frame in frames:
            sequence = sequence_name(SPLITS[split][0])
            label = rng.choice([*range(19), 255], SHAPE)
            label[0, 0] = 11, 13
            labels[f'{sequence}_{frame}'] = label
            add_frame(tmp_path, sequence, frame, label)
    return SimpleNamespace(root=tmp_path, labels=labels)


@pytest.fixture
def build(tree):
    def call(**kwargs):
        args = dict(grid=GRID, data_root=str(tree.root), split='val', pipeline=PIPELINE)
        return DATASETS.build(dict(type='SSCBenchKITTI360Dataset', **{**args, **kwargs}))

    return call


def test_item(build, tree):
    dataset = build()
    assert isinstance(dataset, SSCBenchKITTI360Dataset) and len(dataset) == 3
    item = dataset[1]
    image, sample = item['inputs']['img'], item['data_samples']
    assert image.shape == (1, 3, 376, 1408) and image.dtype == torch.uint8
    assert image[0, :, 0, 0].tolist() == [5, 20, 30]
    token = '2013_05_28_drive_0006_sync_000005'
    assert sample.token == token and sample.scene_name == '2013_05_28_drive_0006_sync' and sample.frame_idx == 5
    assert sample.gt_occ.dtype == torch.uint8 and np.array_equal(sample.gt_occ.numpy(), tree.labels[token])
    assert 'mask_camera' not in sample
    batch = pseudo_collate([item, dataset[0]])
    assert len(batch['inputs']['img']) == 2 and len(batch['data_samples']) == 2


def test_meta_information_is_that_of_the_data_sample(build):
    sample = build()[0]['data_samples']
    shapes = dict(ref2img=(1, 4, 4), img_wh=(1, 2), ref2cam=(1, 4, 4), cam2img=(1, 3, 3), ori_img_wh=(1, 2))
    plain = {'cam_names', 'img_paths', 'token', 'scene_name', 'frame_idx', 'lidar2ego'}
    assert set(sample.metainfo_keys()) == set(shapes) | plain
    for key, shape in shapes.items():
        assert sample.get(key).shape == shape and sample.get(key).dtype == np.float32
    assert sample.img_wh.tolist() == sample.ori_img_wh.tolist() == [[1408, 376]]
    assert sample.cam_names == ['image_00'] and np.array_equal(sample.lidar2ego, np.eye(4))


def test_network_image_and_matrix_move_together(build):
    pipeline = [dict(step) for step in PIPELINE]
    pipeline[2].update(final_wh=(704, 188))
    sample = build(pipeline=pipeline)[0]['data_samples']
    full, half = published_calibration().matrices()['ref2img'][0], sample.ref2img[0]
    point = np.array([20.0, 1.0, 0.5, 1.0])
    (a, b) = (full @ point, half @ point)
    np.testing.assert_allclose(b[:2] / b[2], a[:2] / a[2] / 2, rtol=1e-5)
    assert sample.cam2img[0, 0, 0] == np.float32(552.554261) and sample.ori_img_wh.tolist() == [[1408, 376]]


def test_frames_are_sorted_and_splits_keep_their_sequences(build):
    for split, frames in (('val', [0, 5, 10]), ('test', [15, 855])):
        dataset = build(split=split)
        assert [dataset.get_data_info(i)['frame_idx'] for i in range(len(dataset))] == frames


def test_sequences_come_in_the_order_of_the_benchmark(build, tree):
    for number in (0, 2, 3, 4, 5, 7, 10):
        add_frame(tree.root, sequence_name(number), '000005')
    dataset = build(split='trainval')
    names = [dataset.get_data_info(i)['scene_name'] for i in range(10)]
    drives = ['0004', '0000', '0010', '0002', '0003', '0005', '0007', '0006', '0006', '0006']
    assert names == [f'2013_05_28_drive_{drive}_sync' for drive in drives]
    assert len(build(split='train')) == 7
    assert SSCBenchKITTI360Dataset.BENCHMARK.splits['trainval'] == 10299


def test_matrices_are_those_of_the_published_calibration():
    matrices = published_calibration().matrices()
    np.testing.assert_allclose(matrices['ref2cam'][0] @ np.array(CAM2VELO), np.eye(4), atol=1e-9)
    # a point 10 m in front of the camera and 1 m to its right lies at cx + fx / 10, cy
    point = np.array(CAM2VELO) @ [1.0, 0.0, 10.0, 1.0]
    u, v, depth, one = matrices['ref2img'][0] @ point
    np.testing.assert_allclose([u / depth, v / depth, depth, one], [682.049453 + 55.2554261, 238.769549, 10, 1])
    # the camera looks along x of the Velodyne, which is about 0.8 m behind it
    assert point[0] == pytest.approx(10.8, abs=0.1) and point[1] < 0


def test_constants_are_in_the_calibration_files(shared_data):
    folder = shared_data / SAMPLE / 'calibration'
    if not folder.is_dir():
        pytest.skip(f'no {SAMPLE} in {shared_data}')
    velo = np.array((folder / 'calib_cam_to_velo.txt').read_text().split(), float).reshape(3, 4)
    assert np.array_equal(np.array(CAM2VELO)[:3], velo)
    lines = dict(line.split(':', 1) for line in (folder / 'perspective.txt').read_text().splitlines() if ':' in line)
    assert np.array_equal(np.array(lines['P_rect_00'].split(), float).reshape(3, 4)[:, :3], np.array(CAM2IMG))
    assert np.array_equal(np.array(lines['S_rect_00'].split(), float), IMAGE_WH)


@pytest.mark.parametrize(('frame', 'visible'), [(947, 25266), (2449, 27404)])
def test_real_lidar_points_fall_on_the_real_image(build, shared_data, frame, visible):
    folder = shared_data / SAMPLE
    scan = folder / f'data_3d_raw/{DRIVE}/velodyne_points/data/{frame:010d}.bin'
    if not scan.is_file():
        pytest.skip(f'no {SAMPLE} in {shared_data}')
    image = cv2.imread(str(folder / f'data_2d_raw/{DRIVE}/image_00/data_rect/{frame:010d}.png'))
    assert image.shape[1::-1] == IMAGE_WH
    sample = build()[0]['data_samples']
    points = np.fromfile(scan, np.float32).reshape(-1, 4)[:, :3].astype(np.float64)
    points = np.column_stack([points, np.ones(len(points))])
    pixels = points @ sample.ref2img[0].astype(np.float64).T
    in_camera = points @ sample.ref2cam[0].astype(np.float64).T
    np.testing.assert_allclose(pixels[:, 2], in_camera[:, 2], atol=1e-4)
    np.testing.assert_allclose(pixels[:, :3], in_camera[:, :3] @ sample.cam2img[0].astype(np.float64).T, atol=0.05)
    ahead = pixels[:, 2] > 0
    u, v = (pixels[ahead, :2] / pixels[ahead, 2:3]).T
    inside = (u >= 0) & (u < IMAGE_WH[0]) & (v >= 0) & (v < IMAGE_WH[1])
    assert inside.sum() == pytest.approx(visible, abs=5)
    # the road: points well below the sensor lie in the lower half of the image, the farther the higher
    road = points[ahead][inside, 2] < -1.5
    assert road.sum() > 2000 and v[inside][road].min() > 188
    assert np.corrcoef(in_camera[ahead][inside][road, 2], v[inside][road])[0, 1] < -0.6


CALIBRATION = {
    'perspective.txt': 'calib_time: now\nS_rect_00: 704 188\nR_rect_00: 0 -1 0 1 0 0 0 0 1\n'
    'P_rect_00: 276 0 341 0 0 276 119 0 0 0 1 0\n',
    'calib_cam_to_velo.txt': '0 0 1 0.8 -1 0 0 0.3 0 -1 0 -0.2\n',
}


@pytest.fixture
def calibrated(tree):
    """The tree with half the image size and calibration files of its own."""
    (tree.root / 'calibration').mkdir()
    for name, text in CALIBRATION.items():
        (tree.root / 'calibration' / name).write_text(text)
    add_frame(tree.root, sequence_name(6), '000000', size=(704, 188))
    return tree


def test_calibration_files_are_read(build, calibrated):
    info = build(calibration='calibration').get_data_info(0)
    assert info['cam2img'][0].tolist() == [[276, 0, 341], [0, 276, 119], [0, 0, 1]]
    # 10 m ahead of the camera and 1 m to the left; the rectifying rotation takes right to down
    point = np.array([10.8, 1.3, -0.2, 1.0])
    np.testing.assert_allclose(info['ref2cam'][0] @ point, [0, -1, 10, 1], atol=1e-12)
    np.testing.assert_allclose(info['ref2img'][0] @ point, [341 * 10, 119 * 10 - 276, 10, 1], atol=1e-9)
    with pytest.raises(ValueError, match='has 704 x 188 pixels, but the calibration is for .* 1408 x 376'):
        build()


@pytest.mark.parametrize(
    ('name', 'change', 'error', 'text'),
    [
        ('perspective.txt', None, FileNotFoundError, r"perspective\.txt' does not exist; copy it from KITTI-360's release"),
        ('perspective.txt', ('R_rect_00', 'R_rect'), ValueError, r"lacks the rows \['R_rect_00'\]"),
        ('perspective.txt', (' 704 188', ' 704'), ValueError, 'row S_rect_00: expected 2 numbers, found 1'),
        ('calib_cam_to_velo.txt', ('0.8', 'x'), ValueError, r"velo\.txt': expected 12 numbers \(could not convert"),
    ],
)
def test_bad_calibration_files(build, calibrated, name, change, error, text):
    path = calibrated.root / 'calibration' / name
    path.unlink() if change is None else path.write_text(CALIBRATION[name].replace(*change))
    with pytest.raises(error, match=text):
        build(calibration='calibration')


def test_sequences_can_be_chosen(build, monkeypatch):
    messages = []
    module = 'projects.occ.datasets.sscbench_kitti360_dataset'
    monkeypatch.setattr(f'{module}.print_log', lambda message, **_: messages.append(message))
    build()
    build(split='train', sequences=[9])
    assert messages == [
        'SSCBench-KITTI-360 val: 3 frames (the published split has 1812)',
        'SSCBench-KITTI-360 drives [9]: 2 frames',
    ]
    dataset = build(sequences=[9])
    assert [dataset.get_data_info(i)['frame_idx'] for i in range(2)] == [15, 855]
    assert len(build(split='train', sequences=[6, 9])) == 5


def test_depth_maps_are_loaded(build, tree):
    folder = tree.root / 'stereo' / sequence_name(6)
    folder.mkdir(parents=True)
    np.save(folder / '000005.npy', np.full((376, 1408), 7, np.float32))
    pipeline = [PIPELINE[0], dict(type='LoadDepthMaps'), *PIPELINE[2:]]
    dataset = build(pipeline=pipeline, data_prefix=dict(depth='stereo'))
    depth = dataset[1]['inputs']['depth']
    assert depth.shape == (1, 376, 1408) and (depth == 7).all()
    text = r"depth map of image_00, frame 2013_05_28_drive_0006_sync_000010: '.*stereo.*000010\.npy' does not exist"
    with pytest.raises(FileNotFoundError, match=text):
        dataset[2]


def test_sweeps_are_found_by_their_number_in_kitti360(build, tree):
    plain = build(data_prefix=dict(pts='data_3d_raw')).get_data_info(1)['lidar_path']
    assert plain.endswith('data_3d_raw/2013_05_28_drive_0006_sync/velodyne_points/data/000005.bin')
    rows = [f'{sequence_name(6)} {int(frame) + 92:010d}.png {frame}.png' for frame in ('000000', '000005', '000010')]
    (tree.root / 'match.txt').write_text('\n'.join(['Working on it', *rows]))
    arguments = dict(data_prefix=dict(pts='data_3d_raw'), frame_map='match.txt')
    assert build(**arguments).get_data_info(1)['lidar_path'].endswith('/0000000097.bin')
    (tree.root / 'match.txt').write_text(rows[0])
    with pytest.raises(ValueError, match="'match.txt' has no row for frame 000005 of 2013_05_28_drive_0006_sync"):
        build(**arguments)
    (tree.root / 'match.txt').write_text('nothing')
    with pytest.raises(ValueError, match='has no row .*kitti_360_match.txt'):
        build(**arguments)


def test_the_real_calibration_and_frame_map(shared_data, tmp_path):
    folder = shared_data / SAMPLE
    if not folder.is_dir():
        pytest.skip(f'no {SAMPLE} in {shared_data}')
    camera, published = read_kitti360_calibration(str(folder / 'calibration')), published_calibration()
    assert camera.image_wh == IMAGE_WH and np.array_equal(camera.cam2img, published.cam2img)
    # they differ by the rectifying rotation, less than half a degree
    turn = camera.ref2cam[:3, :3] @ published.ref2cam[:3, :3].T
    angle = np.degrees(np.arccos((np.trace(turn) - 1) / 2))
    assert 0.4 < angle < 0.5
    text = gzip.decompress((folder / 'kitti_360_match.txt.gz').read_bytes())
    (tmp_path / 'match.txt').write_bytes(text)
    frames = read_frame_map(str(tmp_path / 'match.txt'))
    assert frames[DRIVE, '000855'] == '0000000947' and frames[DRIVE, '002285'] == '0000002449'
    assert len(frames) > 60000


def test_missing_sequence_is_named(build):
    message = r"sequence 2013_05_28_drive_0004_sync of split 'train': folder '.*0004_sync.voxels' is missing.*data_root"
    with pytest.raises(FileNotFoundError, match=message):
        build(split='train')


def test_sequence_without_frames_is_named(build, tree):
    for path in (tree.root / 'data_2d_raw' / sequence_name(9) / 'voxels').iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r'drive_0009_sync of split .*has no <frame>\.bin'):
        build(split='test')


def test_frames_of_another_stride_are_refused(build, tree):
    add_frame(tree.root, sequence_name(6), '000007')
    with pytest.raises(ValueError, match=r"000007\.bin': 7 is no multiple of dataset\.frame_stride=5 .*every fifth frame"):
        build()
    assert len(build(frame_stride=1)) == 4


def test_names_of_kitti360_itself_are_refused(build, tree):
    add_frame(tree.root, sequence_name(6), '0000000945')
    with pytest.raises(ValueError, match=r"0000000945\.bin': frames of SSCBench have six digits"):
        build()


def test_missing_label_is_named_on_loading(build, tree):
    path = tree.root / 'preprocess' / 'labels' / sequence_name(6) / '000005_1_1.npy'
    path.unlink()
    dataset = build()
    assert dataset[0]['data_samples'].frame_idx == 0
    with pytest.raises(FileNotFoundError, match=r"label of frame 2013_05_28_drive_0006_sync_000005: '.*' does not exist"):
        dataset[1]
    images_only = [step for step in PIPELINE if step['type'] != 'LoadSSCBenchLabels']
    assert 'gt_occ' not in build(pipeline=images_only)[1]['data_samples']


def test_image_of_another_size_is_refused(build, tree):
    add_frame(tree.root, sequence_name(6), '000000', size=(704, 188))
    with pytest.raises(ValueError, match=r"000000\.png' has 704 x 188 pixels, but the calibration is .* 1408 x 376"):
        build()


@pytest.mark.parametrize('damage', [b'', b'no image', None], ids=['empty', 'garbage', 'cut short'])
def test_a_damaged_first_image_is_left_to_its_transform(build, tree, damage):
    path = tree.root / 'data_2d_raw' / sequence_name(6) / 'image_00' / 'data_rect' / '000000.png'
    path.write_bytes(path.read_bytes()[:500] if damage is None else damage)
    dataset = build()
    with pytest.raises(ValueError, match=r"frame 2013_05_28_drive_0006_sync_000000: '.*000000\.png' .* not a complete image"):
        dataset[0]


def test_a_damaged_label_stops_at_once_or_is_skipped(build, tree):
    path = tree.root / 'preprocess' / 'labels' / sequence_name(6) / '000000_1_1.npy'
    path.write_bytes(b'xx')
    with pytest.raises(ValueError, match=r"000000: '.*000000_1_1\.npy' \(2 bytes\) is damaged or cut short"):
        build()
    dataset = build(skip_corrupt=True)
    assert dataset.num_skipped == 0 and dataset[0]['data_samples'].frame_idx in (5, 10)
    assert dataset.num_skipped == 1


def test_works_outside_a_runner(tree, monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    dataset = SSCBenchKITTI360Dataset(grid=GRID, data_root=str(tree.root), split='val', pipeline=PIPELINE)
    assert dataset[1]['data_samples'].frame_idx == 5


def test_labels_made_with_another_map_are_warned_about(build, tree, monkeypatch):
    messages = []
    monkeypatch.setattr('projects.occ.datasets.kitti360_labels.print_log', lambda message, **_: messages.append(message))
    build(split='test')
    assert messages == []
    for path in (tree.root / 'preprocess' / 'labels' / sequence_name(9)).iterdir():
        np.save(path, np.minimum(np.load(path), 10))
    build(split='test')
    assert len(messages) == 1 and "label of split 'test': no voxel has a class above 10" in messages[0]


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(split='training'), r"split must be one of \['test', 'train', 'trainval', 'val'\], got 'training'"),
        (dict(data_prefix=dict(seg='x')), r"knows the keys \['depth', 'img', 'occ', 'pts', 'voxels'\], got also \['seg'\]"),
        (dict(sequences=[8]), r'drives among \[0, 2, 3, 4, 5, 6, 7, 9, 10\], or None for the split, got \[8\]'),
        (dict(sequences=[]), r'or None for the split, got \[\]'),
        (dict(frame_stride=0), 'frame_stride must be a positive whole number, got 0'),
        (dict(grid={**GRID, 'frame': 'ego'}), r"\('lidar', 0, 19\), got \('ego', 0, 19\).*configs/_base_"),
        (dict(grid={**GRID, 'free_index': 3}), r"got \('lidar', 3, 19\)"),
        (dict(grid={**GRID, 'class_names': list('abcd')}), r"got \('lidar', 0, 4\)"),
    ],
)
def test_bad_arguments_are_refused(build, change, text):
    with pytest.raises(ValueError, match=text):
        build(**change)


def test_dataset_meta(build):
    meta = build().metainfo
    assert len(meta['classes']) == len(meta['palette']) == 19 and meta['palette'][11] == (255, 200, 0)
    assert meta['classes'][0] == 'empty' and meta['classes'][18] == 'other-object' and meta['grid']['frame'] == 'lidar'


def test_base_config_fits_the_data_set(repo_root):
    config = Config.fromfile(repo_root / 'configs/_base_/datasets/sscbench-kitti360.py')
    for split in ('train', 'val', 'test'):
        args = dict(config[f'{split}_dataloader'].dataset)
        dataset = DATASETS.build(dict(args, lazy_init=True))
        assert dataset.split == split and dataset.test_mode == (split != 'train')
        assert dataset.grid.shape == (256, 256, 32) and dataset.grid.voxel_size == (0.2, 0.2, 0.2)
        assert dataset.grid.class_names == tuple(dataset.metainfo['classes'])
        assert len(dataset.pipeline.transforms) == len(args['pipeline'])
    assert config.val_evaluator.grid == config.test_evaluator.grid == config.grid
    assert config.val_evaluator.preset == 'sscbench-kitti360'


def test_depth_config_is_the_published_recipe(repo_root):
    config, plain = (
        Config.fromfile(repo_root / f'configs/_base_/datasets/sscbench-kitti360{suffix}.py') for suffix in ('-depth', '')
    )
    assert config.grid == plain.grid and config.class_weights == plain.class_weights
    for split in ('train', 'val', 'test'):
        dataset = DATASETS.build(dict(config[f'{split}_dataloader'].dataset, lazy_init=True))
        steps = {type(step).__name__: step for step in dataset.pipeline.transforms}
        assert list(steps)[:5] == [
            *('LoadMultiViewImages', 'LoadSSCBenchLabels', 'LoadDepthMaps', 'ResizeCropFlipImages', 'LoadVoxelProjections')
        ]
        assert steps['LoadVoxelProjections'].voxel_scale == 2
        assert ('RandomFlipScene' in steps) == (split == 'train') and 'MultiViewPhotoMetricDistortion' not in steps
        if split == 'train':
            assert steps['LoadVoxelProjections'].frustums == 8
            assert steps['RandomFlipScene'].prob == 0.5 and not steps['RandomFlipScene'].flip_cameras


def test_class_weights_follow_from_the_voxel_counts(repo_root):
    config = Config.fromfile(repo_root / 'configs/_base_/datasets/sscbench-kitti360.py')
    counts = {'empty': 2264087502, 'motorcycle': 96297, 'road': 105540713, 'vegetation': 295883213, 'other-object': 1950115}
    for name, count in counts.items():
        weight = config.class_weights[config.grid.class_names.index(name)]
        assert weight == pytest.approx(1 / math.log(count + 0.001), abs=1e-8)
    assert len(config.class_weights) == 19


def test_published_config_builds_on_a_tree_of_full_size(repo_root, tmp_path):
    config = Config.fromfile(repo_root / 'configs/surroundocc/surroundocc_r101-dcn_8xb1-20e_sscbench-kitti360.py')
    label = np.zeros((256, 256, 32), np.float32)
    label[10:12], label[:, 100:] = 11, 255
    add_frame(tmp_path, sequence_name(9), '000000', label)
    sample = DATASETS.build(dict(config.test_dataloader.dataset, data_root=str(tmp_path)))[0]['data_samples']
    assert sample.gt_occ.shape == (256, 256, 32) and sample.gt_occ.unique().tolist() == [0, 11, 255]


def test_poses_are_read_where_there_are_some(build, tree):
    (tree.root / 'poses').mkdir()
    pose = np.eye(4)
    pose[:3, 3] = 1000.0, 2000.0, 100.0
    write_poses(tree.root / 'poses' / f'{sequence_name(6)}.npz', {5: pose})
    dataset = build(poses='poses')
    infos = [dataset.get_data_info(index) for index in range(3)]
    assert np.array_equal(infos[1]['ego2global'], pose)
    assert 'ego2global' not in infos[0] and 'ego2global' not in infos[2]
    with pytest.raises(FileNotFoundError, match=r'drive_0009_sync\.npz. does not exist; make it with tools/create_data.py'):
        build(poses='poses', split='test')
