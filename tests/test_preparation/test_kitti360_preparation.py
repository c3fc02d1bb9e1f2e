import gzip
import os
import shutil

import cv2
import numpy as np
import pytest

from projects.occ.datasets.kitti360_poses import read_poses
from projects.occ.datasets.label_formats import read_raw_label
from projects.occ.datasets.sscbench_kitti360_dataset import IMAGE_WH, sequence_name
from projects.preparation.check_kitti360 import check_kitti360
from projects.preparation.kitti360 import prepare_kitti360

SEQUENCE = sequence_name(6)
SHAPE = (8, 8, 4)
FRAMES = ('000000', '000005', '000010')


@pytest.fixture
def prepared(kitti_copy):
    list(prepare_kitti360(kitti_copy, ['val'], shape=SHAPE))
    return kitti_copy


def test_labels_are_converted_by_several_processes_and_kept(kitti_copy):
    lines = list(prepare_kitti360(kitti_copy, ['val'], shape=SHAPE, workers=2))
    assert lines == ['labels: converted 3 frames of 1 sequences', 'labels: all 3 frames of 1 sequences have one']
    voxels, labels = kitti_copy / 'data_2d_raw' / SEQUENCE / 'voxels', kitti_copy / 'preprocess' / 'labels' / SEQUENCE
    for frame in FRAMES:
        found = np.load(labels / f'{frame}_1_1.npy')
        assert found.dtype == np.float32
        assert np.array_equal(found, read_raw_label(voxels / f'{frame}.label', SHAPE))
    assert list(prepare_kitti360(kitti_copy, ['val'], shape=SHAPE)) == ['labels: all 3 frames of 1 sequences have one']
    np.save(labels / '000005_1_1.npy', np.zeros(SHAPE, np.float32))
    assert list(prepare_kitti360(kitti_copy, ['val'], shape=SHAPE, overwrite=True))[0].startswith('labels: converted 3')
    assert np.load(labels / '000005_1_1.npy').any()


def test_missing_voxels_and_labels(kitti_copy):
    with pytest.raises(FileNotFoundError, match="drive_0009_sync/voxels' is missing or empty; unpack SSCBench's voxels"):
        list(prepare_kitti360(kitti_copy, ['test'], shape=SHAPE))
    (kitti_copy / 'data_2d_raw' / SEQUENCE / 'voxels' / '000005.label').unlink()
    with pytest.raises(FileNotFoundError, match='1 frames have neither a label nor a raw one, the first is .*000005'):
        list(prepare_kitti360(kitti_copy, ['val'], shape=SHAPE))


@pytest.fixture
def kitti360(shared_data, tmp_path):
    """KITTI-360's real calibration, and images of the frames that the real frame map names."""
    sample = shared_data / 'kitti360_sample'
    if not sample.is_dir():
        pytest.skip(f'{sample} not found')
    root = tmp_path / 'KITTI-360'
    shutil.copytree(sample / 'calibration', root / 'calibration')
    rows = [line.split() for line in gzip.open(sample / 'kitti_360_match.txt.gz', 'rt')]
    raw = {row[2]: row[1] for row in rows if row[0] == SEQUENCE}
    images = root / 'data_2d_raw' / SEQUENCE / 'image_00' / 'data_rect'
    images.mkdir(parents=True)
    for frame in FRAMES:
        (images / raw[f'{frame}.png']).write_bytes(b'image ' + frame.encode())
    poses = root / 'data_poses' / SEQUENCE
    poses.mkdir(parents=True)
    # the second frame has none
    numbers = {number: int(raw[f'{FRAMES[number]}.png'].removesuffix('.png')) for number in (0, 2)}
    rows = [f'{frame} 1 0 0 {number} 0 1 0 0 0 0 1 0' for number, frame in numbers.items()]
    (poses / 'poses.txt').write_text('\n'.join(rows))
    return root, sample / 'kitti_360_match.txt.gz'


