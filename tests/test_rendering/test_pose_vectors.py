"""Motions from axis angle and translation."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from projects.rendering.pose_vectors import camera_motion, motion_matrix, rotation_from_axis_angle


@pytest.fixture(scope='module')
def formulas(golden_dir):
    arrays = np.load(golden_dir / 'rendering_supervision_small.npz')
    return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def test_formula_case(formulas):
    vector = formulas['pose/axisangle'], formulas['pose/translation']
    assert_close(motion_matrix(*vector), formulas['pose/T'], rtol=1e-9, atol=1e-12)
    assert_close(motion_matrix(*vector, invert=True), formulas['pose/T_invert'], rtol=1e-9, atol=1e-12)
    ref2cam = torch.linalg.inv(formulas['rays/cam2ego'])
    assert_close(camera_motion(motion_matrix(*vector), ref2cam), formulas['pose/cam_T_cam'], rtol=1e-9, atol=1e-9)


def test_motions_of_the_original(golden_dir):
    case = torch.load(golden_dir / 'gaussianocc_small.pt', weights_only=True)
    ref2cam = torch.linalg.inv(case['inputs']['cam2ego'])
    for frame in (-1, 1):
        vector = (case['taps'][name][frame][0, 0, 0] for name in ('axisangle', 'translation'))
        ours = camera_motion(motion_matrix(*vector, invert=frame < 0), ref2cam)
        assert_close(ours, case['taps']['cam_T_cam'][frame], rtol=0, atol=1e-4)


def test_inverse_and_known_turn():
    vector = torch.tensor([0, 0, torch.pi / 2], dtype=torch.float64)
    turn = rotation_from_axis_angle(vector)
    assert_close(turn @ torch.tensor([1.0, 0, 0], dtype=torch.float64), torch.tensor([0.0, 1, 0]).double(), rtol=0, atol=1e-6)
    batch = torch.randn(4, 5, 3, dtype=torch.float64)
    shift = torch.randn(4, 5, 3, dtype=torch.float64)
    product = motion_matrix(batch, shift) @ motion_matrix(batch, shift, invert=True)
    assert_close(product, torch.eye(4, dtype=torch.float64).expand(4, 5, 4, 4), rtol=0, atol=1e-6)


def test_no_motion_is_the_identity_with_a_finite_gradient():
    axis_angle = torch.zeros(2, 3, requires_grad=True)
    matrix = motion_matrix(axis_angle, torch.zeros(2, 3))
    assert_close(matrix, torch.eye(4).expand(2, 4, 4))
    matrix.sum().backward()
    assert axis_angle.grad.isfinite().all()


def test_gradients_in_double_precision():
    torch.manual_seed(2)
    vector = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    shift = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, t: motion_matrix(a, t, invert=True), (vector, shift))
