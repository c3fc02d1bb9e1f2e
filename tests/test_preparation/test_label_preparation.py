import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from projects.occ.datasets.label_formats import read_label
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmark_classes import NUSCENES_CLASSES
from projects.occ.structures.frame_record import occ3d_label_path, surroundocc_label_path
from projects.preparation.label_making import LabelSettings
from projects.preparation.label_preparation import make_labels
from projects.preparation.label_sources import scene_from_folder, scenes_from_infos


def grid_of(root, benchmark):
    return VoxelGrid.build(json.loads((root / 'synthetic.json').read_text())['config']['grids'][benchmark])


@pytest.fixture(scope='module')
def scenes(raw_root):
    return scenes_from_infos(raw_root / 'occ3d_nuscenes' / 'occ_infos_train.pkl', raw_root / 'nuscenes')


@pytest.mark.parametrize('benchmark', ['occ3d', 'surroundocc'])
def test_made_labels_agree_with_the_exact_ones(raw_root, scenes, tmp_path, benchmark):
    grid = grid_of(raw_root, benchmark)
    args = dict(image_wh=(48, 28), compare=raw_root / f'{benchmark}_nuscenes')
    report = make_labels(scenes, grid, tmp_path / 'all', **args)
    alone = make_labels(scenes, grid, tmp_path / 'alone', window=0, **args)
    assert report.frames == 4 and report.counts.sum() == 4 * grid.num_voxels
    every, single = report.compared(grid), alone.compared(grid)
    # measured: see docs/datasets.md; SurroundOcc's files have no mask, so what only one of the two saw counts against them
    assert every['mIoU'] > 0.6 and every['IoU'] > (0.88 if benchmark == 'occ3d' else 0.75)
    assert report.seen_lidar > alone.seen_lidar
    if benchmark == 'occ3d':
        assert every['IoU'] > single['IoU'] and every['mIoU'] > single['mIoU']
    assert report.own_agree / report.own_points > 0.85
    assert report.own_occupied == report.own_points > 50_000
    # the files are what the data sets read
    record = scenes[0].records[0]
    name = f'gts/{occ3d_label_path(record)}' if benchmark == 'occ3d' else f'samples/{surroundocc_label_path(record)}'
    semantics, _ = read_label(tmp_path / 'all' / name, grid)
    assert (semantics != grid.free_index).any()


def test_without_point_classes_only_objects_and_ground_are_told_apart(raw_root, tmp_path):
    infos = raw_root / 'occ3d_nuscenes' / 'occ_infos_val.pkl'
    scenes = scenes_from_infos(infos, raw_root / 'nuscenes', use_semantics=False)
    grid = grid_of(raw_root, 'occ3d')
    report = make_labels(scenes, grid, tmp_path, image_wh=(48, 28))
    found = {grid.class_names[index] for index in np.flatnonzero(report.counts)}
    boxes = {name for record in scenes[0].records for name in record.boxes.names}
    assert {'driveable_surface', 'manmade', 'free'} <= found <= {'driveable_surface', 'manmade', 'free'} | boxes
    assert report.own_points == 0 and report.compared(grid) is None


def test_processes_give_the_same_files(raw_root, scenes, tmp_path):
    grid = grid_of(raw_root, 'occ3d')
    for workers in (1, 2):
        make_labels(scenes, grid, tmp_path / str(workers), image_wh=(48, 28), workers=workers)
    for record in (record for scene in scenes for record in scene.records):
        one, two = (np.load(tmp_path / name / 'gts' / occ3d_label_path(record)) for name in ('1', '2'))
        assert all(np.array_equal(one[key], two[key]) for key in ('semantics', 'mask_lidar', 'mask_camera'))


