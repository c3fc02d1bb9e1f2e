"""Terms of the field alone."""

import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from projects.rendering.regularizers import class_weights, opacity_entropy, total_variation


@pytest.fixture(scope='module')
def formulas(golden_dir):
    arrays = np.load(golden_dir / 'rendering_supervision_small.npz')
    return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


def test_formula_case(formulas):
    opacity = 1 - formulas['gsv/logits'][:, -1].sigmoid()
    assert_close(opacity, formulas['gsv/opacity'], rtol=1e-9, atol=0)
    assert_close(opacity_entropy(opacity), formulas['gsv/entropy_one_sided'], rtol=1e-9, atol=0)
    assert_close(total_variation(formulas['gsv/vox']), formulas['gsv/tv'], rtol=1e-9, atol=0)
    weights = class_weights(formulas['ce/gaussianocc_freq18'].tolist())
    assert_close(weights, formulas['ce/gaussianocc_weights18'], rtol=1e-9, atol=0)


def test_terms_of_the_original(golden_dir):
    case = torch.load(golden_dir / 'gaussianocc_small.pt', weights_only=True)
    parts = case['loss_parts']
    assert_close(opacity_entropy(case['taps']['opacity']), parts['opacity_entropy_unweighted'], rtol=1e-5, atol=0)
    assert_close(total_variation(case['taps']['logits_volume']), parts['tv_unweighted'], rtol=1e-5, atol=0)
    frequencies = json.loads(case['config_json'])['class_frequencies']
    assert_close(class_weights(frequencies).float(), case['class_weights'], rtol=1e-5, atol=1e-7)


def test_entropy_is_finite_and_small_at_both_ends():
    opacity = torch.tensor([0.0, 1.0], requires_grad=True)
    loss = opacity_entropy(opacity)
    loss.backward()
    assert abs(loss) < 1e-6 and opacity.grad.isfinite().all()


@pytest.mark.parametrize('frequencies', [[0, 0], [3, -1]])
def test_frequencies_that_cannot_be(frequencies):
    with pytest.raises(ValueError, match='frequencies'):
        class_weights(frequencies)
