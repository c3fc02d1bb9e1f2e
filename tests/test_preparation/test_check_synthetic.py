import json
import shutil

import pytest

from projects.occ.datasets.info_formats import read_info_file
from projects.occ.datasets.sscbench_kitti360_dataset import sequence_name
from projects.occ.structures.frame_record import surroundocc_label_path
from projects.preparation.check_synthetic import check_synthetic, read_marker


@pytest.fixture(scope='module')
def drives(tmp_path_factory, create_data_main):
    """One training scene and one for validation of one frame each, in the format of SSCBench-KITTI-360."""
    root = tmp_path_factory.mktemp('drives') / 'd'
    size = ('--scenes-train', '1', '--scenes-val', '1', '--frames', '1', '--image-size', '88x24')
    assert create_data_main(['synthetic', '--format', 'sscbench-kitti360', '--out', str(root), *size]) == 0
    return root


@pytest.fixture
def drives_copy(drives, tmp_path):
    return shutil.copytree(drives, tmp_path / 'copy')


def kinds(root):
    return [finding.kind for finding in check_synthetic(root)]


def test_generated_data_have_no_finding(raw_root, drives, create_data_main, capsys):
    for root in (raw_root, drives):
        assert create_data_main(['synthetic', '--out', str(root), '--check', '--workers', '1']) == 0
        assert capsys.readouterr().out == ''


def test_missing_files_are_found_once(root_copy, create_data_main, capsys):
    record = read_info_file(str(root_copy / 'occ_infos_train.pkl')).records[0]
    (root_copy / 'nuscenes' / record.cameras['CAM_BACK'].img_path).unlink()
    (root_copy / 'surroundocc_nuscenes' / 'samples' / surroundocc_label_path(record)).unlink()
    assert kinds(root_copy) == ['image-missing', 'label-missing']
    (root_copy / 'occ_infos_val.pkl').unlink()
    report = root_copy / 'report.json'
    assert create_data_main(['synthetic', '--out', str(root_copy), '--check', '--report', str(report), '--workers', '1']) == 1
    assert 'annotation-missing: 1 (see docs/datasets.md#annotation-files)' in capsys.readouterr().out
    assert len(json.loads(report.read_text())) == 3


def test_a_missing_drive_and_depth_are_found(drives_copy):
    shutil.rmtree(drives_copy / 'depth')
    shutil.rmtree(drives_copy / 'data_2d_raw' / sequence_name(4))
    assert kinds(drives_copy) == ['frame-count', 'depth-missing']


def test_folders_without_a_complete_data_set(tmp_path, create_data_main, capsys):
    assert read_marker(tmp_path) is None
    command = ['synthetic', '--out', str(tmp_path), '--check']
    assert create_data_main(command) == 2
    assert "synthetic.json' does not exist; give --out the folder of a generated data set" in capsys.readouterr().err
    marker = tmp_path / 'synthetic.json'
    marker.write_text(json.dumps({'complete': False, 'config': {'grids': {}}}))
    assert create_data_main(command) == 2
    assert 'is not complete: its generation was interrupted; run it again without --check' in capsys.readouterr().err
    for text in ('{"complete": tr', '[]', '{"config": {"grids": {"occ3d": {}}}}'):
        marker.write_text(text)
        for arguments in (command, ['occ3d', '--data-root', str(tmp_path), '--check']):
            assert create_data_main(arguments) == 2
            error = capsys.readouterr().err
            assert f"'{marker}' is damaged (" in error and error.count('\n') == 1


def test_labels_are_made_again_in_their_own_grid(drives_copy, create_data_main):
    labels = sorted((drives_copy / 'preprocess').rglob('*.npy'))
    before = [path.read_bytes() for path in labels]
    shutil.rmtree(drives_copy / 'preprocess')
    command = ['sscbench-kitti360', '--data-root', str(drives_copy), '--splits', 'train', 'val', '--workers', '1']
    assert create_data_main(command) == 0
    assert len(before) == 2 and [path.read_bytes() for path in labels] == before
