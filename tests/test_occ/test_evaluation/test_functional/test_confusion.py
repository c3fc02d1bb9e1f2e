"""Confusion matrix and summary: hand-counted grids, the parity case, every policy, every error."""

import numpy as np
import pytest
import torch

from projects.occ.evaluation.functional import ABSENT_POLICIES, summarize_confusion, voxel_confusion

GOLDEN_POLICY = {'one': 'one', 'exclude': 'nan_gt', 'exclude_union': 'nan_union', 'zero': 'zero'}
PARITY_GROUPS = ('occ3d.miou_masked', 'occ3d.miou_unmasked', 'surroundocc.miou', 'kitti360.miou', 'image_miou')


def hand_grids():
    """3x3x3 with classes 0 = free, 1, 2, 3; 255 = ignore."""
    gt = np.zeros((3, 3, 3), dtype=np.uint8)
    gt[0] = 1  # nine voxels of class 1
    gt[1, :, 0] = 2  # three voxels of class 2
    gt[2, 2, 2] = 255
    pred = np.zeros_like(gt)
    pred[0, :2] = 1  # six right, three missed
    pred[1, :, 0] = (2, 1, 0)  # one right, one wrong, one missed
    pred[2, 0, 0] = 2  # one too many
    pred[2, 2, 2] = 3  # not counted
    return pred, gt


def test_hand_counted_matrix():
    pred, gt = hand_grids()
    hist = voxel_confusion(pred, gt, 4)
    expected = np.zeros((4, 4), dtype=np.int64)
    expected[0, 0], expected[0, 2] = 13, 1
    expected[1, 1], expected[1, 0] = 6, 3
    expected[2, 2], expected[2, 1], expected[2, 0] = 1, 1, 1
    assert hist.dtype == np.int64
    np.testing.assert_array_equal(hist, expected)


def test_hand_counted_summary():
    result = summarize_confusion(voxel_confusion(*hand_grids(), 4), free_index=0)
    iou_1, iou_2 = 6 / (9 + 7 - 6), 1 / (3 + 2 - 1)
    assert result['mIoU'] == pytest.approx((iou_1 + iou_2) / 2, abs=1e-15)
    assert result['num_averaged'] == 2
    # occupied: 12 true, 9 predicted, 8 of them right
    assert result['IoU'] == pytest.approx(8 / 13, abs=1e-15)
    assert result['precision'] == pytest.approx(8 / 9, abs=1e-15)
    assert result['recall'] == pytest.approx(8 / 12, abs=1e-15)
    np.testing.assert_allclose(result['per_class'], [13 / 18, iou_1, iou_2, np.nan], atol=1e-15)
    assert result['mIoU_with_free'] == pytest.approx((13 / 18 + iou_1 + iou_2) / 3, abs=1e-15)


@pytest.mark.parametrize('mask_dtype', [bool, np.uint8, np.int64])
def test_mask_counts_only_masked_voxels(mask_dtype):
    pred, gt = hand_grids()
    mask = np.zeros((3, 3, 3), dtype=mask_dtype)
    mask[0] = 1
    hist = voxel_confusion(pred, gt, 4, mask=mask)
    assert hist.sum() == 9 and hist[1, 1] == 6 and hist[1, 0] == 3


def test_ignore_index_none_counts_everything():
    gt = np.array([0, 1, 1])
    assert voxel_confusion(gt, gt, 2, ignore_index=None).sum() == 3
    assert voxel_confusion(gt, gt, 2, ignore_index=1).sum() == 1


def test_tensor_in_tensor_out_and_any_integer_dtype():
    pred, gt = hand_grids()
    expected = voxel_confusion(pred, gt, 4)
    for dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
        hist = voxel_confusion(torch.from_numpy(pred).to(dtype), torch.from_numpy(gt).to(dtype), 4)
        assert isinstance(hist, torch.Tensor) and hist.dtype == torch.int64
        np.testing.assert_array_equal(hist.numpy(), expected)
    assert isinstance(voxel_confusion(pred.astype(np.uint16), torch.from_numpy(gt), 4), np.ndarray)


