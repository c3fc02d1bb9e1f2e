"""Fields of density and classes apart."""

import pytest
import torch

from projects.occ.structures import OccPrediction, VoxelGrid
from projects.rendering import DensityField
from projects.rendering.fields import ABSENT_LOGIT


@pytest.fixture
def prediction(logits, feats):
    return OccPrediction([logits], density=10 + 5 * feats[:, 0])


def test_opacity_of_class_logits(grid, prediction):
    """Not being free, to full precision where free space is certain."""
    grid = VoxelGrid.build(grid)
    field = DensityField(grid, source='logits')(prediction)
    torch.testing.assert_close(field.opacity, 1 - prediction.logits[0].softmax(1)[:, grid.free_index])
    assert field.density is None
    certain = torch.zeros(1, 4, *grid.shape)
    certain[:, grid.free_index] = 30.0
    opacity = DensityField(grid, source='logits')(OccPrediction([certain])).opacity
    torch.testing.assert_close(opacity, torch.full_like(opacity, 3 * torch.tensor(-30.0).exp().item()))


def test_density_is_handed_on(grid, prediction):
    for form, opacity in (('dvgo', None), ('nerf', 1 - torch.exp(-prediction.density.clamp(min=0) * 0.5))):
        field = DensityField(grid, form=form)(prediction)
        assert field.density is prediction.density
        assert (field.opacity >= 0).all() and (field.opacity <= 1).all()
        if opacity is not None:
            torch.testing.assert_close(field.opacity, opacity)


def test_features(grid, prediction):
    scores = DensityField(grid)(prediction)
    assert (scores.features[:, 3] == ABSENT_LOGIT).all() and scores.background.tolist() == [0, 0, 0, ABSENT_LOGIT]
    torch.testing.assert_close(scores.features[:, :3], prediction.logits[0][:, :3], rtol=0, atol=0)
    shares = DensityField(grid, features='probabilities')(prediction)
    torch.testing.assert_close(shares.features[:, :3], prediction.logits[0][:, :3].softmax(1))
    assert (shares.features[:, 3] == 0).all() and shares.background.tolist() == [0, 0, 0, 1]


def test_what_cannot_be_meant(grid, logits):
    for name in ('source', 'features', 'form'):
        with pytest.raises(ValueError, match=f'field.{name}'):
            DensityField(grid, **{name: 'colour'})
    with pytest.raises(ValueError, match='predicts a density.*source='):
        DensityField(grid)(OccPrediction([logits]))
