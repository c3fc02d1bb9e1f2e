import numpy as np
import pytest
from rays_of_streets import dataset_of

from projects.occ.datasets import LoadMultiViewImages
from projects.occ.datasets.transforms import LoadLidarRays
from projects.preparation.lidar_rays import check_lidar_rays


@pytest.fixture
def ann_file(root_copy):
    return root_copy / 'occ_infos_train.pkl'


def test_written_files_give_the_rays_of_the_sweeps(root_copy, ann_file, tmp_path, create_data_main, capsys):
    out = tmp_path / 'rays'
    arguments = ['lidar-rays', str(ann_file), '--nuscenes', str(root_copy / 'nuscenes'), '--out', str(out), '--workers', '2']
    assert create_data_main(arguments) == 0 and 'LiDAR rays of 24 images' in capsys.readouterr().out
    assert create_data_main([*arguments, '--check']) == 0 and capsys.readouterr().out == ''
    dataset = dataset_of(root_copy, 'occ3d', lidar_frames=(0, 1))
    folders = dict(depth=str(out / 'depth_gt'), classes=str(out / 'seg_gt_lidarseg'))
    loaded = []
    for settings in (dict(), dict(ray_files=folders)):
        info = LoadMultiViewImages()(dataset.get_data_info(0))
        np.random.seed(0)  # noqa: NPY002
        loaded.append(LoadLidarRays(num_rays=2000, **settings)(info)['rays'])
    assert len(loaded[0]['depth']) == 2000
    for key, values in loaded[0].items():
        # pixels of the files are float32
        np.testing.assert_allclose(loaded[1][key], values, atol=2e-4, rtol=1e-5)
    depth_alone = LoadLidarRays(num_rays=2000, ray_files=dict(depth=folders['depth']))(
        LoadMultiViewImages()(dataset.get_data_info(0))
    )['rays']
    assert (depth_alone['labels'] == 255).all()


def test_an_interrupted_run_goes_on(root_copy, ann_file, tmp_path, create_data_main, capsys):
    out = tmp_path / 'rays'
    arguments = ['lidar-rays', str(ann_file), '--nuscenes', str(root_copy / 'nuscenes'), '--out', str(out), '--workers', '1']
    assert create_data_main(arguments) == 0
    paths = sorted((out / 'seg_gt_lidarseg').iterdir())
    before = [path.read_bytes() for path in paths]
    written = [path.stat().st_mtime_ns for path in paths]
    paths[3].unlink()
    assert create_data_main(arguments) == 0 and [path.read_bytes() for path in paths] == before
    again = [path.stat().st_mtime_ns for path in paths]
    assert [a == b for a, b in zip(written, again)] == [index != 3 for index in range(len(paths))]
    assert create_data_main([*arguments, '--overwrite']) == 0 and paths[0].stat().st_mtime_ns > written[0]


def test_check_finds_damage(root_copy, ann_file, tmp_path, create_data_main):
    out = tmp_path / 'rays'
    nuscenes = root_copy / 'nuscenes'
    assert {finding.kind for finding in check_lidar_rays([ann_file], nuscenes, out)} == {'rays-missing'}
    assert (
        create_data_main(['lidar-rays', str(ann_file), '--nuscenes', str(nuscenes), '--out', str(out), '--workers', '1']) == 0
    )
    paths = sorted((out / 'depth_gt').iterdir())
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-5])
    rows = np.fromfile(paths[2], '<f4').reshape(-1, 3)
    rows[:, 2] *= -1
    rows.tofile(paths[2])
    paths[3].write_bytes(paths[4].read_bytes())
    findings = {finding.path: finding.kind for finding in check_lidar_rays([ann_file], nuscenes, out)}
    assert findings == {str(paths[0]): 'rays-missing', **{str(path): 'rays-damaged' for path in paths[1:4]}}


def test_bad_input_is_one_sentence(root_copy, ann_file, tmp_path, create_data_main, capsys):
    arguments = ['lidar-rays', str(ann_file), '--nuscenes', str(root_copy / 'nuscenes'), '--out', str(tmp_path / 'rays')]
    sweep = next((root_copy / 'nuscenes' / 'samples' / 'LIDAR_TOP').iterdir())
    for path in (root_copy / 'nuscenes' / 'samples' / 'LIDAR_TOP').iterdir():
        path.unlink()
    assert create_data_main([*arguments, '--workers', '1']) == 2
    error = capsys.readouterr().err
    assert 'LiDAR sweep of frame' in error and error.count('\n') == 1 and sweep.suffix in error
