"""Loss terms of measured depths and classes, and regularisers of rendered rays, by name (see ``losses.Term``)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from projects.occ.structures import OccField

from .losses import READS, REGULARIZERS, TAKES, VIEW_ERRORS, shares
from .ray_losses import EPSILON, last_entropy, log_class_weights, silog
from .rendered import Rendered


def silog_views(
    pred: Tensor, value: Tensor, mask: Tensor | None, lead: int, balance: float = 0.85, epsilon: float = EPSILON
) -> tuple[Tensor, Tensor]:
    """Scale-invariant logarithmic error of depths, view by view or, for rays, sample by sample.

    Args:
        pred: (B, V, h, w) or (B, R), metres.
        value: Like ``pred``, measured.
        mask: Bool, pixels that count, or None for all; a depth of 0 never counts.
        lead: 2 or 1.
        balance: 1 forgives any common factor, 0 none.
        epsilon: Added to rendered depths, metres; RenderOcc: 1e-7 of its radius.

    Returns:
        Values and validity, (B, V) or (B,).
    """
    valid = value > 0 if mask is None else mask & (value > 0)
    rows = [part.flatten(0, lead - 1).flatten(1) for part in (pred, value, valid)]
    values = torch.stack([silog(p, v, m, balance, epsilon=epsilon) for p, v, m in zip(*rows)])
    return values.view(pred.shape[:lead]), valid.flatten(lead).any(-1)


def cross_entropy_views(
    pred: Tensor,
    value: Tensor,
    mask: Tensor | None,
    lead: int,
    class_weights: Sequence[float] | None = None,
    class_counts: Sequence[float] | None = None,
    probabilities: bool = False,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of rendered logits against class maps or classes of rays.

    Args:
        pred: (B, V, h, w, C) or (B, R, C), rendered logits.
        value: Like ``pred`` without C, int64 class ids, anything where the mask is False.
        mask: Bool, pixels that count, or None for all.
        lead: 2 or 1.
        class_weights: C numbers; they also weigh the mean. A class of weight 0 does not count.
        class_counts: C numbers of voxels instead, see :func:`log_class_weights`.
        probabilities: What is rendered are probabilities, not logits.

    Returns:
        Values and validity, (B, V) or (B,); the mean over the views of a sample is that over all its pixels.

    Raises:
        ValueError: If the number of weights is not that of the logits, or both are given.
    """
    if class_counts is not None:
        if class_weights is not None:
            raise ValueError('give class_weights or class_counts, not both')
        class_weights = log_class_weights(class_counts).tolist()
    if class_weights is not None and len(class_weights) != pred.shape[-1]:
        raise ValueError(f'class_weights has {len(class_weights)} numbers for {pred.shape[-1]} rendered classes')
    weights = pred.new_ones(pred.shape[-1]) if class_weights is None else pred.new_tensor(class_weights)
    target = value if mask is None else value.masked_fill(~mask, 0)
    logs = pred.clamp(min=torch.finfo(pred.dtype).eps).log() if probabilities else F.log_softmax(pred, -1)
    each = -logs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    weight = weights[target] if mask is None else weights[target] * mask
    # where instead of a product: an infinite error outside the mask must not become NaN
    each = torch.where(weight > 0, each, 0.0) * weight
    sums, counts = each.flatten(lead).sum(-1), weight.flatten(lead).sum(-1)
    if lead == 1:
        return sums / counts.clamp(min=torch.finfo(sums.dtype).tiny), counts > 0
    return shares(sums, counts)


def _ray_means(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean over the rays or pixels of each sample, then over the samples; 0 where there are none."""
    values = values.flatten(1)
    if valid is None:
        return values.mean() if values.numel() else values.sum()
    valid = valid.flatten(1)
    return (torch.where(valid, values, 0.0).sum(1) / valid.sum(1).clamp(min=1)).mean()


def _last_entropy(rendered: Rendered, field: OccField, margin: float = 1e-6) -> Tensor:
    light = 1 - rendered.alpha if rendered.transmittance is None else rendered.transmittance
    return _ray_means(last_entropy(light, margin, reduce=False), rendered.valid)


def _distortion(rendered: Rendered, field: OccField) -> Tensor:
    return _ray_means(rendered.distortion, rendered.valid)


VIEW_ERRORS.update(silog=silog_views, cross_entropy=cross_entropy_views)
TAKES.update(silog=(('depth',), 'image'), cross_entropy=(('features',), 'class ids'))
REGULARIZERS.update(last_entropy=_last_entropy, distortion=_distortion)
READS.update(last_entropy='alpha', distortion='distortion')
