import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from projects.occ.datasets.info_formats import read_info_file
from projects.preparation.nuscenes_tables import load_tables, read_records, split_scenes
from projects.streets.nuscenes_table_writer import write_nuscenes_tables

VERSION = 'synthetic-v1'


def same_frame(found, expected, velocities=False):
    """Compares all numbers and names of two records."""
    for key in 'token scene_name scene_token frame_idx prev next lidar_path label_path lidarseg_path'.split():
        assert getattr(found, key) == getattr(expected, key), key
    assert found.timestamp == pytest.approx(expected.timestamp, abs=1e-6)
    np.testing.assert_allclose(found.lidar2ego, expected.lidar2ego, atol=1e-12)
    np.testing.assert_allclose(found.ego2global, expected.ego2global, atol=1e-12)
    assert list(found.cameras) == list(expected.cameras)
    for name, camera in found.cameras.items():
        other = expected.cameras[name]
        assert (camera.img_path, camera.sample_data_token) == (other.img_path, other.sample_data_token)
        assert camera.timestamp == pytest.approx(other.timestamp, abs=1e-6)
        for key in ('cam2img', 'cam2ego', 'ego2global'):
            np.testing.assert_allclose(getattr(camera, key), getattr(other, key), atol=1e-12)
        # a product of four poses hundreds of metres from the origin
        np.testing.assert_allclose(camera.lidar2cam, other.lidar2cam, atol=1e-9)
    assert found.boxes.names == expected.boxes.names
    np.testing.assert_allclose(found.boxes.boxes[:, :6], expected.boxes.boxes[:, :6], atol=1e-9)
    turn = found.boxes.boxes[:, 6] - expected.boxes.boxes[:, 6]
    np.testing.assert_allclose(np.cos(turn), 1, atol=1e-9)
    assert np.array_equal(found.boxes.num_lidar_pts, expected.boxes.num_lidar_pts)
    if expected.boxes.instance_tokens is not None:
        assert found.boxes.instance_tokens == expected.boxes.instance_tokens


@pytest.fixture(scope='module')
def tables(raw_root):
    return load_tables(raw_root / 'nuscenes', VERSION)


@pytest.mark.parametrize('split', ['train', 'val'])
def test_tables_give_the_frames_that_the_generator_wrote(raw_root, tables, split):
    expected = read_info_file(str(raw_root / f'occ_infos_{split}.pkl'), with_boxes=True).records
    found = read_records(tables, split_scenes(tables)[split])
    assert len(found) == len(expected) == (4 if split == 'train' else 2)
    for record, other in zip(found, expected):
        same_frame(record, other)
        # half a second apart: the devkit's difference quotient is near the true speed of objects that drive straight
        error = np.linalg.norm(record.boxes.velocities - other.boxes.velocities, axis=1)
        known = np.isfinite(error)
        assert known.any() and np.median(error[known]) < 0.5


def test_schema_has_all_tables_of_version_one(raw_root, tables):
    folder = raw_root / 'nuscenes' / VERSION
    names = {path.stem for path in folder.glob('*.json')}
    assert names == set(tables.table_names) | {'splits'} and 'lidarseg' in names
    annotation = tables.sample_annotation[0]
    keys = 'token sample_token instance_token visibility_token attribute_tokens translation size rotation prev next'.split()
    assert set(keys) <= set(annotation)
    for instance in tables.instance:
        chain, token = [], instance['first_annotation_token']
        while token:
            chain.append(token)
            token = tables.get('sample_annotation', token)['next']
        assert len(chain) == instance['nbr_annotations'] and chain[-1] == instance['last_annotation_token']
    for scene in tables.scene:
        chain, token = [], scene['first_sample_token']
        while token:
            chain.append(token)
            token = tables.get('sample', token)['next']
        assert len(chain) == scene['nbr_samples'] and chain[-1] == scene['last_sample_token']
    # the devkit's own reading of a box agrees with the LiDAR file
    path, boxes, _ = tables.get_sample_data(tables.sample[0]['data']['LIDAR_TOP'])
    assert Path(path).is_file() and len(boxes) == len(tables.sample[0]['anns'])


