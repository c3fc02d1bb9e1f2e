"""LiDAR rays of generated streets, through the real loaders: they start at cameras and end on voxels of their class."""

import json
import pickle
import random

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.dataset import pseudo_collate
from rays_of_streets import dataset_of, ends_of, shares_on_the_label

import projects.rendering.registered_parts  # noqa: F401  registers the parts
from projects.occ.datasets import LoadMultiViewImages, SSCBenchKITTI360Dataset
from projects.occ.datasets.safe_pickle import load_numpy_pickle
from projects.occ.datasets.transforms import (
    LoadLidarRays,
    LoadOccLabels,
    LoadSSCBenchLabels,
    PackOccInputs,
    RandomFlipScene,
    RandomMirrorGrid,
    ReferenceAtCameraTime,
)
from projects.occ.datasets.transforms import lidar_rays as module
from projects.occ.models.data_preprocessor import OccDataPreprocessor
from projects.occ.structures import OccPrediction

BENCHMARKS = ('occ3d', 'surroundocc')


def load(dataset, index=0, **settings):
    info = LoadOccLabels()(LoadMultiViewImages()(dataset.get_data_info(index)))
    np.random.seed(5)  # noqa: NPY002
    return LoadLidarRays(**settings)(info)


@pytest.mark.parametrize('benchmark', BENCHMARKS)
def test_rays_of_two_frames_end_on_voxels_of_their_class(raw_root, benchmark):
    dataset = dataset_of(raw_root, benchmark, lidar_frames=(0, -1, 1))
    results = load(dataset, num_rays=10**6)
    rays = results['rays']
    # the first frame of its scene: there is none before it
    assert set(np.unique(rays['frame'])) == {0, 1} and len(results['img']) == 6
    for frame in (0, 1):
        here = rays['frame'] == frame
        # voxels of 0.8 m hold points of several classes
        occupied, same = shares_on_the_label(results, here)
        assert here.sum() > 300 and occupied > 0.98 and same > 0.85
    # key frame's rays know their view, the images of the others are not there
    assert set(np.unique(rays['view'][rays['frame'] == 0])) == set(range(6)) and (rays['view'][rays['frame'] == 1] == -1).all()
    np.testing.assert_allclose(np.linalg.norm(rays['direction'], axis=1), 1, atol=1e-6)
    assert rays['depth'].min() >= 1
    # the ray of a key frame's pixel is the one that its camera has
    view, camera = 3, np.linalg.inv(results['ref2cam'][3])
    at = np.flatnonzero(rays['view'] == view)
    np.testing.assert_allclose(rays['origin'][at], np.broadcast_to(camera[:3, 3], (len(at), 3)), atol=1e-5)
    projected = np.c_[ends_of(rays)[at], np.ones(len(at))] @ results['ref2cam'][view].T
    np.testing.assert_allclose(projected[:, 2], rays['depth'][at], rtol=1e-4)
    pixels = projected[:, :3] @ results['cam2img'][view].T
    np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], rays['uv'][at], atol=2e-3)


def test_views_of_neighbours_that_are_loaded_are_known(raw_root):
    results = load(dataset_of(raw_root, 'occ3d', frames=(0, 1)), num_rays=10**6)
    view, frame = results['rays']['view'], results['rays']['frame']
    assert set(np.unique(view[frame == 1])) == set(range(6, 12)) and set(np.unique(view[frame == 0])) == set(range(6))


def test_moving_classes_of_other_frames_are_never_drawn(raw_root):
    dataset = dataset_of(raw_root, 'occ3d', lidar_frames=(1,))
    moving = (2, 3, 4, 5, 6, 7, 9, 10)
    free = load(dataset, num_rays=10**6, dynamic_weight=1.0)['rays']
    assert np.isin(free['labels'][free['frame'] == 1], moving).any()
    rays = load(dataset, num_rays=10**6)['rays']
    assert not np.isin(rays['labels'][rays['frame'] == 1], moving).any()
    assert (
        np.isin(rays['labels'][rays['frame'] == 0], moving).sum() == np.isin(free['labels'][free['frame'] == 0], moving).sum()
    )
    key = load(dataset, num_rays=10**6, frames=(0,))['rays']
    assert (key['frame'] == 0).all() and len(key['frame']) == (rays['frame'] == 0).sum()
    few = load(dataset, num_rays=100)['rays']
    assert len(few['depth']) == 100 and len(np.unique(np.c_[few['uv'], few['frame'], few['camera']], axis=0)) == 100
    again = load(dataset, num_rays=100)['rays']
    assert all(np.array_equal(few[key], again[key]) for key in few)