def test_a_folder_of_plain_arrays_gives_the_same_labels(raw_root, scenes, tmp_path, create_data_main, capsys):
    folder = tmp_path / scenes[0].records[0].scene_name
    folder.mkdir()
    grid = grid_of(raw_root, 'occ3d')
    for index, record in enumerate(scenes[0].records):
        frame = scenes[0].load(index)
        boxes = record.boxes.boxes.copy()
        boxes[:, 2] -= boxes[:, 5] / 2
        poses = {}
        for name in ('lidar2ego', 'ego2global'):
            matrix = getattr(record, name)
            poses[f'{name}_translation'] = matrix[:3, 3]
            poses[f'{name}_rotation_wxyz'] = np.roll(Rotation.from_matrix(matrix[:3, :3]).as_quat(), 1)
        classes = np.array([grid.class_names.index(name) for name in record.boxes.names])
        arrays = dict(points=frame.points, semantics=frame.semantics, boxes=boxes, box_category=classes)
        np.savez(folder / f'{index:02d}.npz', box_instance=np.array(record.boxes.instance_tokens), **arrays, **poses)
    config = tmp_path / 'config.py'
    config.write_text('grid = ' + repr(json.loads((raw_root / 'synthetic.json').read_text())['config']['grids']['occ3d']))
    out = tmp_path / 'out'
    command = ['make-labels', '--frames', str(folder), '--config', str(config), '--out', str(out), '--image-size', '48x28']
    assert create_data_main(command) == 0
    printed = capsys.readouterr().out
    assert f'{out}: 2 labels; voxels by class:' in printed and 'in a voxel of their class' in printed
    make_labels(scenes[:1], grid, tmp_path / 'infos', image_wh=(48, 28))
    for index, record in enumerate(scenes[0].records):
        one = np.load(out / 'gts' / record.scene_name / f'{index:02d}' / 'labels.npz')
        other = np.load(tmp_path / 'infos' / 'gts' / occ3d_label_path(record))
        assert (one['semantics'] != other['semantics']).mean() < 1e-4 and not one['mask_camera'].any()


def test_errors(raw_root, scenes, formats, tmp_path):
    grid = grid_of(raw_root, 'occ3d')
    with pytest.raises(ValueError, match='--window must be 0 or more frames, got -1'):
        make_labels(scenes, grid, tmp_path, window=-1)
    with pytest.raises(ValueError, match='would be overwritten and compared with itself'):
        make_labels(scenes, grid, tmp_path, compare=tmp_path)
    with pytest.raises(FileNotFoundError, match=r'has no <frame>\.npz files'):
        scene_from_folder(tmp_path)
    np.savez(tmp_path / 'a.npz', points=np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"a\.npz' lacks the arrays \['lidar2ego_translation'"):
        scene_from_folder(tmp_path)
    (tmp_path / 'a.npz').write_bytes(b'PK')
    with pytest.raises(ValueError, match=r"a\.npz'.*docs/datasets.md"):
        scene_from_folder(tmp_path)
    source = formats.write_pickle(tmp_path / 'in.pkl', formats.styles['mmdet3d-v2']([formats.RawFrame(0)]))
    with pytest.raises(ValueError, match='frame token00 has no scene name, so it is unknown which frames belong together'):
        scenes_from_infos(source, tmp_path)
    scene = scenes_from_infos(raw_root / 'occ_infos_val.pkl', tmp_path)[0]
    with pytest.raises(FileNotFoundError, match='LiDAR file.*label making needs nuScenes'):
        scene.load(0)
    path = tmp_path / scene.records[0].lidar_path
    path.parent.mkdir(parents=True)
    path.write_bytes(b'12345')
    with pytest.raises(ValueError, match='LiDAR file.* has 5 bytes.* 20 per point'):
        scene.load(0)


def test_eleven_real_frames(shared_data, tmp_path):
    folder = shared_data / 'nuscenes_lidar_sequence'
    if not folder.is_dir():
        pytest.skip(f'{folder} not found')
    scene = scene_from_folder(folder)
    assert len(scene.records) == 11
    # three frames and a small grid suffice here; all eleven on the benchmark's grid give 97.2 %
    part = type(scene)(scene.records[4:7], files=scene.files[4:7])
    names = ('others', *NUSCENES_CLASSES, 'free')
    grid = VoxelGrid((-20, -20, -1, 20, 20, 5.4), 0.4, (100, 100, 16), 'ego', 17, class_names=names)
    report = make_labels([part], grid, tmp_path, settings=LabelSettings())
    assert report.own_agree / report.own_points > 0.95 and report.own_occupied == report.own_points
