import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate

from projects.occ.datasets import Occ3DNuScenesDataset, SurroundOccNuScenesDataset
from projects.occ.datasets.nuscenes_occ_dataset import mini_subset_indices

PIPELINE = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadOccLabels'),
    dict(type='ResizeCropFlipImages', final_wh=(32, 16), training=False),
    dict(type='PackOccInputs'),
]


@pytest.fixture
def occ3d(tiny_root, formats):
    def build(**kwargs):
        args = dict(
            ann_file='infos.pkl',
            data_root=str(tiny_root.path),
            data_prefix=dict(img='nuscenes', pts='nuscenes', occ='gts'),
            grid=formats.tiny_grid('occ3d'),
            pipeline=PIPELINE,
        )
        return Occ3DNuScenesDataset(**{**args, **kwargs})

    return build


@pytest.fixture
def surroundocc(tiny_root, formats):
    def build(**kwargs):
        args = dict(
            ann_file='infos.pkl',
            data_root=str(tiny_root.path),
            data_prefix=dict(img='nuscenes', pts='nuscenes', occ='occ'),
            grid=formats.tiny_grid('surroundocc'),
            pipeline=PIPELINE,
        )
        return SurroundOccNuScenesDataset(**{**args, **kwargs})

    return build


def test_mini_subset_is_the_published_one():
    train, val = mini_subset_indices(28130), mini_subset_indices(6019)
    assert (len(train), train[:5]) == (5626, [18276, 2709, 21163, 27444, 15650])
    assert (len(val), val[:5]) == (1203, [4569, 677, 5290, 3912, 1419])


def test_occ3d_item(occ3d, tiny_root):
    dataset = occ3d()
    assert len(dataset) == 4
    item = dataset[1]
    frame, sample = tiny_root.frames[1], item['data_samples']
    image = item['inputs']['img']
    assert image.shape == (6, 3, 16, 32) and image.dtype == torch.uint8
    label = np.load(tiny_root.path / 'gts' / frame.scene_name / frame.token / 'labels.npz')
    assert torch.equal(sample.gt_occ, torch.from_numpy(label['semantics'])) and sample.gt_occ.dtype == torch.uint8
    assert sample.mask_camera.dtype == torch.bool and sample.mask_lidar.dtype == torch.bool
    assert np.array_equal(sample.mask_camera.numpy(), label['mask_camera'] == 1)
    assert np.array_equal(sample.mask_lidar.numpy(), label['mask_lidar'] == 1)
    assert sample.token == frame.token and sample.scene_name == frame.scene_name and sample.frame_idx == 1
    batch = pseudo_collate([item, dataset[0]])
    assert len(batch['inputs']['img']) == 2 and len(batch['data_samples']) == 2


def test_surroundocc_item(surroundocc, tiny_root):
    sample = surroundocc()[2]['data_samples']
    frame = tiny_root.frames[2]
    rows = np.load(tiny_root.path / 'occ' / (frame.lidar['filename'].rsplit('/', 1)[-1] + '.npy'))
    expected = np.zeros((8, 8, 2), np.uint8)
    for x, y, z, label in rows:
        expected[x, y, z] = 255 if label == 0 else label
    assert np.array_equal(sample.gt_occ.numpy(), expected)
    assert (rows[:, 3] == 0).any()
    assert 'mask_camera' not in sample


def test_meta_information_is_that_of_the_data_sample(occ3d):
    sample = occ3d()[0]['data_samples']
    shapes = dict(ref2img=(6, 4, 4), img_wh=(6, 2), ref2cam=(6, 4, 4), cam2img=(6, 3, 3), ori_img_wh=(6, 2))
    plain = {'cam_names', 'img_paths', 'token', 'scene_name', 'frame_idx', 'lidar_path', 'lidar2ego', 'ego2global'}
    assert set(sample.metainfo_keys()) == set(shapes) | plain
    for key, shape in shapes.items():
        assert sample.get(key).shape == shape and sample.get(key).dtype == np.float32
    assert sample.lidar2ego.dtype == sample.ego2global.dtype == np.float64
    assert sample.img_wh.tolist() == [[32, 16]] * 6 and sample.ori_img_wh.tolist() == [[32, 18]] * 6
    assert sample.cam_names[1] == 'CAM_FRONT_RIGHT'