def test_compatible_options(raw_root):
    dataset = dataset_of(raw_root, 'occ3d', lidar_frames=(-1, 1))
    right = load(dataset, num_rays=10**6, frames=(0, -1, 1))['rays']
    # the key frame stands in for the one before it, as another frame
    repeated = load(dataset, num_rays=10**6, frames=(0, -1, 1), missing='repeat', dynamic_weight=1.0)['rays']
    assert (repeated['frame'] == -1).sum() == (repeated['frame'] == 0).sum() > 0
    centres = load(dataset, num_rays=10**6, frames=(0, -1, 1), subpixel=False)['rays']
    assert np.array_equal(centres['uv'], np.trunc(right['uv']) + 0.5) and np.array_equal(centres['depth'], right['depth'])
    # origins of the key frame at the moment of each image are the mountings
    own = load(dataset, num_rays=10**6, key_ego='per_camera')
    for camera in range(6):
        here = (own['rays']['frame'] == 0) & (own['rays']['camera'] == camera)
        expected = own['cam2ego'][camera][:3, 3]
        np.testing.assert_allclose(own['rays']['origin'][here], np.broadcast_to(expected, (here.sum(), 3)), atol=1e-5)
    shift = np.abs(own['rays']['origin'] - right['origin']).max()
    assert 0.001 < shift < 1
    mapped = load(dataset, num_rays=10**6, frames=(0,), label_lookup='map')['rays']
    pixels = np.c_[mapped['camera'], np.trunc(mapped['uv'])]
    _, group = np.unique(pixels, axis=0, return_inverse=True)
    for number in np.unique(group):
        assert len(np.unique(mapped['labels'][group == number])) == 1
    assert len(load(dataset, num_rays=10**6, min_depth=0.0)['rays']['depth']) >= len(right['depth'])
    assert load(dataset, num_rays=10**6, max_depth=10.0)['rays']['depth'].max() <= 10
    balanced = load(dataset, num_rays=300, balance='sample')['rays']
    uniform = load(dataset, num_rays=300, balance='none', neighbour_weight=1.0)['rays']
    assert len(np.unique(balanced['labels'])) >= len(np.unique(uniform['labels']))


@pytest.mark.parametrize('benchmark', BENCHMARKS)
def test_rays_move_with_the_scene(raw_root, benchmark):
    random.seed(0)
    dataset = dataset_of(raw_root, benchmark, lidar_frames=(0, 1))
    steps = [RandomMirrorGrid(1.0, 1.0), RandomMirrorGrid(1.0, 0.0), RandomFlipScene(1.0)]
    if benchmark == 'occ3d':
        steps.append(ReferenceAtCameraTime())
    for step in steps:
        results = load(dataset, num_rays=10**6)
        before = shares_on_the_label(results)
        moved = step(dict(results))
        # labels stay at LiDAR time when the reference moves
        assert isinstance(step, ReferenceAtCameraTime) or shares_on_the_label(moved) == pytest.approx(before, abs=5e-3)
        rays = moved['rays']
        at = np.flatnonzero(rays['view'] == 2)
        projected = np.c_[ends_of(rays)[at], np.ones(len(at))] @ moved['ref2cam'][2].T
        np.testing.assert_allclose(projected[:, 2], rays['depth'][at], rtol=1e-4)
        pixels = projected[:, :3] @ moved['cam2img'][2].T
        np.testing.assert_allclose(pixels[:, :2] / pixels[:, 2:], rays['uv'][at], atol=2e-3)
        if isinstance(step, RandomFlipScene):
            with pytest.raises(ValueError, match='before RandomFlipScene'):
                LoadLidarRays()(dict(moved))
            continue
        # loaded after it, they are the same
        info = step(LoadOccLabels()(LoadMultiViewImages()(dataset.get_data_info(0))))
        np.random.seed(5)  # noqa: NPY002
        after = LoadLidarRays(num_rays=10**6)(info)['rays']
        for key in rays:
            np.testing.assert_allclose(after[key], rays[key], atol=2e-5)


def test_a_batch_pads_what_has_fewer_rays(raw_root):
    dataset = dataset_of(raw_root, 'occ3d', lidar_frames=(0, 1))
    preprocessor = OccDataPreprocessor()
    items = [PackOccInputs()(load(dataset, index, num_rays=count)) for index, count in ((0, 50), (1, 80))]
    batch = preprocessor(pseudo_collate(items))['inputs']
    assert batch.rays.origin.shape == (2, 80, 3) and batch.rays.valid.sum(1).tolist() == [50, 80]
    assert (batch.rays.labels[0, 50:] == 255).all() and torch.allclose(batch.rays.direction.norm(dim=-1), torch.ones(2, 80))
    single = preprocessor(pseudo_collate(items[:1]))['inputs']
    for name in ('origin', 'direction', 'depth', 'labels', 'frame', 'view', 'uv', 'depth_per_range'):
        assert torch.equal(getattr(batch.rays, name)[0, :50], getattr(single.rays, name)[0])
    preprocessor.expect(dataset_of(raw_root, 'surroundocc').grid, False)
    for item in items:
        del item['data_samples'].gt_occ
    with pytest.raises(ValueError, match='rays are in the ego frame'):
        preprocessor(pseudo_collate(items))