def test_images_calibration_and_frame_numbers_come_from_kitti360(kitti_copy, kitti360):
    root, frame_map = kitti360
    images = kitti_copy / 'data_2d_raw' / SEQUENCE / 'image_00' / 'data_rect'
    for frame in FRAMES[1:]:
        (images / f'{frame}.png').unlink()
    os.symlink('/nowhere/at/all.png', images / '000010.png')
    lines = list(prepare_kitti360(kitti_copy, ['val'], root, frame_map, shape=SHAPE))
    assert lines[2:] == [
        'calibration: agrees with the published one; copied to calibration/',
        f'images: linked 2 to {root}; every frame has one',
        'poses: 2 of 3 frames, in poses/',
    ]
    poses = read_poses(kitti_copy / 'poses' / f'{SEQUENCE}.npz')
    assert list(poses) == [0, 10]
    np.testing.assert_allclose(poses[10] - poses[0], np.pad([[2.0]], ((0, 3), (3, 0))), atol=1e-12)
    for frame in FRAMES[1:]:
        assert (images / f'{frame}.png').read_bytes() == b'image ' + frame.encode()
    assert not (images / '000000.png').is_symlink()
    assert (kitti_copy / 'kitti_360_match.txt').read_text().startswith('2013_05_28_drive_0000_sync 0000000009.png 000000.png')
    assert (kitti_copy / 'calibration' / 'perspective.txt').is_file()
    # the map is found the next time
    assert list(prepare_kitti360(kitti_copy, ['val'], root, shape=SHAPE))[-2].startswith('images: linked 0')


def test_errors_with_kitti360(kitti_copy, kitti360):
    root, frame_map = kitti360
    with pytest.raises(FileNotFoundError, match=r'kitti_360_match\.txt. does not exist; give --frame-map'):
        list(prepare_kitti360(kitti_copy, ['val'], root, shape=SHAPE))
    (kitti_copy / 'data_2d_raw' / SEQUENCE / 'image_00' / 'data_rect' / '000005.png').unlink()
    shutil.rmtree(root / 'data_2d_raw')
    with pytest.raises(FileNotFoundError, match="1 frames have no image here and none in KITTI-360's folder.*000005"):
        list(prepare_kitti360(kitti_copy, ['val'], root, frame_map, shape=SHAPE))
    path = root / 'calibration' / 'perspective.txt'
    path.write_text(path.read_text().replace('552.554261', '700.0'))
    with pytest.raises(ValueError, match='is not the calibration that SSCBench-KITTI-360 goes with: .* differ by 147 px'):
        list(prepare_kitti360(kitti_copy, ['val'], root, frame_map, shape=SHAPE))


def label(root, frame='000005'):
    return root / 'preprocess' / 'labels' / SEQUENCE / f'{frame}_1_1.npy'


def image(root):
    return root / 'data_2d_raw' / SEQUENCE / 'image_00' / 'data_rect' / '000005.png'


def voxels(root, name):
    return root / 'data_2d_raw' / SEQUENCE / 'voxels' / name


def change(edit):
    def damage(root):
        values = np.load(label(root))
        label(root).unlink()
        np.save(label(root), edit(values))

    return damage


def rewrite(path, data):
    path.unlink()
    path.write_bytes(data)


def map_of_nuscenes(root):
    for frame in FRAMES:
        values = np.load(label(root, frame))
        np.save(label(root, frame), np.where((values > 10) & (values < 255), 3, values))


PERSPECTIVE = 'S_rect_00: 1408 376\nR_rect_00: 1 0 0 0 1 0 0 0 1\nP_rect_00: 552.5 0 682 0 0 552.5 238 0 0 0 1 0\n'
CAM_TO_VELO = '0 0 1 0.8 -1 0 0 0.3 0 -1 0 -0.2'


def with_calibration(perspective):
    def damage(root):
        (root / 'calibration').mkdir()
        (root / 'calibration' / 'perspective.txt').write_text(perspective)
        (root / 'calibration' / 'calib_cam_to_velo.txt').write_text(CAM_TO_VELO)

    return damage