def test_batches_add_up():
    rng = np.random.default_rng(3)
    pred, gt = rng.integers(0, 18, (2, 5, 8, 7, 3)).astype(np.uint8)
    mask = rng.random(gt.shape) < 0.5
    whole = voxel_confusion(pred, gt, 18, mask)
    parts = sum(voxel_confusion(p, g, 18, m) for p, g, m in zip(pred, gt, mask))
    np.testing.assert_array_equal(whole, parts)
    permuted = sum(voxel_confusion(pred[i], gt[i], 18, mask[i]) for i in rng.permutation(5))
    np.testing.assert_array_equal(whole, permuted)


def test_non_contiguous_and_read_only_input():
    pred, gt = hand_grids()
    expected = voxel_confusion(pred, gt, 4)
    gt.flags.writeable = False
    np.testing.assert_array_equal(voxel_confusion(pred[::-1, ::-1], gt[::-1, ::-1], 4), expected)


@pytest.mark.parametrize(
    ('absent', 'class_2', 'class_3', 'averaged'),
    [('exclude', np.nan, np.nan, 1), ('exclude_union', 0.0, np.nan, 2), ('one', 1.0, 1.0, 3), ('zero', 0.0, 0.0, 3)],
)
def test_policies_for_absent_classes(absent, class_2, class_3, averaged):
    """Class 2 is never true but predicted, class 3 neither."""
    hist = np.zeros((4, 4), dtype=np.int64)
    hist[0, 0], hist[0, 2], hist[1, 1], hist[1, 0] = 10, 2, 3, 1
    result = summarize_confusion(hist, free_index=0, absent=absent)
    eps = 1e-6 if absent == 'zero' else 0  # this policy follows a code base that adds it to the denominator
    class_1 = 3 / (4 + eps)
    np.testing.assert_allclose(result['per_class'], [10 / (13 + eps), class_1, class_2, class_3], rtol=0, atol=1e-15)
    assert result['num_averaged'] == averaged
    assert result['mIoU'] == pytest.approx(np.nanmean([class_1, class_2, class_3]), abs=1e-15)


@pytest.mark.parametrize(('absent', 'expected'), [('exclude', np.nan), ('exclude_union', np.nan), ('one', 1.0), ('zero', 0.0)])
def test_nothing_occupied(absent, expected):
    hist = np.zeros((3, 3), dtype=np.int64)
    hist[2, 2] = 7
    result = summarize_confusion(hist, free_index=2, absent=absent)
    for key in ('IoU', 'mIoU', 'recall'):
        np.testing.assert_equal(result[key], expected)
    assert result['precision'] == 0
    hist[2, 0] = 1
    assert summarize_confusion(hist, free_index=2, absent='exclude_union')['IoU'] == 0


def test_perfect_and_all_free():
    gt = np.arange(27).reshape(3, 3, 3) % 4
    perfect = summarize_confusion(voxel_confusion(gt, gt, 4), 3)
    assert perfect['mIoU'] == perfect['IoU'] == perfect['mIoU_with_free'] == perfect['precision'] == perfect['recall'] == 1
    empty = summarize_confusion(voxel_confusion(np.full_like(gt, 3), gt, 4), 3)
    assert empty['mIoU'] == empty['IoU'] == 0


def test_mean_with_free_identity():
    hist = np.random.default_rng(0).integers(1, 1000, (17, 17))
    result = summarize_confusion(hist, free_index=0)
    assert result['mIoU_with_free'] == pytest.approx((16 * result['mIoU'] + result['per_class'][0]) / 17, abs=1e-14)


