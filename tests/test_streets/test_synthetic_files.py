"""What lies on disk: layout, dtypes, the real readers, reproducibility, reuse and refusals."""

import hashlib
import json
import pickle
from dataclasses import replace

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope

from projects.occ.datasets import Occ3DNuScenesDataset, SurroundOccNuScenesDataset
from projects.occ.structures import VoxelGrid
from projects.streets import ExistingDataError, generate
from projects.streets.generate import MARKER
from projects.streets.sensors import CAMERAS

DATASETS = {
    'occ3d': (
        Occ3DNuScenesDataset,
        'occ3d_nuscenes/gts',
        'occ3d_nuscenes/bevdetv2-nuscenes_infos_{}.pkl',
    ),
    'surroundocc': (
        SurroundOccNuScenesDataset,
        'surroundocc_nuscenes/samples',
        'surroundocc_nuscenes/nuscenes_infos_{}_sweeps_occ.pkl',
    ),
}
PIPELINE = [
    dict(type='LoadMultiViewImages'),
    dict(type='LoadOccLabels'),
    dict(type='ResizeCropFlipImages', final_wh=[96, 54], training=False),
    dict(type='PackOccInputs'),
]


def infos(root, split='train'):
    with open(root / f'occ_infos_{split}.pkl', 'rb') as file:
        return pickle.load(file)


def digest(root):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob('*'))
        if path.is_file()
    }


def plain(value):
    """Whether a value is made of Python's own types alone."""
    if isinstance(value, dict):
        return all(plain(v) for v in value.values())
    if isinstance(value, list):
        return all(plain(v) for v in value)
    return type(value) in (str, int, float, bool)


def test_info_files(street_root, small_config):
    content = infos(street_root)
    meta = content['metainfo']
    assert meta['dataset'] == 'nuscenes' and meta['info_version'] == 'occ-1.0'
    assert {name: VoxelGrid.build(grid) for name, grid in meta['grids'].items()} == small_config.grids
    assert len(content['data_list']) == 4 and len(infos(street_root, 'val')['data_list']) == 2
    assert plain(content['data_list'])
    for number, info in enumerate(content['data_list']):
        assert info['sample_idx'] == number and info['frame_idx'] == number % 2
        assert isinstance(info['timestamp'], float)
        assert list(info['images']) == list(CAMERAS)
        assert np.shape(info['images']['CAM_BACK']['cam2img']) == (3, 3)
        for key in ('cam2ego', 'lidar2cam', 'ego2global'):
            assert np.shape(info['images']['CAM_BACK'][key]) == (4, 4)
        assert len(info['instances']) > 5
        for instance in info['instances']:
            assert len(instance['bbox_3d']) == 7 and 0 <= instance['bbox_label_3d'] < 10 and len(instance['velocity']) == 2
    first, second = content['data_list'][:2]
    assert first['next'] == second['token'] and second['prev'] == first['token'] and first['prev'] == '' == second['next']
    scenes = {split: {info['scene_name'] for info in infos(street_root, split)['data_list']} for split in ('train', 'val')}
    assert len(scenes['train']) == 2 and not scenes['train'] & scenes['val']


def test_files_of_a_frame(street_root, small_config):
    shape = small_config.grids['occ3d'].shape
    for info in infos(street_root)['data_list']:
        for name, camera in info['images'].items():
            assert camera['img_path'].split('__')[1] == name
            image = cv2.imread(str(street_root / 'nuscenes' / 'samples' / name / camera['img_path']))
            assert image.shape == (54, 96, 3)
            assert int(camera['img_path'].split('__')[2].removesuffix('.jpg')) == round(camera['timestamp'] * 1e6)
        lidar = info['lidar_points']['lidar_path']
        points = np.fromfile(street_root / 'nuscenes' / 'samples' / 'LIDAR_TOP' / lidar, dtype='<f4').reshape(-1, 5)
        assert np.isfinite(points).all() and len(points) > 10000
        with np.load(street_root / 'occ3d_nuscenes' / 'gts' / info['occ3d_path']) as label:
            assert set(label.files) == {'semantics', 'mask_lidar', 'mask_camera'}
            for key in label.files:
                assert label[key].dtype == np.uint8 and label[key].shape == shape
            assert label['semantics'].max() == 17 and set(np.unique(label['mask_camera'])) == {0, 1}
        assert info['surroundocc_path'] == f'{lidar}.npy'
        rows = np.load(street_root / 'surroundocc_nuscenes' / 'samples' / info['surroundocc_path'])
        assert rows.dtype == np.int64 and rows.ndim == 2 and rows.shape[1] == 4
        flat = np.ravel_multi_index(tuple(rows[:, :3].T), small_config.grids['surroundocc'].shape)
        assert (np.diff(flat) > 0).all()
        assert rows[:, 3].min() == 0 and rows[:, 3].max() <= 16
        assert 0 < (rows[:, 3] == 0).mean() < 0.1
    assert not list(street_root.rglob('*.tmp'))
    assert cv2.imread(str(street_root / 'preview' / 'scene-0001.png')).shape[1] > 3 * 96