DAMAGE = {
    'sequence missing': (
        lambda root: shutil.rmtree(root / 'data_2d_raw' / SEQUENCE / 'voxels'),
        'sequence-missing',
        'is missing or has no <frame>.bin',
    ),
    'image missing': (lambda root: image(root).unlink(), 'image-missing', 'does not exist'),
    'image cut short': (lambda root: rewrite(image(root), image(root).read_bytes()[:-20]), 'image-damaged', 'is cut short'),
    'image resized': (
        lambda root: rewrite(image(root), cv2.imencode('.png', np.zeros((188, 704, 3), np.uint8))[1].tobytes()),
        'image-size',
        'has 704 x 188 pixels; the calibration is for 1408 x 376',
    ),
    'label missing': (lambda root: label(root).unlink(), 'label-missing', 'does not exist; make it from the raw one'),
    'label cut short': (
        lambda root: rewrite(label(root), label(root).read_bytes()[:-9]),
        'label-damaged',
        'make it from the raw one',
    ),
    'label cropped': (change(lambda values: values[1:]), 'label-shape', 'has the shape (7, 8, 4), the grid (8, 8, 4)'),
    'label of text': (change(lambda values: values.astype(str)), 'label-type', 'expected numbers'),
    'class out of range': (
        change(lambda values: np.full_like(values, 19)),
        'label-class',
        'expected 0..18 or 255',
    ),
    'no class id': (change(lambda values: values + 0.5), 'label-class', 'expected 0..18 or 255'),
    'all ignored': (change(lambda values: np.full_like(values, 255)), 'label-empty', 'no voxel has a class'),
    'map of another data set': (map_of_nuscenes, 'classes-missing', 'made with the map of another data set'),
    'raw label cut short': (
        lambda root: rewrite(voxels(root, '000005.label'), b'123'),
        'raw-label-damaged',
        'has 3 bytes; expected 512',
    ),
    'packed invalid': (
        lambda root: rewrite(voxels(root, '000005.invalid'), bytes(32)),
        'raw-label-damaged',
        'has 32 bytes; expected 256, 1 per voxel',
    ),
    'calibration damaged': (with_calibration('K_00: 1 2 3'), 'calibration', 'lacks the rows'),
    'no focal length': (with_calibration(PERSPECTIVE.replace('552.5', '0')), 'calibration', 'focal lengths [0.0, 0.0]'),
    'principal point outside': (
        with_calibration(PERSPECTIVE.replace('682', '-3')),
        'calibration',
        'principal point [-3.0, 238.0]',
    ),
    'no rotation': (with_calibration(PERSPECTIVE.replace('R_rect_00: 1', 'R_rect_00: 2')), 'calibration', 'is not orthonormal'),
    'images of another calibration': (
        with_calibration(PERSPECTIVE.replace('1408 376', '704 300')),
        'image-size',
        'the calibration is for 704 x 300',
    ),
}


def depth_map(root, frame='000005'):
    return root / 'depth' / SEQUENCE / f'{frame}.npy'


def with_depth(root, wh=IMAGE_WH):
    for frame in FRAMES:
        depth_map(root, frame).parent.mkdir(parents=True, exist_ok=True)
        np.save(depth_map(root, frame), np.full(wh[::-1], 7.5, np.float32))


def depth_of(value, dtype=np.float32, wh=IMAGE_WH):
    def damage(root):
        with_depth(root)
        np.save(depth_map(root), np.full(wh[::-1], value, dtype))

    return damage


def damaged_depth(edit):
    def damage(root):
        with_depth(root)
        edit(depth_map(root))

    return damage


DAMAGE |= {
    'depth missing': (damaged_depth(lambda path: path.unlink()), 'depth-missing', 'does not exist; make it again'),
    'depth cut short': (
        damaged_depth(lambda path: path.write_bytes(path.read_bytes()[:-9])),
        'depth-damaged',
        'make it again',
    ),
    'depth of text': (damaged_depth(lambda path: path.write_bytes(b'depth')), 'depth-damaged', '(5 bytes)'),
    'depth padded': (
        depth_of(1, wh=(1872, 576)),
        'depth-shape',
        'float32 (576, 1872); expected floats of the shape',
    ),
    'depth in whole numbers': (depth_of(256, np.uint16), 'depth-shape', 'holds uint16 (376, 1408)'),
    'depth not a number': (depth_of(np.nan), 'depth-values', 'pixels are negative or not finite (the first is nan)'),
    'depth infinite': (depth_of(np.inf), 'depth-values', 'the first is inf'),
    'depth negative': (depth_of(-1), 'depth-values', 'the first is -1.0'),
    'depth empty': (depth_of(0), 'depth-values', 'is 0 everywhere'),
}


def test_depth_maps_are_looked_at_where_there_are_some_or_on_request(prepared, kitti_grid):
    missing = check_kitti360(prepared, kitti_grid, ['val'], complete=False, depth=True)
    assert [finding.kind for finding in missing] == ['depth-missing'] * 3
    assert missing[0].section == 'docs/datasets.md#depth-maps'
    with_depth(prepared)
    assert check_kitti360(prepared, kitti_grid, ['val'], complete=False) == []
    depth_map(prepared).unlink()
    assert check_kitti360(prepared, kitti_grid, ['val'], complete=False, depth=False) == []


