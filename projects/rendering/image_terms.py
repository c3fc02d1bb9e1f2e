"""Loss terms that compare renderings with images, and regularisers of the field, by name (see ``losses.Term``)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.occ.structures import OccField

from .losses import REGULARIZERS, TAKES, VIEW_ERRORS, shares
from .photometric import Neighbour, reprojection_error, smoothness
from .regularizers import opacity_entropy, total_variation
from .rendered import Rendered
from .targets.images import ImageComparison


def _at_image_size(depth: Tensor, value: ImageComparison, min_depth: float, max_depth: float) -> Tensor:
    """(B * V, 1, H, W)"""
    depth = depth.clamp(min_depth, max_depth).flatten(0, 1).unsqueeze(1)
    return F.interpolate(depth, value.image.shape[-2:], mode='bilinear', align_corners=False)


def photometric_views(
    pred: Tensor,
    value: ImageComparison,
    mask: Tensor | None,
    lead: int,
    min_depth: float = 0.1,
    max_depth: float = 80.0,
    automask: bool = True,
    mask_mode: str = 'exclude',
    half_pixel: bool = True,
    visible_only: bool = False,
    noise: float | Tensor = 1e-5,
) -> tuple[Tensor, Tensor]:
    """Neighbouring frames seen through the rendered depth, see :func:`photometric.reprojection_error` for the options.

    Args:
        pred: (B, V, h, w), rendered depth, metres; clamped to the two limits and enlarged.
        value: Of the same views.
        mask: Not needed, it is part of ``value``.
        lead: 2.

    Returns:
        Values and validity, (B, V) each.
    """
    depth = _at_image_size(pred, value, min_depth, max_depth)
    neighbours = [Neighbour(*(part.flatten(0, 1) for part in neighbour)) for neighbour in value.neighbours]
    use = None if value.mask is None else value.mask.flatten(0, 1)
    error, counted = reprojection_error(
        depth,
        value.image.flatten(0, 1),
        value.K.flatten(0, 1),
        neighbours,
        use,
        automask,
        mask_mode,
        half_pixel,
        visible_only,
        noise,
    )
    error = error.where(counted, torch.zeros_like(error))
    views = pred.shape[:2]
    return shares(error.flatten(1).sum(1).view(views), counted.flatten(1).sum(1).view(views))


def smooth_views(
    pred: Tensor,
    value: ImageComparison,
    mask: Tensor | None,
    lead: int,
    min_depth: float = 0.1,
    max_depth: float = 80.0,
) -> tuple[Tensor, Tensor]:
    """Smoothness of the rendered inverse depth where the image is smooth; arguments as in :func:`photometric_views`."""
    depth = _at_image_size(pred, value, min_depth, max_depth)
    image = value.image.flatten(0, 1)
    values = torch.stack([smoothness(depth[i : i + 1], image[i : i + 1]) for i in range(len(depth))]).view(pred.shape[:2])
    return values, torch.ones_like(values, dtype=torch.bool)


def _opacity_entropy(rendered: Rendered, field: OccField) -> Tensor:
    return opacity_entropy(field.opacity)


def _total_variation(rendered: Rendered, field: OccField, of: str = 'features') -> Tensor:
    """Of the features, or of one number per voxel: ``'opacity'`` or ``'density'``."""
    volume = getattr(field, of)
    if volume is None:
        raise ValueError(f'total_variation of {of!r}: the field has none; take a field with a density, or of=opacity')
    return total_variation(volume if volume.dim() == 5 else volume.unsqueeze(1))


VIEW_ERRORS.update(photometric=photometric_views, smooth=smooth_views)
TAKES.update(photometric=(('depth',), 'comparison'), smooth=(('depth',), 'comparison'))
REGULARIZERS.update(opacity_entropy=_opacity_entropy, total_variation=_total_variation)
