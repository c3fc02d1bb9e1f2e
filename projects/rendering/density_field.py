"""Fields of density and classes apart, for rendering along rays (RenderOcc, UniOcc)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from projects.occ.structures import OccField, OccPrediction, VoxelGrid, free_background
from projects.occ.structures.density import density_opacity

from .fields import ABSENT_LOGIT, check_shape, compute_dtype

SOURCES = ('density', 'logits')
FEATURES = ('logits', 'probabilities')
FORMS = ('dvgo', 'nerf')


class DensityField(nn.Module):
    """Opacity from a density, features from the scores of the occupied classes.

    The density comes from a head that predicts one (``density``), whose value a marcher reads by its own rule; or it follows
    from class logits (``logits``): opacity is the probability of not being free. So every host can be trained by rays without a
    new head.

    Args:
        grid: Voxel grid or the dict that describes it.
        source: ``'density'`` or ``'logits'``.
        features: ``'logits'``: class scores that are blended before the softmax, as RenderOcc does; the free class has a score
            that no class is below, in voxels and behind them. ``'probabilities'``: blended after the softmax over the occupied
            classes, with the free class as background, to be compared with images of labels.
        form: What a predicted density means, the ``form`` of a :class:`MarchRenderer`: ``'dvgo'``, a raw value per voxel; or
            ``'nerf'``, per metre. The opacity for other renderers follows from it.

    Raises:
        ValueError: If an option is unknown.
    """

    def __init__(
        self, grid: VoxelGrid | Mapping[str, Any], source: str = 'density', features: str = 'logits', form: str = 'dvgo'
    ) -> None:
        super().__init__()
        self.grid = VoxelGrid.build(grid)
        for name, value, known in (('source', source, SOURCES), ('features', features, FEATURES), ('form', form, FORMS)):
            if value not in known:
                raise ValueError(f'field.{name} must be one of {known}, got {value!r}')
        self.source, self.features = source, features
        self.density_form = form if source == 'density' else None

    def forward(self, prediction: OccPrediction) -> OccField:
        """Turns a prediction into a field; gradients to density and logits.

        Raises:
            ValueError: If the logits have another shape than the grid, or there is no density.
        """
        logits, grid = prediction.logits[-1], self.grid
        check_shape(logits, grid)
        dtype = compute_dtype(logits)
        with torch.autocast(logits.device.type, enabled=False):
            logits, density = logits.to(dtype), None
            if self.source == 'logits':
                # 1 - p_free to full precision where free space is certain
                others = logits[:, list(grid.semantic_classes)].logsumexp(1)
                opacity = (others - logits[:, grid.free_index]).sigmoid()
            else:
                if prediction.density is None:
                    raise ValueError(
                        "field.source='density' needs a head that predicts a density (DensityHead, DensityOccHead); take "
                        "source='logits' for this one"
                    )
                density = prediction.density.to(dtype)
                if self.density_form == 'dvgo':
                    opacity = density_opacity(density)
                else:
                    opacity = -torch.expm1(-density.clamp(min=0) * min(grid.voxel_size))
            free = (torch.arange(grid.num_classes, device=logits.device) == grid.free_index).view(1, -1, 1, 1, 1)
            scores = logits.masked_fill(free, ABSENT_LOGIT)
            background = free_background(grid, logits.device, dtype)
            if self.features == 'logits':
                background = background * ABSENT_LOGIT
            else:
                scores = scores.softmax(1)
        return OccField(grid, opacity, scores, background, density=density)
