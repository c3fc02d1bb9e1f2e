"""Tests of the transform that projects voxels, and of its cache."""

import multiprocessing

import numpy as np
import pytest
import torch

from projects.occ.datasets import LoadVoxelProjections, PackOccInputs, ResizeCropFlipImages
from projects.occ.datasets.transforms import voxel_projections
from projects.occ.structures import VoxelGrid, frustum_indices, project_voxel_centres

FORWARD = np.array([[0.0, -1, 0, 0.1], [0, 0, -1, -0.2], [1, 0, 0, 0.3], [0, 0, 0, 1]])
CAM2IMG = np.array([[10.0, 0, 13], [0, 10, 8], [0, 0, 1]])
GRID = VoxelGrid((0, -4, -2, 8, 4, 2), 1, (8, 8, 4), 'lidar', 0, class_names=('free', 'car'))


def frame(views=1, **change):
    ref2img = FORWARD.copy()
    ref2img[:3] = CAM2IMG @ FORWARD[:3]
    results = dict(
        token='t0',
        cam_names=['a', 'b'][:views],
        frame=np.zeros(views, dtype=np.int64),
        img=[np.zeros((16, 24, 3), np.uint8)] * views,
        ref2img=np.stack([ref2img] * views),
        ref2cam=np.stack([FORWARD] * views),
        cam2img=np.stack([CAM2IMG] * views),
        img_wh=np.array([[24.0, 16.0]] * views),
        ori_img_wh=np.array([[24.0, 16.0]] * views),
        lidar2ego=np.eye(4),
        ego2global=np.eye(4),
        grid=GRID,
        img_paths=['i.png'] * views,
        scene_name='s',
        frame_idx=0,
        lidar_path='',
    )
    results.update(change)
    return results


def count_projections(monkeypatch):
    calls = []
    real = voxel_projections._project
    monkeypatch.setattr(voxel_projections, '_project', lambda *args: calls.append(args) or real(*args))
    return calls


def test_tables_are_those_of_the_functions():
    results = LoadVoxelProjections(voxel_scale=2, frustums=4)(frame(views=2))
    expected = project_voxel_centres(GRID, FORWARD, CAM2IMG, (24, 16), 2)
    full = project_voxel_centres(GRID, FORWARD, CAM2IMG, (24, 16))
    assert results['voxel_pixels'].shape == (2, 4 * 4 * 2, 2)
    for view in range(2):
        assert np.array_equal(results['voxel_pixels'][view], expected.pixels)
        assert np.array_equal(results['voxel_visible'][view], expected.visible)
    assert np.array_equal(results['frustum_index'], frustum_indices(full, (24, 16), 4).reshape(8, 8, 4))
    assert expected.visible.any() and len(np.unique(results['frustum_index'])) > 5


def test_tables_are_packed():
    inputs = PackOccInputs()(LoadVoxelProjections()(frame()))['inputs']
    assert inputs['voxel_pixels'].dtype == torch.int64 and inputs['voxel_pixels'].shape == (1, 32, 2)
    assert inputs['voxel_visible'].dtype == torch.bool and inputs['voxel_visible'].shape == (1, 32)
    assert inputs['frustum_index'].dtype == torch.int16 and inputs['frustum_index'].shape == (8, 8, 4)
    assert inputs['frustums'] == 8
    inputs = PackOccInputs()(LoadVoxelProjections(frustums=None)(frame()))['inputs']
    assert 'frustum_index' not in inputs and 'frustums' not in inputs and 'voxel_visible' in inputs


def test_resized_images_move_the_pixels():
    results = ResizeCropFlipImages(final_wh=(12, 8), training=False)(frame())
    half = LoadVoxelProjections(voxel_scale=1)(results)
    scaled = np.diag([0.5, 0.5, 1.0]) @ CAM2IMG
    expected = project_voxel_centres(GRID, FORWARD, scaled, (12, 8))
    seen = expected.visible
    assert np.array_equal(half['voxel_visible'][0], seen) and seen.any()
    assert np.abs(half['voxel_pixels'][0][seen] - expected.pixels[seen]).max() == 0