def test_lidar_frame_matrices_are_exact(surroundocc, tiny_root, formats):
    info = surroundocc().get_data_info(3)
    frame = tiny_root.frames[3]
    for view, name in enumerate(info['cam_names']):
        np.testing.assert_allclose(info['ref2img'][view], frame.lidar2img(name), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(info['ref2cam'][view], frame.lidar2cam(name), atol=1e-9)
        np.testing.assert_allclose(info['cam2img'][view], frame.sensors[name]['K'])


@pytest.mark.parametrize('compensated', [False, True])
def test_ego_frame_matrices_follow_the_switch(occ3d, tiny_root, formats, compensated):
    info = occ3d(ego_motion_compensation=compensated).get_data_info(3)
    frame = tiny_root.frames[3]
    ego2lidar = np.linalg.inv(formats.se3(frame.lidar['calib']))
    for view, name in enumerate(info['cam_names']):
        exact = frame.lidar2cam(name) @ ego2lidar
        mounting = np.linalg.inv(formats.se3(frame.sensors[name]['calib']))
        np.testing.assert_allclose(info['ref2cam'][view], exact, atol=1e-9)
        used = exact if compensated else mounting
        np.testing.assert_allclose(info['ref2img'][view][:3], np.array(frame.sensors[name]['K']) @ used[:3], atol=1e-8)
        assert np.abs(exact - mounting)[:3, 3].max() > 0.01


def test_dataset_meta(occ3d, surroundocc, formats):
    meta = occ3d().metainfo
    assert meta['classes'][0] == 'others' and meta['classes'][4] == 'car' and meta['classes'][17] == 'free'
    assert len(meta['palette']) == 18 and meta['palette'][4] == (0, 150, 245)
    assert meta['grid']['frame'] == 'ego' and tuple(meta['grid']['shape']) == (8, 8, 2)
    assert meta['info_version'] == 'occ-1.0'
    meta = surroundocc().metainfo
    assert meta['classes'][0] == 'empty' and meta['classes'][16] == 'vegetation' and len(meta['palette']) == 17


def test_public_pickles_read_from_the_same_root(occ3d, surroundocc, tiny_root, formats):
    paths = [[str(tiny_root.path / 'nuscenes' / cam['filename']) for cam in f.cameras.values()] for f in tiny_root.frames]
    for style, build in formats.styles.items():
        formats.write_pickle(tiny_root.path / f'{style}.pkl', build(tiny_root.frames))
        dataset = surroundocc(ann_file=f'{style}.pkl')
        assert [dataset.get_data_info(i)['img_paths'] for i in range(4)] == paths
        assert dataset[0]['inputs']['img'].shape == (6, 3, 16, 32)
        if style == 'gaussrender':
            continue  # has no scene names
        compensated = style == 'sparseocc'
        sample = occ3d(ann_file=f'{style}.pkl', ego_motion_compensation=compensated)[1]['data_samples']
        assert sample.gt_occ.shape == (8, 8, 2)


def test_scene_names_are_looked_up_in_the_label_folder(occ3d, tiny_root, formats):
    formats.write_pickle(tiny_root.path / 'v2.pkl', formats.v2_infos(tiny_root.frames))
    sample = occ3d(ann_file='v2.pkl')[3]['data_samples']
    assert sample.scene_name == 'scene-0002' and sample.frame_idx == -1
    formats.write_pickle(tiny_root.path / 'v2.pkl', formats.v2_infos([formats.RawFrame(9)]))
    with pytest.raises(FileNotFoundError, match='frame token09: the annotation file has neither scene_name nor occ_path'):
        occ3d(ann_file='v2.pkl', pipeline=PIPELINE[1:2])[0]


def test_mini_subset_is_drawn_before_sorting(surroundocc, tiny_root, formats):
    frames = [formats.RawFrame(index) for index in np.random.default_rng(3).permutation(20)]
    formats.write_pickle(tiny_root.path / 'g.pkl', formats.gaussrender_infos(frames))
    chosen = [frames[index].token for index in mini_subset_indices(20)]
    dataset = surroundocc(ann_file='g.pkl', subset='mini')
    tokens = [dataset.get_data_info(index)['token'] for index in range(len(dataset))]
    assert len(tokens) == 4 and set(tokens) == set(chosen)
    scene = {frame.token: frame.scene_token for frame in frames}
    assert [scene[token] for token in tokens] == sorted(scene[token] for token in chosen)
    formats.write_pickle(tiny_root.path / 'b.pkl', formats.bevdet_infos(frames))
    dataset = surroundocc(ann_file='b.pkl', subset='mini')
    assert [dataset.get_data_info(index)['token'] for index in range(len(dataset))] == chosen


def test_cameras_are_chosen_and_ordered_by_name(occ3d, tiny_root):
    sample = occ3d(cam_names=['CAM_BACK', 'CAM_FRONT'])[0]['data_samples']
    assert sample.cam_names == ['CAM_BACK', 'CAM_FRONT'] and sample.ref2img.shape == (2, 4, 4)
    assert 'CAM_BACK__' in sample.img_paths[0]


def test_missing_camera_is_named(occ3d, tiny_root, formats):
    content = pickle.loads((tiny_root.path / 'infos.pkl').read_bytes())
    del content['data_list'][2]['images']['CAM_BACK_LEFT']
    formats.write_pickle(tiny_root.path / 'less.pkl', content)
    with pytest.raises(ValueError, match=r"frame token02 has no camera 'CAM_BACK_LEFT'; present: \['CAM_BACK', .*cam_names"):
        occ3d(ann_file='less.pkl')


def test_missing_annotation_file(occ3d):
    with pytest.raises(
        FileNotFoundError, match=r"annotation file '.*none\.pkl' does not exist .*dataset\.ann_file.*docs/datasets\.md"
    ):
        occ3d(ann_file='none.pkl')


def test_sparseocc_files_cannot_give_the_uncompensated_projection(occ3d, tiny_root, formats):
    formats.write_pickle(tiny_root.path / 's.pkl', formats.styles['sparseocc'](tiny_root.frames))
    with pytest.raises(ValueError, match='no camera-to-ego matrix for CAM_FRONT.*ego_motion_compensation=True'):
        occ3d(ann_file='s.pkl')


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(frame='lidar'), r"Occ3D-nuScenes.*got \('lidar', 17, 18\)"),
        (dict(free_index=0), r"got \('ego', 0, 18\)"),
        (dict(class_names=[f'c{i}' for i in range(19)]), r"got \('ego', 17, 19\)"),
    ],
)
def test_grid_of_another_benchmark_is_refused(occ3d, formats, change, text):
    with pytest.raises(ValueError, match=text):
        occ3d(grid={**formats.tiny_grid('occ3d'), **change})


