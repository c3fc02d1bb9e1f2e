"""DDAD from generated drives in its layout: preparation, depth maps, and what damage is called."""

import json
import shutil

import numpy as np
import pytest

from projects.occ.datasets.info_formats import read_info_file
from projects.occ.datasets.lidar_points import NUSCENES_POINT_DIMS, read_points
from projects.occ.datasets.transforms.lidar_pixels import finite_points, project_to_pixels
from projects.preparation.check_ddad import check_ddad
from projects.preparation.ddad import export_depth_maps, prepare_ddad, read_ddad
from projects.streets import build_config, generate_ddad

SIZE = (96, 64)


@pytest.fixture(scope='module')
def generated(tmp_path_factory):
    root = tmp_path_factory.mktemp('ddad')
    config = build_config(formats=('occ3d',), image_size=SIZE, scenes_train=1, scenes_val=1, frames=2, seed=5)
    assert generate_ddad(config, root, workers=1, progress=False)['frames'] == dict(train=2, val=2)
    assert generate_ddad(config, root, workers=1, progress=False)['reused']
    return root


@pytest.fixture
def copy(generated, tmp_path):
    root = tmp_path / 'ddad'
    shutil.copytree(generated, root)
    return root


def check(root, **options):
    defaults = dict(masks=root / 'mask', pseudo=root / 'ddad_semantic', image_wh=SIZE, complete=False)
    return check_ddad(root, **{**defaults, **options})


def test_generated_drives_are_whole(generated):
    assert check(generated) == []


def one(root, pattern):
    return sorted(root.glob(pattern))[0]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change_scene(root, function):
    path = one(root, '000000/scene_*.json')
    content = json.loads(path.read_text())
    function(content)
    path.write_text(json.dumps(content))


def bend(content):
    image = next(entry['datum']['image'] for entry in content['data'] if 'image' in entry['datum'])
    image['pose']['translation']['x'] += 50


def lose_lidar(content):
    content['samples'][0]['datum_keys'] = content['samples'][0]['datum_keys'][:-1]


def repaint(path, value):
    path.write_bytes(np.full(SIZE, value, np.int8).tobytes())


DAMAGE = {
    'no data set file': ('annotation-missing', lambda root: (root / 'ddad.json').unlink()),
    'data set file cut': ('annotation-damaged', lambda root: cut(root / 'ddad.json')),
    'no splits': ('annotation-damaged', lambda root: (root / 'ddad.json').write_text('{}')),
    'no scene': ('scene-missing', lambda root: one(root, '000000/scene_*.json').unlink()),
    'scene cut': ('scene-damaged', lambda root: cut(one(root, '000000/scene_*.json'))),
    'no calibration': ('scene-missing', lambda root: one(root, '000000/calibration/*.json').unlink()),
    'sample without lidar': ('scene-damaged', lambda root: change_scene(root, lose_lidar)),
    'pose off by 50 m': ('matrix', lambda root: change_scene(root, bend)),
    'no image': ('image-missing', lambda root: one(root, '000150/rgb/CAMERA_05/*.png').unlink()),
    'image cut': ('image-damaged', lambda root: cut(one(root, '000150/rgb/CAMERA_05/*.png'))),
    'no cloud': ('lidar-missing', lambda root: one(root, '000000/point_cloud/LIDAR/*.npz').unlink()),
    'cloud cut': ('lidar-damaged', lambda root: cut(one(root, '000000/point_cloud/LIDAR/*.npz'))),
    'no mask': ('image-mask-missing', lambda root: one(root, 'mask/CAMERA_07/000000/mask.png').unlink()),
    'mask cut': ('image-mask-damaged', lambda root: one(root, 'mask/CAMERA_07/000000/mask.png').write_bytes(b'PNG')),
    'no class map': ('class-map-missing', lambda root: one(root, 'ddad_semantic/000000/CAMERA_01/*.bin').unlink()),
    'class map cut': ('class-map-damaged', lambda root: cut(one(root, 'ddad_semantic/000000/CAMERA_01/*.bin'))),
    'unknown class': ('class-map-damaged', lambda root: repaint(one(root, 'ddad_semantic/000000/CAMERA_01/*.bin'), 40)),
    'nothing labelled': ('class-map-damaged', lambda root: repaint(one(root, 'ddad_semantic/000000/CAMERA_01/*.bin'), -1)),
}


@pytest.mark.parametrize('what', DAMAGE)
def test_damage_is_found_and_named(copy, what):
    kind, harm = DAMAGE[what]
    harm(copy)
    findings = check(copy)
    assert {finding.kind for finding in findings} == {kind}, findings
    assert all(str(copy) in finding.path and finding.message for finding in findings)


def test_sizes_counts_and_the_meaning_of_masks(generated):
    assert {finding.kind for finding in check(generated, image_wh=(1936, 1216), masks=None, pseudo=None)} == {'image-size'}
    assert {finding.kind for finding in check(generated, complete=True)} == {'frame-count'}
    assert {finding.kind for finding in check(generated, valid='nonzero')} == {'image-mask-damaged'}


def test_annotation_files_hold_what_the_scenes_say(copy):
    written = prepare_ddad(copy)
    assert {split: count for split, (_, count) in written.items()} == dict(train=2, val=2)
    for split, (path, _) in written.items():
        for ours, theirs in zip(read_info_file(str(path)).records, read_ddad(copy, split), strict=True):
            assert (ours.token, ours.prev, ours.next, ours.frame_idx) == (
                theirs.token,
                theirs.prev,
                theirs.next,
                theirs.frame_idx,
            )
            assert ours.lidar_path == theirs.lidar_path and list(ours.cameras) == list(theirs.cameras)
            for name, camera in theirs.cameras.items():
                assert ours.cameras[name].img_path == camera.img_path
                for key in ('cam2img', 'lidar2cam', 'cam2ego', 'ego2global'):
                    np.testing.assert_allclose(getattr(ours.cameras[name], key), getattr(camera, key), atol=1e-12)


def test_depth_maps(copy, tmp_path):
    assert export_depth_maps(copy, tmp_path / 'depth', ('val',)) == 12
    assert export_depth_maps(copy, tmp_path / 'depth', ('val',)) == 0
    record = read_ddad(copy, 'val')[0]
    points = finite_points(read_points(str(copy / record.lidar_path), NUSCENES_POINT_DIMS, 'cloud', 'copy it again'))
    for name, camera in record.cameras.items():
        depth = np.load(next((tmp_path / 'depth' / '000150' / 'depth' / name).glob(f'{camera.img_path[-20:-4]}.npy')))
        rows = project_to_pixels(points, camera.lidar2cam, camera.cam2img, SIZE)
        assert depth.shape == SIZE[::-1] and (depth > 0).sum() == len(rows) > 50


def test_lidar_points_lie_on_what_the_images_show(generated):
    """Clouds and poses agree: neighbouring clouds, moved by the poses, meet on the ground plane of the street."""
    first, second = read_ddad(generated, 'train')
    moved = np.linalg.inv(second.ego2global) @ first.ego2global
    assert np.abs(moved[:3, 3]).max() < 3
    heights = []
    for record, matrix in ((first, moved), (second, np.eye(4))):
        points = finite_points(read_points(str(generated / record.lidar_path), NUSCENES_POINT_DIMS, 'cloud', 'copy it again'))
        points = points @ matrix[:3, :3].T + matrix[:3, 3]
        near = np.hypot(points[:, 0] - 6, points[:, 1]) < 3
        heights.append(np.median(points[near & (points[:, 2] < 0.4), 2]))
    assert abs(heights[0] - heights[1]) < 0.05
