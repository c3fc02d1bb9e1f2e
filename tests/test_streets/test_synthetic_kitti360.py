"""Generated streets in the format of SSCBench-KITTI-360: files, the real reader, and that everything shows the same world."""

import json

import cv2
import numpy as np
import pytest
from mmdet3d.registry import DATASETS
from mmengine.config import Config

from projects.occ.datasets import SSCBenchKITTI360Dataset
from projects.occ.datasets.label_formats import read_raw_label
from projects.occ.datasets.sscbench_kitti360_dataset import published_calibration
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmark_classes import KITTI360_CLASSES
from projects.preparation.info_writer import CATEGORIES
from projects.streets import build_config
from projects.streets.class_maps import KITTI360_MAP, NUSCENES_MAP, class_map
from projects.streets.config import grid_dict
from projects.streets.kitti360_writer import frame_name
from projects.streets.materials import MATERIAL_CLASS, Material

TRAIN, VAL = '2013_05_28_drive_0004_sync', '2013_05_28_drive_0006_sync'
LOADING = [dict(type='LoadMultiViewImages'), dict(type='LoadSSCBenchLabels')]
PACKING = [dict(type='LoadVoxelProjections', voxel_scale=2, frustums=4), dict(type='PackOccInputs')]


@pytest.fixture(scope='module')
def read(kitti360_root, kitti360_config):
    """Builds the real data set with a loader of depth."""

    def call(depth='LoadDepthMaps', **kwargs):
        return SSCBenchKITTI360Dataset(
            grid=grid_dict(kitti360_config.grids['sscbench-kitti360']),
            data_root=str(kitti360_root),
            data_prefix=dict(pts='data_3d_raw'),
            calibration='calibration',
            pipeline=[*LOADING, dict(type=depth), *PACKING],
            **dict(dict(sequences=[4]), **kwargs),
        )

    return call


@pytest.fixture(scope='module')
def items(read):
    return [*(read()[i] for i in range(2)), *(read(split='val', sequences=None)[i] for i in range(2))]


def voxels_of(points, grid):
    index, inside = grid.point_to_index(points)
    return tuple(index[inside].T), inside


def test_every_class_has_something_to_show():
    static = KITTI360_MAP.material[1:][MATERIAL_CLASS[1:] != 255]
    assert (static > 0).all() and (KITTI360_MAP.material[Material.PAINT :] == 0).all()
    assert set(static) | set(KITTI360_MAP.objects.values()) == set(range(1, 19))
    assert set(KITTI360_MAP.objects) == set(CATEGORIES) == set(NUSCENES_MAP.objects)
    names = ('empty', *KITTI360_CLASSES)
    assert [names[i] for i in np.flatnonzero(KITTI360_MAP.things)] == [
        *('car', 'bicycle', 'motorcycle', 'truck', 'other-vehicle', 'person', 'other-object')
    ]
    assert class_map('occ3d') is class_map('surroundocc') is NUSCENES_MAP


def test_layout(kitti360_root, kitti360_config):
    for drive, frames in ((TRAIN, ('000000', '000005')), (VAL, ('000000', '000005'))):
        for frame in frames:
            image = cv2.imread(str(kitti360_root / f'data_2d_raw/{drive}/image_00/data_rect/{frame}.png'))
            assert image.shape == (72, 264, 3) and image.std() > 20
            depth = np.load(kitti360_root / f'depth/{drive}/{frame}.npy')
            assert depth.shape == (72, 264) and depth.dtype == np.float32 and depth.min() == 0 and 2 < depth.max() < 60
            label = np.load(kitti360_root / f'preprocess/labels/{drive}/{frame}_1_1.npy')
            assert label.shape == (64, 64, 8) and label.dtype == np.float32
            voxels = kitti360_root / f'data_2d_raw/{drive}/voxels'
            assert (voxels / f'{frame}.bin').stat().st_size == 64 * 64 * 8 / 8
            points = np.fromfile(kitti360_root / f'data_3d_raw/{drive}/velodyne_points/data/{frame}.bin', '<f4').reshape(-1, 4)
            assert len(points) > 10000 and 0 <= points[:, 3].min() and points[:, 3].max() <= 1
            scanned = np.unpackbits(np.fromfile(voxels / f'{frame}.bin', np.uint8)).reshape(label.shape)
            index, _ = voxels_of(points[:, :3], kitti360_config.grids['sscbench-kitti360'])
            assert scanned[index].all() and scanned.sum() == len(set(zip(*index)))
    assert not list(kitti360_root.rglob('*.tmp')) and not list(kitti360_root.rglob('*.pkl'))
    assert cv2.imread(str(kitti360_root / 'preview' / 'scene-0001.png')).shape == (144, 264 + 144, 3)


