import json
import logging
import shutil

import numpy as np
import pytest

from projects.occ.datasets import Occ3DNuScenesDataset, SurroundOccNuScenesDataset
from projects.occ.datasets.info_formats import read_info_file
from projects.occ.evaluation.functional import lidar_origins
from projects.occ.evaluation.ray_origin_files import read_ray_origins
from projects.occ.structures.frame_record import occ3d_label_path
from projects.preparation import nuscenes
from projects.preparation.nuscenes import prepare_nuscenes
from projects.preparation.nuscenes_tables import load_tables, read_records, split_scenes

VERSION = 'synthetic-v1'


@pytest.mark.parametrize('benchmark', ['occ3d', 'surroundocc'])
def test_data_sets_read_what_was_made(raw_root, benchmark):
    marker = json.loads((raw_root / 'synthetic.json').read_text())
    kinds = {
        'occ3d': (Occ3DNuScenesDataset, 'occ3d_nuscenes/gts'),
        'surroundocc': (SurroundOccNuScenesDataset, 'surroundocc_nuscenes/samples'),
    }
    kind, labels = kinds[benchmark]
    made, direct = (
        kind(
            ann_file=ann_file,
            data_root=str(raw_root),
            data_prefix=dict(img='nuscenes', pts='nuscenes', occ=labels),
            grid=marker['config']['grids'][benchmark],
            pipeline=[dict(type='LoadMultiViewImages'), dict(type='LoadOccLabels'), dict(type='PackOccInputs')],
        )
        for ann_file in (f'{benchmark}_nuscenes/occ_infos_train.pkl', 'occ_infos_train.pkl')
    )
    assert len(made) == len(direct) == 4
    for index in range(4):
        one, other = made[index], direct[index]
        assert one['data_samples'].token == other['data_samples'].token
        assert np.array_equal(one['inputs']['img'].numpy(), other['inputs']['img'].numpy())
        assert np.array_equal(one['data_samples'].gt_occ.numpy(), other['data_samples'].gt_occ.numpy())
        np.testing.assert_allclose(one['data_samples'].ref2img, other['data_samples'].ref2img, rtol=1e-5, atol=1e-5)


def test_annotation_files_keep_everything_that_the_tables_say(raw_root):
    direct = read_info_file(str(raw_root / 'occ_infos_train.pkl'), with_boxes=True).records
    made = read_info_file(str(raw_root / 'surroundocc_nuscenes' / 'occ_infos_train.pkl'), with_boxes=True)
    tables = load_tables(raw_root / 'nuscenes', VERSION)
    read = read_records(tables, split_scenes(tables)['train'])
    assert made.metainfo['version'] == VERSION
    for record, other, source in zip(made.records, direct, read, strict=True):
        assert record.lidarseg_path == other.lidarseg_path == source.lidarseg_path
        assert (raw_root / 'nuscenes' / record.lidarseg_path).is_file()
        boxes = record.boxes
        assert boxes.names == other.boxes.names and boxes.instance_tokens == other.boxes.instance_tokens
        assert len(set(boxes.instance_tokens)) == len(boxes.names) > 3
        np.testing.assert_array_equal(boxes.velocities, source.boxes.velocities)
        np.testing.assert_array_equal(boxes.boxes, source.boxes.boxes)
        np.testing.assert_allclose(boxes.boxes[:, :6], other.boxes.boxes[:, :6], atol=1e-9)


def test_origins_are_those_of_complete_scenes(raw_root):
    records = read_info_file(str(raw_root / 'occ_infos_val.pkl')).records
    poses = [np.stack([getattr(record, key) for record in records]) for key in ('lidar2ego', 'ego2global')]
    grid = json.loads((raw_root / 'synthetic.json').read_text())['config']['grids']['occ3d']
    origins = read_ray_origins(raw_root / 'occ3d_nuscenes' / 'ray_origins_val.npz')
    assert list(origins) == [record.token for record in records]
    for index, record in enumerate(records):
        np.testing.assert_allclose(origins[record.token], lidar_origins(*poses, index, grid), atol=1e-6)
    in_lidar = read_ray_origins(raw_root / 'surroundocc_nuscenes' / 'ray_origins_val.npz', 'lidar')
    # the sensor itself is the origin of its own frame
    assert all((np.abs(points).max(1) < 1e-9).any() for points in in_lidar.values())


def test_missing_labels_are_refused_or_left_out(root_copy, create_data_main, capsys):
    records = read_info_file(str(root_copy / 'occ_infos_train.pkl')).records
    shutil.rmtree(root_copy / 'occ3d_nuscenes' / 'gts' / records[1].scene_name / records[1].token)
    command = ['occ3d', '--data-root', str(root_copy), '--version', VERSION]
    assert create_data_main(command) == 2
    error = capsys.readouterr().err
    assert "split 'train': 1 of 4 key frames have no label below" in error and occ3d_label_path(records[1]) in error
    assert '--skip-unlabelled' in error
    assert create_data_main([*command, '--skip-unlabelled']) == 0
    assert f'1 frames without a label were left out, e.g. {records[1].token}' in capsys.readouterr().out
    kept = read_info_file(str(root_copy / 'occ3d_nuscenes' / 'occ_infos_train.pkl')).records
    assert [record.token for record in kept] == [records[index].token for index in (0, 2, 3)]
    # RayIoU still looks from all LiDAR places of the scene
    origins = read_ray_origins(root_copy / 'occ3d_nuscenes' / 'ray_origins_train.npz')
    assert len(origins) == 4 and len(origins[records[0].token]) == 2


