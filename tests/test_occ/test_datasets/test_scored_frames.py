"""How label files without a data set around them are found and named."""

import pytest

from projects.occ.datasets.scored_frames import any_frames, layout_frames
from projects.occ.structures.benchmarks import get_benchmark


def lay(folder, *files):
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()


def found(folder, benchmark):
    frames = layout_frames(folder, get_benchmark(benchmark).label_files)
    return [(f.token, f.scene, str(f.label).removeprefix(f'{folder}/'), f.names) for f in frames]


def test_occ3d_with_and_without_scenes(tmp_path):
    lay(tmp_path, 'gts/scene-1/b/labels.npz', 'gts/scene-1/a/labels.npz', 'gts/scene-1/a/other.npz', 'labels.npz')
    expected = [(t, 'scene-1', f'gts/scene-1/{t}/labels.npz', (t, f'scene-1/{t}')) for t in 'ab']
    assert found(tmp_path, 'occ3d') == expected
    one_scene = [(t, '', f'{t}/labels.npz', (t, f'/{t}')) for t in 'ab']
    assert found(tmp_path / 'gts' / 'scene-1', 'occ3d') == one_scene


def test_surroundocc_by_the_name_of_the_lidar_file(tmp_path):
    lay(tmp_path, 'samples/n1__LIDAR_TOP__2.pcd.bin.npy', 'samples/n1__LIDAR_TOP__1.pcd.bin.npy', 'samples/x.npz')
    assert [(token, scene) for token, scene, *_ in found(tmp_path, 'surroundocc')] == [
        ('n1__LIDAR_TOP__1.pcd.bin', ''),
        ('n1__LIDAR_TOP__2.pcd.bin', ''),
    ]


@pytest.mark.parametrize('files', ['drive/{}_1_1.npy', 'sequences/drive/{}_1_1.npy', 'drive/voxels/{}.label'])
def test_sscbench_by_drive_and_number(tmp_path, monkeypatch, files):
    lay(tmp_path, files.format('000005'), files.format('000010'))
    for folder in (tmp_path, next(tmp_path.rglob('drive'))):
        monkeypatch.chdir(folder)
        for root in (folder, folder.relative_to(folder)):
            frames = layout_frames(root, get_benchmark('sscbench-kitti360').label_files)
            assert [(f.token, f.scene, f.names[-1]) for f in frames] == [
                ('drive_000005', 'drive', 'drive/000005'),
                ('drive_000010', 'drive', 'drive/000010'),
            ]


def test_grids_of_the_benchmark_come_before_raw_ones(tmp_path):
    lay(tmp_path, 'drive/000005_1_1.npy', 'drive/voxels/000005.label', 'drive/voxels/000010.label')
    assert [token for token, *_ in found(tmp_path, 'sscbench-kitti360')] == ['drive_000005']


def test_labels_of_ones_own(tmp_path):
    lay(tmp_path, 'a/labels.npz', 'b.npy', 'town/c.npz', 'readme.txt')
    assert [(f.token, f.scene, f.names[-1]) for f in any_frames(tmp_path)] == [
        ('a', '', 'a'),
        ('b', '', 'b'),
        ('c', 'town', 'town/c'),
    ]
