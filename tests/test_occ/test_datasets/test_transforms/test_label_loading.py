import numpy as np
import pytest

from projects.occ.datasets import LoadOccLabels
from projects.occ.structures import VoxelGrid

SHAPE = (8, 8, 2)


def _results(formats, path, benchmark):
    return dict(token='t0', occ_path=str(path), grid=VoxelGrid.build(formats.tiny_grid(benchmark)))


def _save_occ3d(path, **change):
    arrays = dict(
        semantics=np.full(SHAPE, 17, np.uint8), mask_lidar=np.ones(SHAPE, np.uint8), mask_camera=np.zeros(SHAPE, np.uint8)
    )
    arrays.update(change)
    np.savez_compressed(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_missing_label(formats, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"label of frame t0: '.*labels\.npz' does not exist.*data_prefix\['occ'\].*docs/datasets"
    ):
        LoadOccLabels()(_results(formats, tmp_path / 'labels.npz', 'occ3d'))
    with pytest.raises(FileNotFoundError, match='neither scene_name nor occ_path'):
        LoadOccLabels()(dict(_results(formats, '', 'occ3d')))


@pytest.mark.parametrize('suffix', ['npz', 'npy'])
@pytest.mark.parametrize('share', [0.0, 0.2, 0.6, 0.95])
def test_truncated_label(formats, tmp_path, suffix, share):
    path = tmp_path / f'labels.{suffix}'
    if suffix == 'npz':
        _save_occ3d(path, semantics=np.random.default_rng(0).integers(0, 18, SHAPE).astype(np.uint8))
    else:
        np.save(path, np.ones((50, 4), np.int64))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match=r"label of frame t0: '.*' \(\d+ bytes\) is damaged or cut short"):
        LoadOccLabels()(_results(formats, path, 'occ3d' if suffix == 'npz' else 'surroundocc'))


def test_label_that_would_need_unpickling_is_refused(formats, tmp_path):
    np.save(tmp_path / 'x.npy', np.array([{'a': 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match='damaged or cut short'):
        LoadOccLabels()(_results(formats, tmp_path / 'x.npy', 'surroundocc'))


@pytest.mark.parametrize(
    ('change', 'text'),
    [
        (dict(semantics=np.zeros((8, 8, 3), np.uint8)), r'expected a label volume of shape \(8, 8, 2\).*got \(8, 8, 3\)'),
        (dict(semantics=np.full(SHAPE, 18, np.uint8)), r'class id 18 is outside 0\.\.17 and is not ignore_index 255'),
        (dict(semantics=np.zeros(SHAPE, np.float32)), 'expected integer class ids in semantics, found float32'),
        (
            dict(mask_camera=None),
            r"expected the arrays \['semantics', 'mask_lidar', 'mask_camera'\].*found \['mask_lidar', 'semantics'\]",
        ),
        (
            dict(mask_lidar=np.ones((8, 8), np.uint8)),
            r'expected mask_lidar of shape \(8, 8, 2\) \(grid\.shape\), found \(8, 8\)',
        ),
    ],
)
def test_occ3d_label_that_does_not_fit(formats, tmp_path, change, text):
    path = _save_occ3d(tmp_path / 'labels.npz', **change)
    with pytest.raises(ValueError, match=text):
        LoadOccLabels()(_results(formats, path, 'occ3d'))


@pytest.mark.parametrize(
    ('rows', 'text'),
    [
        (np.zeros((3, 5), np.int64), r'expected integers \(K, 4\).*found int64 \(3, 5\)'),
        (np.zeros((3, 4), np.float32), r'found float32 \(3, 4\)'),
        (np.array([[0, 8, 0, 1]]), r'voxel index \(0, 8, 0\) is outside grid\.shape \(8, 8, 2\)'),
        (np.array([[0, 0, -1, 1]]), r'voxel index \(0, 0, -1\) is outside'),
        (np.array([[0, 0, 0, 17]]), r'class id 17 is outside 0\.\.16'),
    ],
)
def test_surroundocc_label_that_does_not_fit(formats, tmp_path, rows, text):
    np.save(tmp_path / 'x.npy', rows)
    with pytest.raises(ValueError, match=text):
        LoadOccLabels()(_results(formats, tmp_path / 'x.npy', 'surroundocc'))


def test_occ3d_masks_are_bool_and_255_is_kept(formats, tmp_path):
    semantics = np.full(SHAPE, 17, np.uint8)
    semantics[0, 0, 0] = 255
    results = LoadOccLabels()(_results(formats, _save_occ3d(tmp_path / 'labels.npz', semantics=semantics), 'occ3d'))
    assert results['gt_occ'].dtype == np.uint8 and results['gt_occ'][0, 0, 0] == 255
    assert results['mask_lidar'].dtype == bool and results['mask_lidar'].all() and not results['mask_camera'].any()
    # a uint8 mask would have picked rows 0 and 1 instead
    assert results['gt_occ'][results['mask_lidar']].shape == (128,)


def test_surroundocc_noise_is_ignored_and_the_rest_empty(formats, tmp_path):
    np.save(tmp_path / 'x.npy', np.array([[1, 2, 0, 0], [3, 4, 1, 16]], np.int64))
    labels = LoadOccLabels()(_results(formats, tmp_path / 'x.npy', 'surroundocc'))['gt_occ']
    assert labels[1, 2, 0] == 255 and labels[3, 4, 1] == 16 and (labels == 0).sum() == 126


def test_empty_surroundocc_label(formats, tmp_path):
    np.save(tmp_path / 'x.npy', np.zeros((0, 4), np.int64))
    assert not LoadOccLabels()(_results(formats, tmp_path / 'x.npy', 'surroundocc'))['gt_occ'].any()


def test_published_occ3d_label(shared_data):
    path = next((shared_data / 'occ3d_label').glob('*/labels.npz'))
    grid = VoxelGrid(
        (-40, -40, -1, 40, 40, 5.4), 0.4, (200, 200, 16), 'ego', 17, class_names=tuple(f'c{i}' for i in range(17)) + ('free',)
    )
    results = LoadOccLabels()(dict(token='t', occ_path=str(path), grid=grid))
    labels, camera, lidar = results['gt_occ'], results['mask_camera'], results['mask_lidar']
    assert (int(camera.sum()), int(lidar.sum())) == (43355, 56601)
    assert int((labels != 17).sum()) == 39092 and int((labels[camera] != 17).sum()) == 22864
    assert not (camera & ~lidar).any()
    road = np.argwhere(labels == 11)
    assert len(road) == 8433 and (road[:, 2] == 0).all()
