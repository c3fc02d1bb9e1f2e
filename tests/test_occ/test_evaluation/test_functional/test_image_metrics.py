import numpy as np
import pytest
import torch

from projects.occ.evaluation.functional import depth_errors, summarize_images, voxel_confusion


def test_match_the_original(golden_dir):
    with np.load(golden_dir / 'metrics_small.npz') as golden:
        image = {key: golden[f'image.0.{key}'] for key in ('gt', 'pred', 'gt_depth', 'pred_depth')}
        hist = voxel_confusion(image['pred'], image['gt'], 18, ignore_index=None)
        np.testing.assert_array_equal(hist, golden['image_miou.hist'])
        total, count = depth_errors(image['pred_depth'], image['gt_depth'])
        mean, compatible, expected_count = golden['image_depth_l1']
        assert count == expected_count
        for name, absent in (('one', 'one'), ('nan_gt', 'exclude'), ('nan_union', 'exclude_union'), ('zero', 'zero')):
            result = summarize_images(hist, None, total, count, 17, absent)
            iou, (miou, _, geometric, *_) = golden[f'image_miou.{name}.iou'], golden[f'image_miou.{name}.summary']
            np.testing.assert_allclose(result['img_per_class'], iou, rtol=1e-6)
            assert result['img_mIoU'] == pytest.approx(miou, rel=1e-6)
            assert result['img_IoU'] == pytest.approx(geometric, rel=1e-6)
        assert result['depth_L1'] == pytest.approx(mean, rel=1e-6)
        # the original divides by one more
        assert total / (count + 1) == pytest.approx(compatible, rel=1e-6)
        assert 'bev_mIoU' not in result


def test_by_hand():
    gt = torch.tensor([[0.0, 0.1, 0.2], [3.0, 4.0, 50.0]])
    pred = torch.tensor([[9.0, 9.0, 1.2], [2.5, 4.0, 0.0]])
    assert depth_errors(pred, gt) == (pytest.approx(1.0 + 0.5 + 0 + 50), 4)
    assert depth_errors(pred.numpy(), gt.numpy(), min_depth=4.5) == (50.0, 1)
    camera = np.array([[3, 1], [2, 10]])
    result = summarize_images(camera, camera.T, 6.0, 4, free_index=1)
    assert result['img_mIoU'] == result['img_IoU'] == result['bev_IoU'] == 3 / 6
    assert result['depth_L1'] == 1.5
    assert np.isnan(summarize_images(camera, None, 0.0, 0, 1)['depth_L1'])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r'must have the same shape, got \(2, 3\) and \(3, 2\)'):
        depth_errors(np.zeros((2, 3)), np.zeros((3, 2)))
