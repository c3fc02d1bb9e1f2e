import numpy as np
import pytest

from projects.occ.datasets import LoadOccLabels, LoadSSCBenchLabels
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


def test_a_label_that_does_not_fit_names_the_frame(formats, tmp_path):
    path = _save_occ3d(tmp_path / 'labels.npz', semantics=np.full(SHAPE, 18, np.uint8), mask_camera=None)
    with pytest.raises(ValueError, match=r"label of frame t0: '.*labels\.npz'.*mask_camera.*\b18\b"):
        LoadOccLabels()(_results(formats, path, 'occ3d'))


def test_masks_are_chosen(formats, tmp_path):
    path = _save_occ3d(tmp_path / 'labels.npz', mask_lidar=None)
    results = LoadOccLabels(masks=['mask_camera'])(_results(formats, path, 'occ3d'))
    assert 'mask_camera' in results and 'mask_lidar' not in results
    with pytest.raises(ValueError, match='camera_mask'):
        LoadOccLabels(masks=['camera_mask'])


def test_converted_labels_of_sscbench(tmp_path):
    grid = VoxelGrid((0, 0, 0, 8, 8, 2), 1.0, SHAPE, 'lidar', 0, class_names=[f'c{i}' for i in range(19)])
    values = np.resize([0, 18, 255, 1], SHAPE)
    np.save(tmp_path / '000005_1_1.npy', values.astype(np.float32))
    results = LoadSSCBenchLabels()(dict(token='t', occ_path=str(tmp_path / '000005_1_1.npy'), grid=grid))
    assert np.array_equal(results['gt_occ'], values) and not {'mask_lidar', 'mask_camera'} & set(results)
    with pytest.raises(FileNotFoundError, match=r"label of frame t: '.*gone\.npy'.*data_prefix\['occ'\]"):
        LoadSSCBenchLabels()(dict(token='t', occ_path=str(tmp_path / 'gone.npy'), grid=grid))


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


def test_labels_of_ones_own_need_no_masks_and_keep_those_that_they_have(formats, tmp_path):
    path = _save_occ3d(tmp_path / 'own.npz', mask_lidar=None)
    own = dict(_results(formats, path, 'occ3d'), label_masks=None)
    loaded = LoadOccLabels()(dict(own))
    assert 'mask_camera' in loaded and 'mask_lidar' not in loaded
    with pytest.raises(ValueError, match='mask_lidar'):
        LoadOccLabels()(dict(own, label_masks=('mask_lidar', 'mask_camera')))
    loaded = LoadOccLabels()(dict(own, occ_path=str(_save_occ3d(tmp_path / 'none.npz', mask_lidar=None, mask_camera=None))))
    assert not {'mask_camera', 'mask_lidar'} & set(loaded)