@pytest.mark.parametrize('name', DATASETS)
def test_the_real_readers_agree_on_all_info_styles(street_root, small_config, name):
    init_default_scope('mmdet3d')
    cls, labels, legacy = DATASETS[name]
    items = []
    for ann_file in ('occ_infos_train.pkl', legacy.format('train')):
        dataset = cls(
            ann_file=ann_file,
            data_root=str(street_root),
            data_prefix=dict(img='nuscenes', pts='nuscenes', occ=labels),
            grid=small_config.to_dict()['grids'][name],
            pipeline=PIPELINE,
            test_mode=True,
        )
        assert len(dataset) == 4
        items.append({item['data_samples'].token: item for item in (dataset[i] for i in range(4))})
    assert items[0].keys() == items[1].keys()
    for token, item in items[0].items():
        sample, other = item['data_samples'], items[1][token]['data_samples']
        assert item['inputs']['img'].shape == (6, 3, 54, 96)
        np.testing.assert_allclose(sample.ref2img, other.ref2img, atol=1e-2)
        np.testing.assert_array_equal(sample.gt_occ, other.gt_occ)
        assert sample.gt_occ.shape == small_config.grids[name].shape


def test_files_do_not_depend_on_the_number_of_workers(street_root, small_config, tmp_path):
    generate(small_config, tmp_path / 'again', workers=3, previews=1, progress=False)
    assert digest(tmp_path / 'again') == digest(street_root)


def test_an_identical_data_set_is_reused_at_once(street_root, small_config):
    before = digest(street_root)
    written = {path: path.stat().st_mtime_ns for path in street_root.rglob('*')}
    result = generate(small_config, street_root, workers=1, progress=False)
    assert result['reused'] and written == {path: path.stat().st_mtime_ns for path in street_root.rglob('*')}
    assert result['frames'] == {'train': 4, 'val': 2}
    assert digest(street_root) == before


def test_an_unfinished_data_set_is_completed(street_root, small_config, tmp_path):
    expected = digest(street_root)
    root = tmp_path / 'cut'
    root.mkdir()
    marker = {**json.loads((street_root / MARKER).read_text()), 'complete': False}
    (root / MARKER).write_text(json.dumps(marker))
    config = small_config
    result = generate(config, root, previews=1, progress=False)
    assert not result['reused'] and digest(root) == expected


def test_another_configuration_is_refused_without_overwrite(street_root, small_config):
    before = digest(street_root)
    with pytest.raises(ExistingDataError, match=r'another configuration \(seed: 7 there, 8 asked\); add --overwrite'):
        generate(replace(small_config, seed=8), street_root, progress=False)
    assert digest(street_root) == before


def test_overwrite_replaces_everything_and_nothing_else(small_config, tmp_path):
    tiny = replace(small_config, scenes_train=1, scenes_val=0, frames=1, legacy_infos=False)
    generate(tiny, tmp_path, progress=False)
    (tmp_path / 'notes.txt').write_text('mine')
    old = set(digest(tmp_path))
    generate(replace(tiny, seed=9), tmp_path, overwrite=True, progress=False)
    new = set(digest(tmp_path))
    images = {name for name in new if name.endswith('.jpg')}
    assert len(images) == 6 and not images & old
    assert (tmp_path / 'notes.txt').read_text() == 'mine'


def test_foreign_data_is_never_touched(small_config, tmp_path):
    (tmp_path / 'nuscenes').mkdir()
    for overwrite in (False, True):
        with pytest.raises(ExistingDataError, match='holds nuscenes but no synthetic.json: that was not generated here'):
            generate(small_config, tmp_path, overwrite=overwrite, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ['nuscenes']


def test_bad_targets(small_config, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(ExistingDataError, match='is a file; give --out a folder'):
        generate(small_config, tmp_path / 'file', progress=False)
    with pytest.raises(ValueError, match='--workers must be at least 1, got 0'):
        generate(small_config, tmp_path / 'new', workers=0, progress=False)