def test_matrices_without_ego_motion_are_refused():
    results = frame()
    results['ref2img'] = results['ref2img'] @ np.array([[1, 0, 0, 0.5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    with pytest.raises(ValueError, match='ref2img is not intrinsics times ref2cam.*leave out ego motion'):
        LoadVoxelProjections()(results)


def test_a_scale_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match=r'divides grid.shape \(8, 8, 4\), got 3'):
        LoadVoxelProjections(voxel_scale=3)(frame())


def test_one_projection_per_calibration(monkeypatch):
    calls = count_projections(monkeypatch)
    transform = LoadVoxelProjections()
    keys = ('voxel_pixels', 'voxel_visible', 'frustum_index')
    expected = {key: transform(frame())[key].copy() for key in keys}
    for _ in range(2):
        results = transform(frame())
        for key in keys:
            assert np.array_equal(results[key], expected[key])
            results[key][:] = 0
    assert len(calls) == 1
    moved = FORWARD.copy()
    moved[0, 3] += 1e-6
    ref2img = moved.copy()
    ref2img[:3] = CAM2IMG @ moved[:3]
    transform(frame(ref2cam=moved[None], ref2img=ref2img[None]))
    transform(frame(img_wh=np.array([[24.0, 15.0]])))
    assert len(calls) == 3


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(voxel_projections, '_KEPT', 2)
    transform = LoadVoxelProjections()
    for height in (13.0, 14.0, 15.0, 16.0):
        transform(frame(img_wh=np.array([[24.0, height]])))
    assert len(transform._tables) == 2


def test_files_are_shared_and_repaired(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(voxel_projections, 'print_log', lambda message, **_: messages.append(message))
    calls = count_projections(monkeypatch)
    folder = tmp_path / 'made' / 'for' / 'it'
    first = LoadVoxelProjections(cache_dir=str(folder))(frame())
    (path,) = folder.iterdir()
    assert path.suffix == '.npz' and len(calls) == 1
    again = LoadVoxelProjections(cache_dir=str(folder))(frame())
    assert len(calls) == 1 and not messages
    for key in ('voxel_pixels', 'voxel_visible', 'frustum_index'):
        assert np.array_equal(first[key], again[key]) and first[key].dtype == again[key].dtype
    data = path.read_bytes()
    for broken in (data[:300], b'', b'not an archive'):
        path.write_bytes(broken)
        assert np.array_equal(LoadVoxelProjections(cache_dir=str(folder))(frame())['voxel_pixels'], first['voxel_pixels'])
        assert f'({len(broken)} bytes) is damaged' in messages[-1] and path.read_bytes() == data
    assert len(calls) == 4
    LoadVoxelProjections(voxel_scale=1, cache_dir=str(folder))(frame())
    LoadVoxelProjections(frustums=4, cache_dir=str(folder))(frame())
    assert len(list(folder.iterdir())) == 3


def test_files_with_other_tables_are_made_anew(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(voxel_projections, 'print_log', lambda message, **_: messages.append(message))
    first = LoadVoxelProjections(cache_dir=str(tmp_path))(frame())
    (path,) = tmp_path.iterdir()
    np.savez(path, pixels=np.zeros((3, 2), np.int64), visible=np.ones(3, bool))
    again = LoadVoxelProjections(cache_dir=str(tmp_path))(frame())
    assert np.array_equal(first['voxel_pixels'], again['voxel_pixels']) and len(messages) == 1


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(voxel_projections, 'print_log', lambda message, **_: messages.append(message))
    (tmp_path / 'file').write_text('')
    results = LoadVoxelProjections(cache_dir=str(tmp_path / 'file'))(frame())
    assert 'voxel_pixels' in results
    assert len(messages) == 1 and 'cannot be written' in messages[0] and 'LoadVoxelProjections.cache_dir' in messages[0]


def _work(folder, queue):
    queue.put(LoadVoxelProjections(cache_dir=folder)(frame())['voxel_visible'].sum())


def test_several_workers_may_start_at_once(tmp_path):
    context = multiprocessing.get_context('fork')
    queue = context.Queue()
    workers = [context.Process(target=_work, args=(str(tmp_path), queue)) for _ in range(4)]
    for worker in workers:
        worker.start()
    found = {queue.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join()
    assert found == {project_voxel_centres(GRID, FORWARD, CAM2IMG, (24, 16), 2).visible.sum()}
    assert len(list(tmp_path.iterdir())) == 1
