"""Every kind of damage, one at a time, in a copy of a good tree; the good tree gives no finding."""

import json
import pickle
import struct

import cv2
import numpy as np
import pytest

from projects.occ.structures import VoxelGrid
from projects.preparation.check_nuscenes import check_nuscenes
from projects.preparation.findings import SECTIONS, Finding, print_findings

ANN = {'occ3d': 'occ3d_nuscenes/occ_infos_train.pkl', 'surroundocc': 'surroundocc_nuscenes/occ_infos_train.pkl'}


def rewrite(path, data):
    """Another file in the place of a hard link."""
    path.unlink()
    path.write_bytes(data)


def change_infos(edit, name=ANN['occ3d']):
    def damage(root):
        content = pickle.loads((root / name).read_bytes())
        edit(content['data_list'])
        rewrite(root / name, pickle.dumps(content))

    return damage


def change_label(edit):
    def damage(root):
        path = sorted(root.glob('occ3d_nuscenes/gts/*/*/labels.npz'))[0]
        arrays = dict(np.load(path))
        edit(arrays)
        path.unlink()
        np.savez_compressed(path, **arrays)

    return damage


def change_rows(edit):
    def damage(root):
        path = sorted(root.glob('surroundocc_nuscenes/samples/*.npy'))[0]
        rows = edit(np.load(path))
        path.unlink()
        np.save(path, rows)

    return damage


def change_file(pattern, edit):
    def damage(root):
        path = sorted(root.glob(pattern))[0]
        data = edit(path.read_bytes())
        path.unlink()
        if data is not None:
            path.write_bytes(data)

    return damage


def picture(width, height):
    return cv2.imencode('.jpg', np.zeros((height, width, 3), dtype=np.uint8))[1].tobytes()


IMAGES, LABELS, ROWS = (
    'nuscenes/samples/CAM_FRONT/*.jpg',
    'occ3d_nuscenes/gts/*/*/labels.npz',
    'surroundocc_nuscenes/samples/*.npy',
)


def camera(info):
    return info['images']['CAM_BACK']


def not_a_number(infos):
    infos[0]['ego2global'][0][3] = float('nan')


def identity_pose(infos):
    infos[2]['ego2global'] = np.eye(4).tolist()


def inverted(infos):
    # not CAM_BACK, whose rotation is nearly its own inverse
    left = infos[0]['images']['CAM_FRONT_LEFT']
    left['lidar2cam'] = np.linalg.inv(left['lidar2cam']).tolist()


def no_focal_length(infos):
    camera(infos[1])['cam2img'][0][0] = -5.0


def principal_point(infos):
    camera(infos[1])['cam2img'][0][2] = 4000.0


def resized_images(root):
    for path in root.glob(IMAGES):
        rewrite(path, picture(32, 19))


def no_sizes(infos):
    for info in infos:
        for image in info['images'].values():
            del image['width'], image['height']


def resized_images_of_a_foreign_file(root):
    resized_images(root)
    for split in ('train', 'val'):
        change_infos(no_sizes, ANN['occ3d'].replace('train', split))(root)
        (root / ANN['surroundocc'].replace('train', split)).unlink()


def duplicate(infos):
    infos.append(infos[0])


def no_camera(infos):
    del infos[3]['images']['CAM_BACK_LEFT']


def no_key(infos):
    del infos[1]['lidar_points']


def other_root(infos):
    camera(infos[0])['img_path'] = '/home/someone/nuscenes/CAM_BACK/x.jpg'


def other_frame(infos):
    infos[0]['occ3d_path'] = infos[1]['occ3d_path']


def wrong_neighbour(infos):
    infos[0]['next'] = infos[2]['token']


def back_in_time(infos):
    infos[1]['timestamp'] = infos[0]['timestamp'] - 1


def leak(root):
    train, val = (root / ANN['occ3d'].replace('train', split) for split in ('train', 'val'))
    content = pickle.loads(train.read_bytes())
    content['data_list'] += pickle.loads(val.read_bytes())['data_list'][:1]
    rewrite(train, pickle.dumps(content))
    (root / 'occ3d_nuscenes' / 'ray_origins_train.npz').unlink()