def test_official_splits(tables, raw_root, monkeypatch):
    class Tables:
        dataroot, version = str(raw_root), 'v1.0-mini'

    assert split_scenes(Tables)['mini_val'] == ['scene-0103', 'scene-0916']
    Tables.version = 'v1.0-trainval'
    assert {split: len(scenes) for split, scenes in split_scenes(Tables).items()} == {'train': 700, 'val': 150}
    Tables.version = 'v1.0-test'
    with pytest.raises(ValueError, match=r"version 'v1.0-test' has no official train and val scenes; write '.*splits\.json'"):
        split_scenes(Tables)


def test_errors_of_tables(root_copy, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"v1\.0-mini' does not exist.*found below '.*': synthetic-v1\. Unpack the meta"
    ):
        load_tables(root_copy / 'nuscenes', 'v1.0-mini')
    folder = root_copy / 'nuscenes' / VERSION
    text = (folder / 'ego_pose.json').read_text()
    (folder / 'ego_pose.json').unlink()
    with pytest.raises(FileNotFoundError, match=r'need the file .*ego_pose\.json; unpack the metadata again'):
        load_tables(root_copy / 'nuscenes', VERSION)
    (folder / 'ego_pose.json').write_text(text[:-50])
    with pytest.raises(ValueError, match='a table in .* is cut short'):
        load_tables(root_copy / 'nuscenes', VERSION)
    for rows in ('[1]', '7'):
        (folder / 'ego_pose.json').write_text(rows)
        with pytest.raises(ValueError, match='the tables in .* are incomplete'):
            load_tables(root_copy / 'nuscenes', VERSION)
    (folder / 'ego_pose.json').write_text('[]')
    tables = load_tables(root_copy / 'nuscenes', VERSION)
    with pytest.raises(ValueError, match=r"synthetic-v1' are incomplete: nothing has the token or key '.*unpack the metadata"):
        read_records(tables, ['scene-0001'])
    (folder / 'ego_pose.json').write_text(text)
    next((root_copy / 'nuscenes' / 'maps').glob('*.png')).unlink()
    with pytest.raises(ValueError, match='are incomplete .*map mask .* does not exist'):
        load_tables(root_copy / 'nuscenes', VERSION)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"train": ["scene-0001"', 'is cut short or no JSON'),
        ('["scene-0001"]', 'expected a JSON object with a list of scene names per split, found'),
        ('{"train": "scene-0001"}', 'expected a JSON object with a list of scene names'),
        ('{"train": [1]}', 'expected a JSON object with a list of scene names'),
    ],
)
def test_damaged_splits(tmp_path, text, message):
    class Tables:
        dataroot, version = str(tmp_path), VERSION

    (tmp_path / VERSION).mkdir()
    (tmp_path / VERSION / 'splits.json').write_text(text)
    with pytest.raises(ValueError, match=rf"splits\.json'.* {message}|splits\.json': {message}"):
        split_scenes(Tables)


def test_a_frame_without_a_camera_is_refused(root_copy):
    path = root_copy / 'nuscenes' / VERSION / 'sample_data.json'
    rows = json.loads(path.read_text())
    path.unlink()
    path.write_text(json.dumps([row for row in rows if 'CAM_BACK_LEFT' not in row['filename']]))
    tables = load_tables(root_copy / 'nuscenes', VERSION)
    with pytest.raises(ValueError, match='key frame .* of scene-0001 has no CAM_BACK_LEFT in the table sample_data'):
        read_records(tables, ['scene-0001'])


def test_writer_refuses_frames_without_poses(formats, tmp_path):
    from projects.occ.datasets.info_formats import parse_infos

    records = parse_infos(formats.styles['sparseocc']([formats.RawFrame(0)])).records
    with pytest.raises(ValueError, match='frame token00: tables need cam2ego and ego2global of CAM_FRONT'):
        write_nuscenes_tables(tmp_path, {'train': records}, 'v', (32, 18))
    records[0].scene_name = ''
    with pytest.raises(ValueError, match='frame token00: tables need scene_name, which the annotation file lacks'):
        write_nuscenes_tables(tmp_path, {'train': records}, 'v', (32, 18))


