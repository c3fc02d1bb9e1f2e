"""DDAD through the data set: generated drives in its layout, and the real sample."""

import json

import numpy as np
import pytest

from projects.occ.datasets import DDADDataset
from projects.occ.datasets.transforms import (
    LoadDepthPixels,
    LoadMultiViewImages,
    LoadPseudoLabels,
    LoadSelfOcclusionMasks,
)
from projects.preparation.ddad import prepare_ddad
from projects.streets import build_config, generate_ddad

SIZE = (96, 64)
GRID = dict(
    point_cloud_range=[-40.0, -40.0, -1.0, 40.0, 40.0, 5.4],
    voxel_size=0.4,
    shape=[200, 200, 16],
    frame='ego',
    free_index=17,
    class_names=[f'class_{i}' for i in range(18)],
)
LOADING = [LoadMultiViewImages(), LoadDepthPixels(), LoadSelfOcclusionMasks('zero'), LoadPseudoLabels()]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ddad')
    config = build_config(formats=('occ3d',), image_size=SIZE, scenes_train=1, scenes_val=1, frames=3, seed=6)
    generate_ddad(config, folder, workers=1, progress=False)
    return folder


def build(root, **options):
    defaults = dict(grid=GRID, data_root=str(root), data_prefix=dict(mask='mask', pseudo='ddad_semantic'), pipeline=LOADING)
    return DDADDataset(**{**defaults, **options})


def test_everything_of_a_frame_is_loaded(root):
    dataset = build(root)
    assert len(dataset) == 3 and [dataset.get_data_info(i)['token'] for i in range(3)] == [f'000000_{i:06d}' for i in range(3)]
    item = dataset[1]
    assert len(item['img']) == len(item['image_masks']) == len(item['pseudo_labels']) == len(item['depth_pixels']) == 6
    for view in range(6):
        rows = item['depth_pixels'][view]
        assert item['img'][view].shape[:2] == item['pseudo_labels'][view].shape == SIZE[::-1]
        assert 0.6 < item['image_masks'][view].mean() < 1
        assert len(rows) > 50 and (rows[:, :2] < SIZE).all() and (rows[:, 2] > 0.5).all()
    assert set(np.unique(item['pseudo_labels'])) <= {-1, *range(18)}


def test_projected_lidar_agrees_with_the_classes_of_the_images(root):
    """Points near the road fall on pixels that the class map calls flat ground; nothing measured lies in the sky."""
    item = build(root)[0]
    sky = total = 0
    for rows, labels in zip(item['depth_pixels'], item['pseudo_labels']):
        found = labels[rows[:, 1].astype(int), rows[:, 0].astype(int)]
        sky, total = sky + (found == 17).sum(), total + (found >= 0).sum()
    assert total > 1000 and sky / total < 0.03


def test_neighbours_on_the_view_axis(root):
    dataset = build(root, frames=(0, -1, 1), pipeline=[LoadMultiViewImages()])
    item = dataset[1]
    assert item['frame'].tolist() == [0] * 6 + [-1] * 6 + [1] * 6 and not item['view_missing'].any()
    assert len(item['mask_paths']) == 6
    first = dataset[0]
    assert first['view_missing'].tolist() == [False] * 6 + [True] * 6 + [False] * 6
    # the vehicle drives ahead: seen from the key frame, the next frame's camera stands farther along x
    place = [np.linalg.inv(matrix)[:3, 3] for matrix in item['ref2cam']]
    assert place[12][0] > place[0][0] > place[6][0] and np.abs(place[12] - place[0]).max() < 3
    skipping = build(root, frames=(0, -1, 1), missing_frames='skip', pipeline=[])
    assert len(skipping) == 1


def test_annotation_file_and_scene_files_say_the_same(root):
    prepare_ddad(root)
    json_items, pickle_items = (build(root, ann_file=name, pipeline=[]) for name in ('ddad.json', 'ddad_infos_train.pkl'))
    for i in range(3):
        ours, theirs = json_items.get_data_info(i), pickle_items.get_data_info(i)
        assert ours['token'] == theirs['token'] and ours['img_paths'] == theirs['img_paths']
        assert ours['mask_paths'] == theirs['mask_paths'] and ours['pseudo_paths'] == theirs['pseudo_paths']
        for key in ('cam2img', 'ref2cam', 'ref2img', 'ego2global'):
            np.testing.assert_allclose(ours[key], theirs[key], atol=1e-9)


def test_validation_split_lists_and_gaps(root):
    assert build(root, split='val', pipeline=[]).get_data_info(0)['scene_name'] == '000150'
    stem = build(root, pipeline=[]).get_data_info(2)['img_paths'][0].split('/')[-1].removesuffix('.png')
    (root / 'list.txt').write_text(f'000000_000001\n{stem}\n000000_000001\n')
    dataset = build(root, frame_list='list.txt', pipeline=[])
    assert [dataset.get_data_info(i)['frame_idx'] for i in range(len(dataset))] == [1, 2, 1]
    (root / 'list.txt').write_text('000000_000001 000009_000000')
    with pytest.raises(ValueError, match='000009_000000'):
        build(root, frame_list='list.txt', pipeline=[])
    parted = build(root, frames=(0, 1), max_gap=0.05, pipeline=[])
    assert all(parted.get_data_info(i)['view_missing'][6:].all() for i in range(3))


@pytest.mark.parametrize(
    'options, name',
    [
        (dict(grid={**GRID, 'frame': 'lidar'}), 'grid.frame'),
        (dict(split='all'), 'split'),
        (dict(data_prefix=dict(occ='x')), 'data_prefix'),
    ],
)
def test_arguments_that_cannot_be_meant(root, options, name):
    with pytest.raises(ValueError, match=name):
        build(root, **options)


def test_real_sample(shared_data, tmp_path):
    folder = shared_data / 'ddad_dgp_test_scene'
    if not folder.is_dir():
        pytest.skip(f'{folder} is missing')
    content = json.loads((folder / 'scene_dataset_v1.0.json').read_text())
    content['scene_splits']['0']['filenames'] = content['scene_splits']['0']['filenames'][1:]
    (tmp_path / 'ddad.json').write_text(json.dumps(content))
    (tmp_path / 'scene_02').symlink_to(folder / 'scene_02')
    (tmp_path / 'masks').symlink_to(folder / 'vidar_masks')
    (tmp_path / 'names').mkdir()
    for number in ('01', '05', '06', '07', '08', '09'):
        (tmp_path / 'names' / f'CAMERA_{number}.png').symlink_to(folder / 'vidar_masks' / f'{number}.png')
    dataset = build(
        tmp_path,
        data_prefix=dict(mask='names'),
        mask_pattern='{camera}.png',
        pipeline=[LoadMultiViewImages(), LoadDepthPixels(), LoadSelfOcclusionMasks('nonzero')],
    )
    assert len(dataset) == 3
    item = dataset[0]
    assert [len(rows) for rows in item['depth_pixels']] == [5157, 11850, 10668, 9363, 10069, 11503]
    own_car = [
        int((~mask[rows[:, 1].astype(int), rows[:, 0].astype(int)]).sum())
        for rows, mask in zip(item['depth_pixels'], item['image_masks'])
    ]
    assert own_car == [0, 40, 381, 188, 362, 128]
    # the other two frames of the scene are named but not part of the sample
    with pytest.raises(FileNotFoundError, match='CAMERA_01.*scene_02_000001'):
        dataset[1]
