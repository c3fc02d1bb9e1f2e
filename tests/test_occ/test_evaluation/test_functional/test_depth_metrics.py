"""The seven depth numbers against the published formulas and the original implementation."""

import json

import numpy as np
import pytest
import torch

from projects.occ.evaluation.functional import DEPTH_METRICS, depth_at_pixels, depth_metrics, summarize_depth_metrics


@pytest.fixture(scope='module')
def formulas(golden_dir):
    arrays = np.load(golden_dir / 'rendering_supervision_small.npz')
    return {key.split('/')[1]: arrays[key] for key in arrays.files if key.startswith('depth/')}


def test_formula_case(formulas):
    gt, pred = formulas['gt'], formulas['pred']
    for scaled, name in ((False, 'final'), (True, 'final_median_scaled')):
        per_image = np.array([[depth_metrics(p, g, median_scaling=scaled) for p, g in zip(*pair)] for pair in zip(pred, gt)])
        per_camera, total = summarize_depth_metrics(per_image)
        np.testing.assert_allclose(total, formulas[name], rtol=1e-9)
        if not scaled:
            np.testing.assert_allclose(per_image, formulas['per_image'], rtol=1e-9)
            np.testing.assert_allclose(per_camera, formulas['per_camera'], rtol=1e-9)


def test_numbers_of_the_original(golden_dir):
    case = torch.load(golden_dir / 'gaussianocc_small.pt', weights_only=True)
    config = json.loads(case['config_json'])
    index, values = case['inputs']['depth_gt_index'].long(), case['inputs']['depth_gt_value']
    for camera in range(config['N']):
        rows = index[:, 0] == camera
        pixels = index[rows][:, (2, 1)]
        depths = depth_at_pixels(case['render']['depth'][camera, 0], (config['Wo'], config['Ho']), pixels)
        ours = depth_metrics(depths, values[rows], config['min_depth'], config['max_depth'])
        np.testing.assert_allclose(ours, case['depth_metrics'][camera], rtol=1e-4, atol=1e-4)


def test_equal_and_scaled_predictions():
    target = torch.linspace(1, 60, 50, dtype=torch.float64)
    np.testing.assert_allclose(depth_metrics(target, target), [0, 0, 0, 0, 1, 1, 1])
    wrong = dict(zip(DEPTH_METRICS, depth_metrics(1.3 * target, target)))
    assert wrong['a1'] == 0 and wrong['a2'] == 1 and abs(wrong['abs_rel'] - 0.3) < 1e-6
    np.testing.assert_allclose(depth_metrics(1.3 * target, target, median_scaling=True), [0, 0, 0, 0, 1, 1, 1], atol=1e-6)


def test_images_without_depth_are_left_out():
    nothing = depth_metrics(torch.ones(4), torch.tensor([0.0, 0.1, 80.0, 500.0], dtype=torch.float64))
    assert nothing.shape == (7,) and np.isnan(nothing).all()
    per_image = np.stack([[nothing, nothing], [np.ones(7), nothing]])
    per_camera, total = summarize_depth_metrics(per_image)
    assert (per_camera[0] == 1).all() and np.isnan(per_camera[1]).all() and (total == 1).all()


def test_shapes_must_agree():
    with pytest.raises(ValueError, match='shape'):
        depth_metrics(torch.ones(3), torch.ones(4))