def test_scenes_follow_each_other_in_one_drive_per_split(kitti360_config):
    config = build_config(('sscbench-kitti360',), scenes_train=3, scenes_val=2, frames=4)
    assert frame_name(config, 2, 3) == (TRAIN, '002015') and frame_name(config, 4, 0) == (VAL, '001000')


def test_raw_and_converted_labels_agree(kitti360_root, items, kitti360_config):
    counts = np.zeros(256, np.int64)
    for item in items:
        sample = item['data_samples']
        drive, frame = sample.token.rsplit('_', 1)
        raw = read_raw_label(kitti360_root / f'data_2d_raw/{drive}/voxels/{frame}.label', (64, 64, 8))
        assert np.array_equal(raw, sample.gt_occ.numpy())
        counts += np.bincount(raw.ravel(), minlength=256)
    # what the raw files are for: both kinds of ignored voxels, and classes that only the right map has
    outliers = sum((np.fromfile(p, '<u2') == 1).sum() for p in kitti360_root.rglob('*.label'))
    assert 0 < outliers < 0.02 * counts[1:19].sum() and counts[255] > 0.1 * counts.sum()
    assert counts[11:19].sum() > 0.2 * counts[1:19].sum() and counts[7] > 1000
    found = json.loads((kitti360_root / 'synthetic.json').read_text())['voxels']['sscbench-kitti360']
    totals = {name: found['train'][name] + found['val'][name] for name in found['train']}
    assert totals == dict(zip(('empty', *KITTI360_CLASSES, 'ignored'), (*counts[:19].tolist(), int(counts[255]))))


def test_calibration_is_that_of_kitti360_for_smaller_images(read):
    camera, published = read().camera, published_calibration()
    assert camera.image_wh == (264, 72)
    np.testing.assert_allclose(camera.ref2cam, published.ref2cam, atol=1e-8)
    scale = 264 / 1408
    np.testing.assert_allclose(camera.cam2img[0], published.cam2img[0] * scale)
    # 376 rows would become 70.5
    assert camera.cam2img[1, 2] == pytest.approx(published.cam2img[1, 2] * scale + 0.75)


def back_projected(sample, depth, behind=0.0):
    """Rows, columns, depths and points (P, 3) of all pixels with depth, moved ``behind`` metres along the optical axis."""
    rows, columns = np.nonzero(depth)
    d = depth[rows, columns].astype(np.float64)
    rays = np.stack([columns + 0.5, rows + 0.5, np.ones(len(d))]) * (d + behind)
    camera = np.linalg.inv(sample.cam2img[0].astype(np.float64)) @ rays
    points = np.linalg.inv(sample.ref2cam[0].astype(np.float64)) @ np.vstack([camera, np.ones(len(d))])
    return rows, columns, d, points[:3].T


def test_depth_maps_end_in_voxels_of_the_label(items, kitti360_config):
    grid = kitti360_config.grids['sscbench-kitti360']
    for item in items:
        sample = item['data_samples']
        points = back_projected(sample, item['inputs']['depth'][0].numpy(), 0.02)[3]
        index, inside = voxels_of(points, grid)
        assert inside.sum() > 2000
        assert (sample.gt_occ.numpy()[index] != 0).mean() > 0.95


def test_depth_of_the_lidar_is_like_the_exact_one(read, items):
    made = read('LoadDepthFromLidar')[0]['inputs']['depth'][0].numpy()
    exact = items[0]['inputs']['depth'][0].numpy()
    both = (made > 0) & (exact > 0)
    assert both.sum() > 0.5 * (exact > 0).sum()
    error = np.abs(made - exact)[both]
    assert np.median(error) < 0.3 and (error < 0.1 * exact[both]).mean() > 0.8