def test_labels_of_another_place_and_empty_splits(root_copy, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gts' does not exist; it should hold the downloaded labels.*--labels"):
        prepare_nuscenes('occ3d', root_copy, labels='elsewhere', version=VERSION)
    (tmp_path / 'copy' / 'empty' / 'samples').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='4 of 4 key frames have no label.*belong to this version'):
        prepare_nuscenes('surroundocc', root_copy, labels='empty', version=VERSION, skip_unlabelled=True)
    splits = root_copy / 'nuscenes' / VERSION / 'splits.json'
    splits.unlink()
    splits.write_text(json.dumps({'train': ['scene-0001'], 'val': ['scene-0999']}))
    with pytest.raises(ValueError, match="has no scene of split 'val'"):
        prepare_nuscenes('occ3d', root_copy, version=VERSION)


def test_annotations_of_occ3d_are_compared(root_copy, monkeypatch):
    warnings = []
    monkeypatch.setattr(nuscenes, 'print_log', lambda message, logger, level: warnings.append((level, message)))
    records = read_info_file(str(root_copy / 'occ_infos_train.pkl')).records
    frames = {
        record.token: {
            'gt_path': f'gts/{occ3d_label_path(record)}',
            'ego_pose': {'translation': record.ego2global[:3, 3].tolist()},
        }
        for record in records
    }
    content = {'train_split': ['scene-0001', 'scene-0002'], 'val_split': ['scene-0003'], 'scene_infos': {'scene-0001': frames}}
    path = root_copy / 'occ3d_nuscenes' / 'annotations.json'
    path.write_text(json.dumps(content))
    prepare_nuscenes('occ3d', root_copy, version=VERSION)
    assert not warnings
    frames[records[0].token]['ego_pose']['translation'][0] += 1
    content['val_split'] = ['scene-0001']
    path.write_text(json.dumps(content))
    prepare_nuscenes('occ3d', root_copy, version=VERSION)
    assert all(level == logging.WARNING for level, _ in warnings)
    poses, split = (message for _, message in warnings)
    assert f'1 frames of split train have another ego pose there, e.g. {records[0].token}' in poses
    assert '1 scenes of split val are not in its val_split, e.g. scene-0003; the nuScenes tables are used' in split
    frames = {records[0].token: {'ego_pose': {'translation': ['x', 0, 0]}}}
    for text in ('{', '[]', '{"scene_infos": [1]}', json.dumps({'scene_infos': {'scene-0001': frames}})):
        path.write_text(text)
        with pytest.raises(ValueError, match="is damaged or not Occ3D's annotations.json.*remove it, it is not needed"):
            prepare_nuscenes('occ3d', root_copy, version=VERSION)


def test_partial_downloads_are_prepared_as_far_as_they_go(root_copy, create_data_main, capsys):
    records = read_info_file(str(root_copy / 'occ_infos_train.pkl')).records
    images = root_copy / 'nuscenes'
    (images / records[1].cameras['CAM_BACK'].img_path).unlink()
    for record in read_info_file(str(root_copy / 'occ_infos_val.pkl')).records:
        (images / record.cameras['CAM_FRONT'].img_path).unlink()
    for split in ('train', 'val'):
        (root_copy / 'occ3d_nuscenes' / f'occ_infos_{split}.pkl').unlink()
    command = ['occ3d', '--data-root', str(root_copy), '--version', VERSION, '--skip-missing-images']
    assert create_data_main(command) == 0
    assert f'1 frames without all images were left out, e.g. {records[1].token}' in capsys.readouterr().out
    kept = read_info_file(str(root_copy / 'occ3d_nuscenes' / 'occ_infos_train.pkl')).records
    assert [record.token for record in kept] == [records[index].token for index in (0, 2, 3)]
    assert not (root_copy / 'occ3d_nuscenes' / 'occ_infos_val.pkl').exists()
    # RayIoU still looks from all LiDAR places of the scene
    assert len(read_ray_origins(root_copy / 'occ3d_nuscenes' / 'ray_origins_train.npz')) == 4
    shutil.rmtree(images / 'samples')
    assert create_data_main(command) == 2
    assert 'no key frame has all its images' in capsys.readouterr().err


def test_versions_without_labels_are_prepared_by_a_flag(root_copy, create_data_main, capsys):
    shutil.rmtree(root_copy / 'occ3d_nuscenes')
    command = ['occ3d', '--data-root', str(root_copy), '--version', VERSION]
    assert create_data_main(command) == 2
    assert create_data_main([*command, '--unlabelled']) == 0
    made = read_info_file(str(root_copy / 'occ3d_nuscenes' / 'occ_infos_val.pkl')).records
    assert [record.token for record in made] == [
        record.token for record in read_info_file(str(root_copy / 'occ_infos_val.pkl')).records
    ]
