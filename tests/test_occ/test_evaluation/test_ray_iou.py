"""Tests of ray casting and RayIoU: against the official outputs, and on scenes counted by hand."""

import numpy as np
import pytest
import torch

from projects.occ.evaluation.functional import (
    cast_rays,
    count_rays,
    lidar_origins,
    ray_directions,
    ray_iou,
    summarize_rays,
)
from projects.occ.structures import VoxelGrid
from projects.occ.structures.benchmark_classes import NUSCENES_CLASSES

OCC3D = VoxelGrid(
    (-40, -40, -1, 40, 40, 5.4), 0.4, (200, 200, 16), 'ego', 17, class_names=('others', *NUSCENES_CLASSES, 'free')
)
SMALL = VoxelGrid((-4, -4, -2, 4, 4, 2), 1.0, (8, 8, 4), 'ego', 2, class_names=('wall', 'floor', 'free'))


def rotation(q):
    w, x, y, z = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def poses(golden, name):
    out = np.tile(np.eye(4), (len(golden[f'occ3d.poses.{name}_rotation']), 1, 1))
    out[:, :3, :3] = [rotation(q) for q in golden[f'occ3d.poses.{name}_rotation']]
    out[:, :3, 3] = golden[f'occ3d.poses.{name}_translation']
    return out


@pytest.fixture(scope='module')
def golden(golden_dir):
    return np.load(golden_dir / 'metrics_small.npz')


def test_caster_matches_the_original(golden):
    depth, label, index = cast_rays(golden['cast0.grid'], golden['cast0.origin'], golden['cast0.end'], 17)
    np.testing.assert_allclose(depth, golden['cast0.depth'], atol=1e-4)
    assert np.array_equal(label, golden['cast0.label']) and np.array_equal(index, golden['cast0.index'])


def test_origins_match_the_original(golden):
    origins = lidar_origins(poses(golden, 'lidar2ego'), poses(golden, 'ego2global'), int(golden['occ3d.refs'][0]), OCC3D)
    np.testing.assert_allclose(origins, golden['occ3d.origins.0'], atol=1e-6)


def test_counts_and_ray_iou_match_the_original(golden):
    frame = golden['occ3d.pred.0'], golden['occ3d.gt.0'], golden['occ3d.origins.0']
    counts = count_rays(*frame, OCC3D)
    assert counts.gt.sum() == golden['occ3d.ray.rays_valid'][1]
    for key in ('tp', 'gt', 'pred'):
        np.testing.assert_array_equal(getattr(counts, key), golden[f'occ3d.ray.{key}'])
    result = ray_iou(*([item] for item in frame), OCC3D)
    summary = [result[key] for key in ('RayIoU', 'RayIoU@1', 'RayIoU@2', 'RayIoU@4')]
    np.testing.assert_allclose(summary, golden['occ3d.ray.summary'], rtol=1e-12)
    np.testing.assert_allclose(result['per_class'][:, :17], golden['occ3d.ray.iou'], rtol=1e-12)


def test_directions():
    directions = ray_directions()
    assert directions.shape == (14040, 3) and directions.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(directions[0], [np.sqrt(0.5), 0, -np.sqrt(0.5)], atol=1e-6)
    assert np.rad2deg(np.arcsin(directions[-1, 2])) == pytest.approx(12.548, abs=1e-3)


def test_a_ray_by_hand():
    labels = np.full((5, 3, 3), 9, np.uint8)
    labels[3, 1, 1] = 4
    depth, label, cell = cast_rays(labels, [[0.5, 1.5, 1.5]] * 3, [[1.5, 1.5, 1.5], [0.5, 2.5, 1.5], [-0.5, 1.5, 1.5]], 9)
    # far side of the occupied voxel; far side of the grid; near side of the grid
    np.testing.assert_allclose(depth, [3.5, 1.5, 0.5])
    assert label.tolist() == [4, 9, 9] and cell.tolist() == [[3, 1, 1], [0, 2, 1], [0, 1, 1]]
    depth, label, cell = cast_rays(labels, [[-9.5, 1.5, 1.5]], [[-9.5, 2.5, 1.5]], 9)
    assert depth.tolist() == [-1] and cell.tolist() == [[0, 0, 0]]


def room():
    labels = np.full(SMALL.shape, 2, np.uint8)
    labels[[0, -1]] = 0
    labels[:, [0, -1]] = 0
    labels[:, :, 0] = 1
    return labels