def test_a_batch_of_two_is_supervised_as_two_singles(raw_root):
    # what two processes with one sample each average, too
    dataset = dataset_of(raw_root, 'occ3d', lidar_frames=(0, 1))
    grid = dataset.grid
    preprocessor = OccDataPreprocessor()
    items = [PackOccInputs()(load(dataset, index, num_rays=count)) for index, count in ((0, 150), (1, 200))]
    batches = [preprocessor(pseudo_collate(part))['inputs'] for part in (items, items[:1], items[1:])]
    supervision = MODELS.build(
        dict(
            type='RenderSupervision',
            grid=grid,
            field=dict(type='DensityField', source='logits', features='logits', form='dvgo'),
            views=dict(type='MeasuredRays', max_depth=52.0),
            renderer=dict(type='MarchRenderer', form='dvgo', sampling='uniform', step=1.0),
            target=dict(type='RayTarget', depth='z', labels=True),
            terms=dict(
                loss_ray_depth=dict(function='silog', view='ray', quantity='depth'),
                loss_ray_sem=dict(function='cross_entropy', view='ray', quantity='features'),
                loss_ray_entropy=dict(function='last_entropy', view='ray'),
            ),
        )
    )
    torch.manual_seed(0)
    logits = torch.randn(2, grid.num_classes, *grid.shape)
    logits[:, grid.free_index] += 4
    found = [
        supervision.loss(OccPrediction(logits=[logits[rows]]), batch)
        for rows, batch in zip((slice(None), slice(0, 1), slice(1, 2)), batches, strict=True)
    ]
    assert set(found[0]) == {'loss_ray_depth', 'loss_ray_sem', 'loss_ray_entropy'}
    for name, value in found[0].items():
        assert value > 0
        torch.testing.assert_close(value, (found[1][name] + found[2][name]) / 2, rtol=1e-5, atol=1e-6)


def test_without_point_classes_there_is_depth_alone_and_it_is_said_once(raw_root, monkeypatch):
    said = []
    monkeypatch.setattr(module, 'print_log', lambda sentence, **_: said.append(sentence))
    dataset = dataset_of(raw_root, 'occ3d')
    info = LoadMultiViewImages()(dataset.get_data_info(0))
    with_classes = load(dataset, num_rays=10**6)['rays']
    # more rays asked for than there are
    assert len(said) == 1 and f'{len(with_classes["depth"])} rays' in said[0] and 'num_rays=1000000' in said[0]
    for scan in info['lidar_frames']:
        scan['lidarseg_path'] = ''
    transform = LoadLidarRays(num_rays=100)
    rays = [transform(dict(info))['rays'] for _ in range(2)]
    assert all((drawn['labels'] == 255).all() and len(drawn['depth']) == 100 for drawn in rays)
    assert len(said) == 2 and 'nuScenes-lidarseg' in said[1] and 'depth alone' in said[1]
    every = LoadLidarRays(num_rays=10**6, point_classes='none')(dict(info))['rays']
    assert np.array_equal(every['depth'], with_classes['depth']) and len(said) == 3


def test_class_maps_take_the_place_of_point_classes(raw_root, tmp_path):
    dataset = dataset_of(raw_root, 'occ3d')
    info = LoadMultiViewImages()(dataset.get_data_info(0))
    for number, path in enumerate(info['img_paths']):
        values = np.full(info['img'][number].shape[:2], number, dtype=np.uint8)
        values[:, :10] = 17
        np.save(tmp_path / (path.rsplit('/', 1)[1].removesuffix('.jpg') + '.npy'), values)
    rays = LoadLidarRays(num_rays=10**6, class_maps=dict(folder=str(tmp_path)))(dict(info))['rays']
    expected = np.where(rays['uv'][:, 0] < 10, 255, rays['camera'])
    assert np.array_equal(rays['labels'], expected)
    np.save(tmp_path / (info['img_paths'][0].rsplit('/', 1)[1].removesuffix('.jpg') + '.npy'), values + 40)
    with pytest.raises(ValueError, match='holds the class'):
        LoadLidarRays(class_maps=dict(folder=str(tmp_path)))(dict(info))