def test_surroundocc_refuses_the_occ3d_grid(surroundocc, formats):
    with pytest.raises(ValueError, match=r"SurroundOcc-nuScenes.*got \('ego', 17, 18\)"):
        surroundocc(grid=formats.tiny_grid('occ3d'))


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(subset='small'), "subset must be 'all' or 'mini', got 'small'"),
        (dict(data_prefix=dict(image='x')), r"data_prefix.*\['image'\]"),
        (dict(cam_names=['CAM_FRONT', 'CAM_FRONT']), 'cam_names must list one or more different cameras'),
    ],
)
def test_bad_arguments_are_refused(occ3d, change, text):
    with pytest.raises(ValueError, match=text):
        occ3d(**change)


@pytest.mark.parametrize('name', ['occ3d-nus', 'surroundocc-nus'])
def test_base_configs_fit_their_data_sets(repo_root, name):
    config = Config.fromfile(repo_root / f'configs/_base_/datasets/{name}.py')
    cls = {'Occ3DNuScenesDataset': Occ3DNuScenesDataset, 'SurroundOccNuScenesDataset': SurroundOccNuScenesDataset}
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        args = dict(loader.dataset)
        dataset = cls[args.pop('type')](**args, lazy_init=True)
        assert list(dataset.grid.class_names) == list(dataset.metainfo['classes'])
        assert len(dataset.pipeline.transforms) == len(args['pipeline'])
        assert dataset.grid.shape == (200, 200, 16)
    assert len(config.class_weights) == dataset.grid.num_classes
    assert config.class_weights[dataset.grid.free_index] == 0.5 and config.class_weights[4] == 0.94637502
    assert config.val_evaluator.grid == config.grid
    assert config.train_dataloader.dataset.get('test_mode', False) is False and config.val_dataloader.dataset.test_mode


def test_pipeline_is_built_without_a_default_registry_scope(occ3d):
    assert [type(step).__name__ for step in occ3d().pipeline.transforms] == [step['type'] for step in PIPELINE]
    code = (
        'from projects.occ.datasets import SurroundOccNuScenesDataset as Data\n'
        'from projects.occ.structures import VoxelGrid\n'
        f'grid = VoxelGrid((0, 0, 0, 2, 2, 2), 1.0, (2, 2, 2), "lidar", 0, class_names={tuple("abcdefghijklmnopq")})\n'
        "print(Data('none.pkl', grid, pipeline=[dict(type='LoadOccLabels')], lazy_init=True).pipeline)"
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert 'LoadOccLabels' in run.stdout, run.stderr
