"""Loss terms that compare renderings with images, and regularisers of the field, by name (see ``losses.Term``)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from projects.occ.structures import OccField

from .losses import REGULARIZERS, TAKES, VIEW_ERRORS
from .photometric import Neighbour, reprojection_error, smoothness
from .regularizers import opacity_entropy, total_variation
from .rendered import Rendered
from .targets.images import IGNORE, ImageComparison


def _shares(sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Values (B, V) whose mean over a sample's views is the mean over all its pixels, and whether the sample has any."""
    total = counts.sum(1, keepdim=True)
    there = (total > 0).expand_as(sums)
    return sums / total.clamp(min=torch.finfo(sums.dtype).tiny) * there * sums.shape[1], there


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
    return _shares(error.flatten(1).sum(1).view(views), counted.flatten(1).sum(1).view(views))


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


def cross_entropy_views(
    pred: Tensor,
    value: Tensor,
    mask: Tensor | None,
    lead: int,
    class_weights: Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of rendered logits against class maps.

    Args:
        pred: (B, V, h, w, C), rendered logits.
        value: (B, V, h, w) int64 class ids, -1 where there is none.
        mask: (B, V, h, w) bool, pixels that count.
        lead: 2.
        class_weights: C numbers; they also weigh the mean. A class of weight 0 does not count.

    Returns:
        Values and validity, (B, V) each.

    Raises:
        ValueError: If the number of weights is not that of the logits.
    """
    if class_weights is not None and len(class_weights) != pred.shape[-1]:
        raise ValueError(f'class_weights has {len(class_weights)} numbers for {pred.shape[-1]} rendered classes')
    weights = pred.new_ones(pred.shape[-1]) if class_weights is None else pred.new_tensor(class_weights)
    target = value if mask is None else value.masked_fill(~mask, IGNORE)
    each = F.cross_entropy(pred.flatten(0, 3), target.flatten(), weights, ignore_index=IGNORE, reduction='none')
    weight = weights[target.clamp(min=0)] * (target != IGNORE)
    return _shares(each.view(target.shape).flatten(2).sum(2), weight.flatten(2).sum(2))


def _opacity_entropy(rendered: Rendered, field: OccField) -> Tensor:
    return opacity_entropy(field.opacity)


def _total_variation(rendered: Rendered, field: OccField) -> Tensor:
    return total_variation(field.features)


VIEW_ERRORS.update(photometric=photometric_views, smooth=smooth_views, cross_entropy=cross_entropy_views)
TAKES.update(
    photometric=(('depth',), 'comparison'), smooth=(('depth',), 'comparison'), cross_entropy=(('features',), 'class ids')
)
REGULARIZERS.update(opacity_entropy=_opacity_entropy, total_variation=_total_variation)