def test_bad_input(raw_root, tmp_path):
    dataset = dataset_of(raw_root, 'occ3d')
    info = LoadMultiViewImages()(dataset.get_data_info(0))
    with pytest.raises(ValueError, match='LoadLidarRays has nothing to project'):
        LoadLidarRays()(dict(info, lidar_frames=[]))
    with pytest.raises(ValueError, match=r'none of LoadLidarRays.frames=\(3,\)'):
        LoadLidarRays(frames=(3,))(dict(info))
    short = tmp_path / 'short.bin'
    short.write_bytes(b'\x18' * 7)
    with pytest.raises(ValueError, match=r'short\.bin. has 7 bytes for \d+ LiDAR points'):
        LoadLidarRays()(dict(info, lidar_frames=[dict(info['lidar_frames'][0], lidarseg_path=str(short))]))
    with pytest.raises(ValueError, match="'voxels'"):
        LoadLidarRays(point_classes='voxels')(dict(info))
    with pytest.raises(ValueError, match='class_counts has 3 numbers'):
        LoadLidarRays(class_counts=(1, 2, 3))(dict(info))
    for settings in (
        dict(balance='x'),
        dict(num_rays=0),
        dict(neighbour_weight=-1),
        dict(min_depth=5.0, max_depth=4.0),
        dict(missing='repeat'),
        dict(ray_files=dict(classes='x')),
        dict(class_maps=dict(pattern='x')),
    ):
        with pytest.raises(ValueError, match='LoadLidarRays'):
            LoadLidarRays(**settings)
    with pytest.raises(ValueError, match='lidar_frames'):
        dataset_of(raw_root, 'occ3d', lidar_frames=(1, 1))
    with pytest.raises(ValueError, match='lidar_frames are key frames'):
        dataset_of(raw_root, 'occ3d', lidar_frames=(1,), neighbours='sweeps')


def test_kitti360_takes_classes_from_the_labels_of_its_frames(tmp_path_factory, create_data_main):
    root = tmp_path_factory.mktemp('kitti')
    size = ('--scenes-train', '1', '--scenes-val', '1', '--frames', '2', '--seed', '3', '--workers', '1')
    assert create_data_main(['synthetic', '--format', 'sscbench-kitti360', '--out', str(root), *size]) == 0
    config = json.loads((root / 'synthetic.json').read_text())['config']
    dataset = SSCBenchKITTI360Dataset(
        grid=config['grids']['sscbench-kitti360'],
        data_root=str(root),
        data_prefix=dict(pts='data_3d_raw'),
        calibration='calibration',
        poses='poses',
        sequences=[4],
        lidar_frames=(-1, 1),
    )
    settings = dict(num_rays=10**6, balance='sample', point_classes='voxels', point_dims=4)
    info = LoadSSCBenchLabels()(LoadMultiViewImages()(dataset.get_data_info(0)))
    results = LoadLidarRays(**settings)(info)
    rays = results['rays']
    assert set(np.unique(rays['frame'])) == {0, 1} and 0 not in rays['labels']
    # the class of a point of the key frame is that of its voxel
    occupied, same = shares_on_the_label(results, rays['frame'] == 0)
    assert occupied == 1 and same > 0.999
    occupied, same = shares_on_the_label(results, rays['frame'] == 1)
    # voxels of 0.5 m seen from half a second later
    assert occupied > 0.85 and same > 0.75
    with pytest.raises(ValueError, match=r"class_counts.*'sample'"):
        LoadLidarRays(**dict(settings, balance='data_set'))(dict(info))
    with pytest.raises(ValueError, match=r'lidar_frames=\(1,\) needs the poses'):
        SSCBenchKITTI360Dataset(grid=dataset.grid, data_root=str(root), sequences=[4], lidar_frames=(1,))


def test_a_source_without_poses_or_neighbours_is_one_sentence(raw_root, tmp_path):
    content = load_numpy_pickle(str(raw_root / 'occ_infos_train.pkl'))
    for info in content['data_list']:
        info['ego2global'] = np.full((4, 4), np.nan)
    (tmp_path / 'poseless.pkl').write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=r'ego2global.*lidar_frames'):
        dataset_of(raw_root, 'occ3d', lidar_frames=(1,), ann_file=str(tmp_path / 'poseless.pkl'))
    for info in content['data_list']:
        for key in ('prev', 'next', 'scene_name', 'scene_token'):
            info.pop(key, None)
    (tmp_path / 'alone.pkl').write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match='neither their neighbours'):
        dataset_of(raw_root, 'occ3d', lidar_frames=(1,), ann_file=str(tmp_path / 'alone.pkl'))