def test_perfect_and_empty_predictions():
    gt, origins = room(), np.array([[0.1, 0.2, 0.3], [1.1, -1.2, 0.4]])
    perfect = ray_iou([gt], [gt], [origins], SMALL)
    assert {k: v for k, v in perfect.items() if k != 'per_class'} == {
        k: 1.0 for k in ('RayIoU', 'RayIoU@1', 'RayIoU@2', 'RayIoU@4')
    }
    empty = ray_iou([np.full_like(gt, 2)], [gt], [origins], SMALL)
    assert empty['RayIoU'] == 0


def test_a_displaced_wall_counts_from_its_threshold_on():
    gt = np.full(SMALL.shape, 2, np.uint8)
    gt[6] = 0
    pred = np.full(SMALL.shape, 2, np.uint8)
    pred[7] = 0
    counts = count_rays(pred, gt, np.array([[0.01, 0.02, 0.5]]), SMALL, thresholds=(0.5, 8))
    # rays that leave both walls sideways near the common corner are close; straight ones differ by a voxel and more
    assert counts.tp[0, 0] < counts.tp[1, 0] <= counts.gt[0]
    result = summarize_rays(counts, SMALL, (0.5, 8))
    assert result['RayIoU@0.5'] < result['RayIoU@8'] and np.isnan(result['per_class'][:, 1:]).all()


def test_frames_are_pooled_and_hidden_voxels_do_not_matter():
    gt, origins = room(), np.array([[0.1, 0.2, 0.3]])
    pred = room()
    pred[3:, :, 1] = 0
    one, other = count_rays(pred, gt, origins, SMALL), count_rays(gt, gt, origins, SMALL)
    both = ray_iou([pred, gt], [gt, gt], [origins, origins], SMALL)
    assert both['RayIoU'] == summarize_rays(one + other, SMALL)['RayIoU'] < 1
    thick = gt.copy()
    thick[:, :, 0] = 1
    thick[0], thick[-1] = 0, 0
    assert np.array_equal(count_rays(thick, gt, origins, SMALL).tp[2], other.tp[2])


@pytest.mark.parametrize(
    'change, text',
    [
        (dict(pred=np.zeros((2, 2, 2), np.uint8)), 'pred must have the grid shape'),
        (dict(gt=np.full(SMALL.shape, 7, np.uint8)), 'class id 7 is outside'),
        (dict(origins=np.zeros((1, 2))), r'origins must be finite and \(T, 3\)'),
        (dict(origins=np.full((1, 3), np.nan)), 'origins must be finite'),
        (dict(pred=room().astype(np.float32)), 'pred must hold integer class ids, got float32; take the argmax'),
        (dict(gt=torch.from_numpy(room()) + 0.5), 'gt must hold integer class ids, got torch.float32'),
    ],
)
def test_bad_input(change, text):
    kwargs = dict(pred=room(), gt=room(), origins=np.zeros((1, 3)), grid=SMALL) | change
    with pytest.raises((ValueError, TypeError), match=text):
        count_rays(**kwargs)


def test_numbers_of_frames():
    with pytest.raises(ValueError, match='no frame'):
        ray_iou([], [], [], SMALL)
    with pytest.raises(ValueError, match='must have one entry per frame, but preds and origins have only 1'):
        ray_iou([room()], [room(), room()], [np.zeros((1, 3))], SMALL)


class FarTensor(torch.Tensor):
    """Cannot become an array by itself, like a tensor on a GPU."""

    def __array__(self, *args, **kwargs):
        raise TypeError('not on this device')


def test_tensors_and_lists_are_taken_as_they_are():
    pred, gt, origins = room(), room(), np.array([[0.1, 0.2, 0.3]])
    pred[3:, :, 1] = 0
    expected = ray_iou([pred], [gt], [origins], SMALL)
    far = ([torch.from_numpy(item).as_subclass(FarTensor)] for item in (pred, gt, origins))
    for frames in (far, ([item.tolist()] for item in (pred, gt, origins))):
        result = ray_iou(*frames, SMALL)
        assert result['RayIoU'] == expected['RayIoU'] < 1


def test_no_origin_no_rays():
    counts = count_rays(room(), room(), np.zeros((0, 3)), SMALL)
    assert counts.gt.sum() == counts.pred.sum() == counts.tp.sum() == 0