def test_projected_voxels_lie_around_the_pixels_that_show_them(items, kitti360_config):
    grid = kitti360_config.grids['sscbench-kitti360']
    coarse = VoxelGrid.build(dict(grid_dict(grid), voxel_size=1.0, shape=[32, 32, 4]))
    for item in items:
        sample, inputs = item['data_samples'], item['inputs']
        assert inputs['voxel_pixels'].shape == (1, 32 * 32 * 4, 2) and inputs['frustum_index'].shape == grid.shape
        rows, columns, d, points = back_projected(sample, item['inputs']['depth'][0].numpy())
        index, inside = voxels_of(points, coarse)
        rows, columns, d = rows[inside], columns[inside], d[inside]
        flat = np.ravel_multi_index(index, coarse.shape)
        visible = inputs['voxel_visible'][0].numpy()[flat]
        assert visible[d > 6].mean() > 0.95
        # a point is at most half the diagonal of 1 m voxels away from its centre
        offset = (inputs['voxel_pixels'][0].numpy()[flat] - np.stack([columns, rows], 1))[visible]
        reach = sample.cam2img[0, 0, 0] * 0.87 * 1.5 / np.maximum(d[visible] - 0.87, 0.5) + 1
        assert (np.abs(offset).max(1) < reach).all() and np.abs(offset).max() > 3
        # and the boxes of the image are those of the pixels, but near their borders
        boxes = inputs['frustum_index'].numpy()[voxels_of(points, grid)[0]]
        own = (rows * 4 // 72) * 4 + columns * 4 // 264
        assert (boxes == own)[d > 6].mean() > 0.8 and inputs['frustum_index'].max() == 15


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            dict(formats=('sscbench-kitti360', 'occ3d')),
            'a vehicle with one camera of its own, so it cannot be generated together',
        ),
        (dict(legacy_infos=True), '--legacy-infos.*sscbench-kitti360 has no annotation files'),
        (dict(scenes_train=1001), 'six digits of a frame .* 1000 scenes of 200 frames, got --scenes-train 1001'),
        (dict(frames=201), 'got --scenes-train 8 --scenes-val 2 --frames 201'),
    ],
)
def test_bad_configurations(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_config(**dict(dict(formats=('sscbench-kitti360',)), **arguments))


def test_full_preset_is_the_benchmark():
    grid = build_config(('sscbench-kitti360',), preset='full', frames=1).grids['sscbench-kitti360']
    assert grid.shape == (256, 256, 32) and grid.voxel_size == (0.2,) * 3 and grid.frame == 'lidar'
    assert grid.point_cloud_range == (0, -25.6, -2, 51.2, 25.6, 4.4) and grid.class_names == ('empty', *KITTI360_CLASSES)


def dataset_of(repo_root, root, name, split):
    """Data set of a base config, for the small images of these tests."""
    config = Config.fromfile(repo_root / 'configs' / '_base_' / 'datasets' / f'{name}.py')
    args = config[f'{split}_dataloader'].dataset.to_dict()
    for step in args['pipeline']:
        if step['type'] == 'ResizeCropFlipImages':
            step['final_wh'] = [264, 72]
        if step['type'] == 'RandomFlipScene':
            step['prob'] = 1.0
    return DATASETS.build(dict(args, data_root=str(root)))


@pytest.mark.parametrize('name', ['synthetic-sscbench-kitti360', 'synthetic-sscbench-kitti360-depth'])
def test_base_configs_read_it(repo_root, kitti360_root, name):
    config = Config.fromfile(repo_root / 'configs' / '_base_' / 'datasets' / f'{name}.py')
    grid = build_config(('sscbench-kitti360',)).grids['sscbench-kitti360']
    assert VoxelGrid.build(config.grid) == grid == VoxelGrid.build(config.test_evaluator.grid)
    assert config.image_wh == list(build_config(('sscbench-kitti360',)).image_size)
    drives = dict(train=TRAIN, val=VAL, test=VAL)
    for split, drive in drives.items():
        dataset = dataset_of(repo_root, kitti360_root, name, split)
        assert len(dataset) == 2 and dataset.test_mode == (split != 'train') and dataset.grid == grid
        item = dataset[0]
        sample = item['data_samples']
        assert sample.scene_name == drive and item['inputs']['img'].shape == (1, 3, 72, 264)
        assert ('depth' in item['inputs']) == ('voxel_pixels' in item['inputs']) == name.endswith('depth')
        assert ('frustum_index' in item['inputs']) == (name.endswith('depth') and split == 'train')


def test_mirrored_scenes_still_fit_their_depth_maps(repo_root, kitti360_root, kitti360_config):
    """The training pipeline mirrors cameras as well, so that depth ends in the mirrored label."""
    sample, depth = (lambda item: (item['data_samples'], item['inputs']['depth'][0].numpy()))(
        dataset_of(repo_root, kitti360_root, 'synthetic-sscbench-kitti360-depth', 'train')[0]
    )
    plain = dataset_of(repo_root, kitti360_root, 'synthetic-sscbench-kitti360', 'train')[0]['data_samples']
    assert np.array_equal(sample.gt_occ, plain.gt_occ.numpy()[:, ::-1])
    index, inside = voxels_of(back_projected(sample, depth, 0.02)[3], kitti360_config.grids['sscbench-kitti360'])
    assert inside.sum() > 2000 and (sample.gt_occ.numpy()[index] != 0).mean() > 0.95
    # a compatible flip would not
    wrong, _ = voxels_of(back_projected(plain, depth, 0.02)[3], kitti360_config.grids['sscbench-kitti360'])
    assert (sample.gt_occ.numpy()[wrong] != 0).mean() < 0.95