@pytest.mark.parametrize(
    ('pred', 'gt', 'kwargs', 'error', 'message'),
    [
        (np.zeros(3, int), np.zeros(4, int), {}, ValueError, r'same shape, got pred \(3,\) and gt \(4,\)'),
        (np.array([0, 4]), np.array([0, 1]), {}, ValueError, r'pred holds class id 4, expected 0\.\.3'),
        (np.array([0, -1]), np.array([0, 1]), {}, ValueError, 'pred holds class id -1'),
        (np.array([0, 1]), np.array([0, 17]), {}, ValueError, r'gt holds class id 17, expected 0\.\.3 .*ignore_index=255'),
        (np.zeros(2), np.zeros(2, int), {}, TypeError, 'pred must hold integer class ids, got float64; take the argmax'),
        (torch.zeros(2), torch.zeros(2).long(), {}, TypeError, 'pred must hold integer class ids, got float32'),
        (np.zeros(2, int), np.zeros(2, int), dict(mask=np.ones(3, bool)), ValueError, r'mask must have the shape of gt \(2,\)'),
        (np.zeros(2, int), np.zeros(2, int), dict(mask=np.ones(2)), TypeError, 'mask must hold integer'),
    ],
)
def test_confusion_errors(pred, gt, kwargs, error, message):
    with pytest.raises(error, match=message):
        voxel_confusion(pred, gt, 4, **kwargs)


def test_ids_of_uncounted_cells_do_not_matter():
    gt, pred = np.array([255, 1, 9]), np.array([200, 1, 77])
    hist = voxel_confusion(pred, gt, 2, mask=np.array([1, 1, 0]))
    np.testing.assert_array_equal(hist, [[0, 0], [0, 1]])


@pytest.mark.parametrize(
    ('hist', 'free', 'absent', 'message'),
    [
        (np.zeros((2, 3), int), 0, 'one', r'square matrix .* got shape \(2, 3\)'),
        (np.zeros((3, 3), int), 3, 'one', r'free_index must lie in 0\.\.2, got 3'),
        (np.zeros((3, 3), int), 0, 'nan', "absent must be one of .*got 'nan'"),
    ],
)
def test_summary_errors(hist, free, absent, message):
    with pytest.raises(ValueError, match=message):
        summarize_confusion(hist, free, absent)


@pytest.fixture(scope='module')
def golden(golden_dir):
    with np.load(golden_dir / 'metrics_small.npz') as data:
        return dict(data)


def _golden_inputs(golden, group):
    if group.startswith('occ3d'):
        mask = golden['occ3d.mask_camera.0'] if group == 'occ3d.miou_masked' else None
        return golden['occ3d.pred.0'], golden['occ3d.gt.0'], mask, 18, 17
    if group == 'kitti360.miou':
        return golden['kitti360.pred.0'], golden['kitti360.gt.0'], None, 19, 0
    if group == 'image_miou':
        return golden['image.0.pred'], golden['image.0.gt'], None, 18, 17
    x, y, z, label = golden['surroundocc.sparse.0'].astype(np.int64).T
    gt = np.zeros(golden['surroundocc.pred.0'].shape, dtype=np.int64)
    gt[x, y, z] = np.where(label == 0, 255, label)
    return golden['surroundocc.pred.0'], gt, None, 17, 0


@pytest.mark.parametrize('as_tensor', [False, True])
@pytest.mark.parametrize('group', PARITY_GROUPS)
def test_parity_case(golden, group, as_tensor):
    pred, gt, mask, num_classes, free = _golden_inputs(golden, group)
    if as_tensor:
        pred, gt = torch.from_numpy(pred), torch.from_numpy(gt)
        mask = None if mask is None else torch.from_numpy(mask)
    hist = voxel_confusion(pred, gt, num_classes, mask)
    np.testing.assert_array_equal(np.asarray(hist), golden[f'{group}.hist'])
    for absent in ABSENT_POLICIES:
        result = summarize_confusion(hist, free, absent)
        stem = f'{group}.{GOLDEN_POLICY[absent]}'
        np.testing.assert_array_equal(result['per_class'], golden[f'{stem}.iou'])
        values = [result[key] for key in ('mIoU', 'mIoU_with_free', 'IoU', 'precision', 'recall')]
        np.testing.assert_allclose(values, golden[f'{stem}.summary'], rtol=0, atol=1e-15)