def official(infos_root):
    path = infos_root / ANN['occ3d']
    content = pickle.loads(path.read_bytes())
    content['metainfo']['version'] = 'v1.0-trainval'
    rewrite(path, pickle.dumps(content))


def other_classes(root):
    for path in root.glob(LABELS):
        arrays = dict(np.load(path))
        arrays['semantics'][arrays['semantics'] < 17] %= 11
        path.unlink()
        np.savez_compressed(path, **arrays)


def drop(key):
    return change_label(lambda arrays: arrays.pop(key))


def fill(key, value):
    return change_label(lambda arrays: arrays[key].fill(value))


def cast(key, dtype):
    return change_label(lambda arrays: arrays.update({key: arrays[key].astype(dtype)}))


def with_row(row):
    return change_rows(lambda rows: np.concatenate([rows, [row]]))


def origins_of_others(root):
    path = root / 'occ3d_nuscenes' / 'ray_origins_train.npz'
    data = (root / 'occ3d_nuscenes' / 'ray_origins_val.npz').read_bytes()
    rewrite(path, data)


# name -> (benchmark, damage, kind of the finding, part of its path, part of its sentence)
DAMAGE = {
    'no annotation file': (
        'occ3d',
        lambda root: [path.unlink() for path in root.rglob('*infos*.pkl')],
        'annotation-missing',
        'copy',
        'neither this folder nor occ3d_nuscenes/ has an annotation file',
    ),
    'annotation file cut short': (
        'occ3d',
        change_file(ANN['occ3d'], lambda d: d[:500]),
        'annotation-damaged',
        ANN['occ3d'],
        'pickle',
    ),
    'frame without a key': (
        'occ3d',
        change_infos(no_key),
        'annotation-damaged',
        ANN['occ3d'],
        "the key 'lidar_points' is missing",
    ),
    'frames left out': ('occ3d', official, 'frame-count', ANN['occ3d'], '4 frames; the split of v1.0-trainval has 28130'),
    'frame twice': ('occ3d', change_infos(duplicate), 'frame-duplicate', ANN['occ3d'], 'occurs 2 times'),
    'frame in both splits': ('occ3d', leak, 'split-overlap', ANN['occ3d'], "shares 1 frames with 'occ_infos_val.pkl'"),
    'wrong neighbour': ('occ3d', change_infos(wrong_neighbour), 'frame-order', ANN['occ3d'], "'next' of frame"),
    'times not in order': ('occ3d', change_infos(back_in_time), 'frame-order', ANN['occ3d'], 'is not later'),
    'camera missing': ('occ3d', change_infos(no_camera), 'camera-missing', ANN['occ3d'], 'has no CAM_BACK_LEFT'),
    'pose not finite': ('occ3d', change_infos(not_a_number), 'matrix', ANN['occ3d'], 'ego2global holds non-finite numbers'),
    'empty pose': ('occ3d', change_infos(identity_pose), 'pose-empty', ANN['occ3d'], 'ego2global is empty'),
    'matrix inverted': ('occ3d', change_infos(inverted), 'matrix', ANN['occ3d'], 'is a matrix inverted?'),
    'negative focal length': ('occ3d', change_infos(no_focal_length), 'intrinsics', ANN['occ3d'], 'no positive finite focal'),
    'principal point outside': (
        'occ3d',
        change_infos(principal_point),
        'intrinsics',
        ANN['occ3d'],
        'is outside the image of 48 x 28 pixels',
    ),
    'label of another frame': ('occ3d', change_infos(other_frame), 'foreign-path', ANN['occ3d'], 'belongs to another frame'),
    'image missing': ('occ3d', change_file(IMAGES, lambda d: None), 'image-missing', 'CAM_FRONT', 'does not exist'),
    'image empty': ('surroundocc', change_file(IMAGES, lambda d: b''), 'image-damaged', 'CAM_FRONT', 'is empty (0 bytes)'),
    'image cut short': ('occ3d', change_file(IMAGES, lambda d: d[:-40]), 'image-damaged', 'CAM_FRONT', 'is cut short'),
    'no image': ('occ3d', change_file(IMAGES, lambda d: b'<html>' + d), 'image-damaged', 'CAM_FRONT', 'is no image'),
    'image resized': ('occ3d', change_file(IMAGES, lambda d: picture(24, 14)), 'image-size', 'CAM_FRONT', 'has 24 x 14 pixels'),
    'LiDAR cut short': (
        'occ3d',
        change_file('nuscenes/samples/LIDAR_TOP/*', lambda d: d[:-7]),
        'lidar-damaged',
        'LIDAR_TOP',
        'expected 20 per point',
    ),
    'label missing': ('occ3d', change_file(LABELS, lambda d: None), 'label-missing', 'labels.npz', 'does not exist'),
    'label cut short': (
        'occ3d',
        change_file(LABELS, lambda d: d[: len(d) // 2]),
        'label-damaged',
        'labels.npz',
        'unpack the labels again',
    ),
    'no semantics': ('occ3d', drop('semantics'), 'label-array', 'labels.npz', "'semantics'"),
    'no mask': ('occ3d', drop('mask_camera'), 'label-array', 'labels.npz', "'mask_camera'"),
    'semantics cropped': (
        'occ3d',
        change_label(lambda arrays: arrays.update(semantics=arrays['semantics'][1:])),
        'label-shape',
        'labels.npz',
        '(39, 40, 6)',
    ),
    'semantics not whole': ('occ3d', cast('semantics', str), 'label-type', 'labels.npz', 'expected numbers'),
    'class out of range': ('occ3d', fill('semantics', 18), 'label-class', 'labels.npz', 'expected 0..17'),
    'label free': ('occ3d', fill('semantics', 17), 'label-empty', 'labels.npz', 'no voxel has a class'),
    'mask cropped': (
        'occ3d',
        change_label(lambda arrays: arrays.update(mask_lidar=arrays['mask_lidar'][..., 1:])),
        'mask-shape',
        'labels.npz',
        'mask_lidar has the shape (40, 40, 5)',
    ),
    'mask of other values': ('occ3d', fill('mask_camera', 3), 'mask-values', 'labels.npz', 'other values than 0 and 1'),
    'mask empty': ('occ3d', fill('mask_camera', 0), 'mask-empty', 'labels.npz', 'mask_camera is 0 everywhere'),
    'images resized on disk': ('occ3d', resized_images, 'image-size', 'CAM_FRONT', 'intrinsics are for 48 x 28'),
    'images of a foreign file resized': (
        'occ3d',
        resized_images_of_a_foreign_file,
        'image-size',
        'CAM_FRONT',
        'is far from the middle',
    ),
    'other class set': (
        'occ3d',
        other_classes,
        'classes-missing',
        'occ3d_nuscenes',
        'no voxel of any label has a class 11..16',
    ),
    'origins of other frames': ('occ3d', origins_of_others, 'origins', 'ray_origins_train.npz', 'lacks 4 frames'),
    'origins cut short': (
        'occ3d',
        change_file('occ3d_nuscenes/ray_origins_val.npz', lambda d: d[:200]),
        'origins',
        'ray_origins_val.npz',
        'cannot be read',
    ),
    'sparse label missing': ('surroundocc', change_file(ROWS, lambda d: None), 'label-missing', '.npy', 'does not exist'),
    'sparse label cut short': (
        'surroundocc',
        change_file(ROWS, lambda d: d[:-100]),
        'label-damaged',
        '.npy',
        'unpack the labels again',
    ),
    'sparse label has three columns': (
        'surroundocc',
        change_rows(lambda rows: rows[:, :3]),
        'label-shape',
        '.npy',
        'expected (K, 4)',
    ),
    'sparse label not whole': ('surroundocc', change_rows(lambda rows: rows * 0.4), 'label-type', '.npy', 'float64'),
    'sparse label empty': ('surroundocc', change_rows(lambda rows: rows[:0]), 'label-empty', '.npy', 'no voxel has a class'),
    'voxel outside': ('surroundocc', with_row([40, 0, 0, 4]), 'label-shape', '.npy', '(40, 0, 0)'),
    'sparse class out of range': ('surroundocc', with_row([0, 0, 5, 17]), 'label-class', '.npy', 'expected 0..16'),
}
# paths that lead elsewhere also make the file missing
ALSO = {'other root': ('occ3d', change_infos(other_root), {'foreign-path', 'image-missing'})}


def check(root, benchmark, workers=1):
    grid = VoxelGrid.build(json.loads((root / 'synthetic.json').read_text())['config']['grids'][benchmark])
    return check_nuscenes(benchmark, root, grid, workers=workers)


@pytest.mark.parametrize('benchmark', ['occ3d', 'surroundocc'])
def test_good_tree_has_no_finding(raw_root, benchmark):
    assert check(raw_root, benchmark) == []


@pytest.mark.parametrize('name', DAMAGE)
def test_damage_is_found_and_nothing_else(root_copy, name):
    benchmark, damage, kind, path, message = DAMAGE[name]
    damage(root_copy)
    findings = check(root_copy, benchmark)
    assert {finding.kind for finding in findings} == {kind}, findings
    assert any(path in finding.path and message in finding.message for finding in findings), findings


def test_a_path_to_another_root_is_found(root_copy):
    benchmark, damage, kinds = ALSO['other root']
    damage(root_copy)
    findings = check(root_copy, benchmark)
    assert {finding.kind for finding in findings} == kinds
    assert any('leads out of the data root; expected a path relative to it' in finding.message for finding in findings)


def test_all_damage_in_one_run_by_several_processes(root_copy):
    damages = ['image cut short', 'label free', 'pose not finite', 'LiDAR cut short', 'frame twice']
    for name in damages:
        DAMAGE[name][1](root_copy)
    found = {finding.kind for finding in check(root_copy, 'occ3d', workers=2)}
    assert found == {DAMAGE[name][2] for name in damages}


def test_command_is_silent_on_a_good_tree_and_exits_with_one_on_a_bad_one(root_copy, create_data_main, capsys, tmp_path):
    command = ['occ3d', '--data-root', str(root_copy), '--check', '--workers', '1']
    assert create_data_main(command) == 0
    assert capsys.readouterr().out == ''
    DAMAGE['label free'][1](root_copy)
    DAMAGE['image missing'][1](root_copy)
    assert create_data_main([*command, '--report', str(tmp_path / 'report.json')]) == 1
    out = capsys.readouterr().out
    assert 'label-empty: 1 (see docs/datasets.md#label-files)' in out
    assert 'image-missing: 1 (see docs/datasets.md#folders)' in out
    report = json.loads((tmp_path / 'report.json').read_text())
    assert {row['kind'] for row in report} == {'label-empty', 'image-missing'} and 'labels.npz' in report[1]['path']
    assert create_data_main([*command, '--ann-file', 'nowhere.pkl']) == 1
    assert 'nowhere.pkl: does not exist' in capsys.readouterr().out


def test_every_section_exists_in_the_document(repo_root):
    lines = (repo_root / 'docs' / 'datasets.md').read_text().splitlines()
    titles = [line.lstrip('#').strip() for line in lines if line.startswith('#')]
    anchors = {''.join(c for c in title.lower().replace(' ', '-') if c.isalnum() or c in '-_') for title in titles}
    assert set(SECTIONS.values()) <= anchors


def test_long_lists_are_cut(capsys):
    print_findings([Finding('image-missing', f'{index}.jpg', 'does not exist') for index in range(25)])
    out = capsys.readouterr().out
    assert 'image-missing: 25' in out and '19.jpg' in out and '20.jpg' not in out
    assert '... and 5 more; --report FILE writes all of them' in out
    with pytest.raises(ValueError, match='kind must be one of'):
        Finding('nonsense', 'x', 'y')


def test_a_png_with_a_broken_body_is_damaged(tmp_path):
    from projects.preparation.check_files import check_image

    data = bytearray(cv2.imencode('.png', np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))[1].tobytes())
    at = data.index(b'IDAT')
    (length,) = struct.unpack('>I', data[at - 4 : at])
    data[at + 4 : at + 4 + length] = bytes(length)
    (tmp_path / 'x.png').write_bytes(data)
    findings, size = check_image(tmp_path / 'x.png')
    assert size is None and findings[0].kind == 'image-damaged'