def test_eighty_one_real_frames_survive_the_tables(shared_data, tmp_path):
    path = shared_data / 'nuscenes_mini_val_infos' / 'nuscenes_infos_val.pkl'
    if not path.is_file():
        pytest.skip(f'{path} not found')
    records = read_info_file(str(path), with_boxes=True).records
    # the file names no scenes: they begin where the vehicle jumps
    places = np.stack([record.ego2global[:3, 3] for record in records])
    starts = [0, *(np.flatnonzero(np.linalg.norm(np.diff(places, axis=0), axis=1) > 50) + 1).tolist(), len(records)]
    assert np.diff(starts).tolist() == [40, 41]
    for name, first, end in zip(('scene-0103', 'scene-0916'), starts, starts[1:]):
        for index in range(first, end):
            record = records[index]
            record.scene_name, record.scene_token, record.frame_idx = name, f'token of {name}', index - first
            record.prev = records[index - 1].token if index > first else ''
            record.next = records[index + 1].token if index + 1 < end else ''
    write_nuscenes_tables(tmp_path, {'mini_val': records}, 'v1.0-mini', (1600, 900))
    tables = load_tables(tmp_path, 'v1.0-mini')
    found = read_records(tables, split_scenes(tables)['mini_val'])
    assert [record.token for record in found] == [record.token for record in records]
    for record, other in zip(found, records):
        for camera in other.cameras.values():
            # the file's own product is rounded; compare with that of its poses
            cam2global = camera.ego2global @ camera.cam2ego
            product = np.linalg.inv(cam2global) @ other.ego2global @ other.lidar2ego
            np.testing.assert_allclose(camera.lidar2cam, product, atol=2e-4)
            camera.lidar2cam = product
        same_frame(record, other)


def test_camera_sweeps_are_the_images_before_and_after(tables):
    """The generated tables have no images between the key frames: those of the neighbours come next."""
    records = read_records(tables, split_scenes(tables)['train'], camera_sweeps=2)
    assert len(records) == 4
    for record, other in ((records[0], records[1]), (records[2], records[3])):
        assert set(record.sweeps) == {1} and set(other.sweeps) == {-1}
        for one, two, offset in ((record, other, 1), (other, record, -1)):
            assert list(one.sweeps[offset]) == list(one.cameras)
            for name, camera in one.sweeps[offset].items():
                assert camera.img_path == two.cameras[name].img_path
                assert camera.timestamp == two.cameras[name].timestamp
                # the same camera, seen from the LiDAR of the other frame
                moved = np.linalg.inv(two.ego2global @ two.lidar2ego) @ one.ego2global @ one.lidar2ego
                np.testing.assert_allclose(camera.lidar2cam, two.cameras[name].lidar2cam @ moved, atol=1e-8)
    assert read_records(tables, split_scenes(tables)['train'])[0].sweeps == {}


def test_tables_that_name_point_classes_need_no_such_files(root_copy):
    root = root_copy / 'nuscenes'
    named = [record.lidarseg_path for record in read_records(load_tables(root, VERSION), ['scene-0001'])]
    assert all(named)
    (root / named[0]).unlink()
    rows = [dict(token='a', sample_data_token='a', filename='panoptic/x.npz')]
    (root / VERSION / 'panoptic.json').write_text(json.dumps(rows))
    tables = load_tables(root, VERSION)
    records = read_records(tables, ['scene-0001'])
    assert [record.lidarseg_path for record in records] == ['', *named[1:]] and tables.dataroot == str(root)
    shutil.rmtree(root / 'lidarseg')
    assert [record.lidarseg_path for record in read_records(load_tables(root, VERSION), ['scene-0001'])] == ['', '']


def test_splits_without_labels():
    class Tables:
        dataroot, version = '/nowhere', 'v1.0-test'

    assert len(split_scenes(Tables, labelled=False)['test']) == 150