def test_good_tree_has_no_finding(prepared, kitti_grid):
    assert check_kitti360(prepared, kitti_grid, ['val'], complete=False, workers=2) == []


@pytest.mark.parametrize('name', DAMAGE)
def test_damage_is_found_and_nothing_else(prepared, kitti_grid, name):
    damage, kind, message = DAMAGE[name]
    damage(prepared)
    findings = check_kitti360(prepared, kitti_grid, ['val'], complete=False)
    assert {finding.kind for finding in findings} == {kind}, findings
    assert any(message in finding.message for finding in findings), findings


def test_the_real_benchmark_must_be_complete(prepared, kitti_grid):
    with_calibration(PERSPECTIVE)(prepared)
    findings = check_kitti360(prepared, kitti_grid, ['val'])
    assert [(finding.kind, finding.message) for finding in findings] == [
        ('frame-count', "3 frames in split 'val'; the benchmark has 1812")
    ]
    (prepared / 'calibration' / 'perspective.txt').write_text(PERSPECTIVE.replace('1408 376', '704 300'))
    findings = check_kitti360(prepared, kitti_grid, ['val'])
    assert any(finding.message == 'is for images of 704 x 300 pixels; the benchmark has 1408 x 376' for finding in findings)
    missing = [finding for finding in check_kitti360(prepared, kitti_grid, ['train']) if finding.kind == 'sequence-missing']
    assert len(missing) == 7
    assert [f.kind for f in check_kitti360(prepared, kitti_grid, ['test'], complete=False)] == ['sequence-missing']


def test_generated_data_has_no_finding(create_data_main, tmp_path, capsys):
    root = str(tmp_path / 'streets')
    size = ('--scenes-train', '1', '--scenes-val', '1', '--frames', '1', '--image-size', '88x24')
    assert create_data_main(['synthetic', '--format', 'sscbench-kitti360', '--out', root, *size]) == 0
    capsys.readouterr()
    check = ['sscbench-kitti360', '--data-root', root, '--check', '--splits', 'train', 'val', '--workers', '1']
    assert create_data_main(check) == 0
    assert capsys.readouterr().out == ''
    next((tmp_path / 'streets' / 'depth').rglob('*.npy')).unlink()
    assert create_data_main(check) == 1
    assert capsys.readouterr().out.startswith('depth-missing: 1 (see docs/datasets.md#depth-maps)')
    assert create_data_main([*check, '--no-depth']) == 0


def test_a_frame_between_the_fifth_ones_is_found(prepared, kitti_grid):
    voxels(prepared, '000003.bin').write_bytes(b'')
    findings = check_kitti360(prepared, kitti_grid, ['val'], complete=False)
    assert {finding.kind for finding in findings} == {'frame-name', 'image-missing', 'label-missing', 'raw-label-missing'}


@pytest.mark.parametrize('suffix', ['.label', '.invalid'])
def test_raw_labels_that_are_still_needed_are_found(prepared, kitti_grid, suffix):
    voxels(prepared, f'000005{suffix}').unlink()
    # the label is there
    assert check_kitti360(prepared, kitti_grid, ['val'], complete=False) == []
    label(prepared).unlink()
    findings = check_kitti360(prepared, kitti_grid, ['val'], complete=False)
    assert [finding.kind for finding in findings] == ['label-missing', 'raw-label-missing']
    assert findings[1].path.endswith(f'000005{suffix}') and 'so the label cannot be made' in findings[1].message


def test_command(kitti_copy, create_data_main, capsys):
    assert create_data_main(['sscbench-kitti360', '--data-root', str(kitti_copy), '--splits', 'val', '--check']) == 1
    out = capsys.readouterr().out
    # the benchmark's own grid is expected, and labels are not made yet
    assert 'label-missing: 3 (see docs/datasets.md#sscbench-kitti-360)' in out or 'label-missing: 3' in out
    assert 'raw-label-damaged: 6' in out and 'frame-count: 1' in out
    assert create_data_main(['sscbench-kitti360', '--data-root', str(kitti_copy), '--splits', 'val', '--workers', '1']) == 2
    assert 'has 512 bytes instead of the 4194304' in capsys.readouterr().err
