"""Losses between rendered predictions and rendered labels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .renderer import RenderedViews

TERMS = ('cam_sem', 'cam_depth', 'bev_sem', 'bev_depth')
KL_FACTOR = 10.0


def semantic_l1(pred: Tensor, target: Tensor) -> Tensor:
    """Absolute difference of class images (..., C), averaged over the classes: (...)."""
    return (pred - target).abs().mean(-1)


def semantic_kl(pred: Tensor, target: Tensor, log_input: str = 'log_softmax') -> Tensor:
    """Kullback-Leibler divergence of class images, times 10, averaged over the classes.

    Args:
        pred: (..., C), rendered class probabilities.
        target: (..., C), rendered label.
        log_input: ``'log_softmax'`` passes the rendered probabilities through a softmax once more, as the original does;
            ``'log'`` takes their logarithm (clamped at 1e-8).

    Returns:
        (...).
    """
    if log_input == 'log_softmax':
        log_pred, log_target = pred.log_softmax(-1), target.log_softmax(-1)
    else:
        log_pred, log_target = pred.clamp(min=1e-8).log(), target.clamp(min=1e-8).log()
    return KL_FACTOR * F.kl_div(log_pred, log_target, reduction='none', log_target=True).mean(-1)


def view_means(errors: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean error of each view over its valid pixels.

    Args:
        errors: (B, N, H, W).
        mask: (B, N, H, W) bool, valid pixels, or None for all.

    Returns:
        Means (B, N), 0 with zero gradient where a view has no valid pixel, and a bool tensor (B, N) that is True elsewhere.
    """
    if mask is None:
        means = errors.mean((-2, -1))
        return means, torch.ones_like(means, dtype=torch.bool)
    count = mask.sum((-2, -1))
    # where instead of a product: an infinite error outside the mask must not become NaN
    return torch.where(mask, errors, 0.0).sum((-2, -1)) / count.clamp(min=1), count > 0


class RenderLoss(nn.Module):
    """L1 (or KL) between class images and L1 between depth images, for cameras and the bird's-eye view.

    A view's loss is the mean over its pixels; views are averaged; the batch is averaged or summed. Depth counts only where the
    label's depth exceeds ``min_depth``.

    Args:
        weight: Weight of all terms.
        cam_sem: Relative weight of the class images of the cameras; 0 or False switches the term off.
        cam_depth: Same for the depth images of the cameras.
        bev_sem: Same for the class image of the bird's-eye view.
        bev_depth: Same for the depth image of the bird's-eye view.
        cam_depth_range: Depth errors of the cameras are divided by this many metres.
        bev_depth_range: Depth errors of the bird's-eye view are divided by this many metres.
        min_depth: Label depth in metres above which a pixel takes part in the depth terms.
        mask_elems: Use only pixels whose label image is not mostly free, in all terms.
        kl_loss: Kullback-Leibler divergence over the classes, times 10, instead of L1 for the class images.
        kl_input: See :func:`semantic_kl`.
        batch_reduction: ``'mean'``, or ``'sum'`` as the original (equal for one sample per GPU).
        invalid_views: What a view without any valid pixel does to its term. ``'skip'``: it contributes 0, the others count as
            usual; ``'zero_term'``: the whole term becomes 0, as in the original.

    Raises:
        ValueError: If an argument is unknown or out of range.
    """

    def __init__(
        self,
        weight: float = 10.0,
        cam_sem: float = 1.0,
        cam_depth: float = 1.0,
        bev_sem: float = 1.0,
        bev_depth: float = 1.0,
        cam_depth_range: float = 50.0,
        bev_depth_range: float = 100.0,
        min_depth: float = 0.1,
        mask_elems: bool = False,
        kl_loss: bool = False,
        kl_input: str = 'log_softmax',
        batch_reduction: str = 'mean',
        invalid_views: str = 'skip',
    ) -> None:
        super().__init__()
        for name, value, known in (
            ('kl_input', kl_input, ('log_softmax', 'log')),
            ('batch_reduction', batch_reduction, ('mean', 'sum')),
            ('invalid_views', invalid_views, ('skip', 'zero_term')),
        ):
            if value not in known:
                raise ValueError(f'loss.{name} must be one of {known}, got {value!r}')
        if not (cam_depth_range > 0 and bev_depth_range > 0):
            raise ValueError(
                f'loss.cam_depth_range and loss.bev_depth_range must be positive, got {cam_depth_range} and {bev_depth_range}'
            )
        relative = dict(zip(TERMS, (cam_sem, cam_depth, bev_sem, bev_depth)))
        if not weight >= 0 or not all(value >= 0 for value in relative.values()) or not any(relative.values()):
            raise ValueError(
                f'loss.weight and the weights of the terms {TERMS} must not be negative and one term must be on, '
                f'got weight={weight} and {relative}'
            )
        self.weights = {term: weight * float(value) for term, value in relative.items() if value}
        self.depth_ranges = {'cam_depth': cam_depth_range, 'bev_depth': bev_depth_range}
        self.min_depth = min_depth
        self.mask_elems = mask_elems
        self.kl_loss = kl_loss
        self.kl_input = kl_input
        self.batch_reduction = batch_reduction
        self.invalid_views = invalid_views

    @property
    def views(self) -> tuple[str, ...]:
        """The kinds of views that the enabled terms need: ``'cam'`` and / or ``'bev'``."""
        return tuple(kind for kind in ('cam', 'bev') if any(term.startswith(kind) for term in self.weights))

    def forward(self, preds: dict[str, RenderedViews], targets: dict[str, RenderedViews], free_index: int) -> dict[str, Tensor]:
        """Compares images.

        Args:
            preds: Rendered predictions by kind of view, ``'cam'`` (B, N, ...) and ``'bev'`` (B, 1, ...).
            targets: Rendered labels, same keys and shapes.
            free_index: Class id of free space.

        Returns:
            ``loss_render_<term>`` for every enabled term: weighted, without dimensions.
        """
        losses = {}
        for term, weight in self.weights.items():
            kind, quantity = term.split('_')
            pred, target = preds[kind], targets[kind]
            mask = target.sem.argmax(-1) != free_index if self.mask_elems else None
            if quantity == 'depth':
                valid = target.depth > self.min_depth
                mask = valid if mask is None else mask & valid
                errors = (pred.depth - target.depth).abs() / self.depth_ranges[term]
            elif self.kl_loss:
                errors = semantic_kl(pred.sem, target.sem, self.kl_input)
            else:
                errors = semantic_l1(pred.sem, target.sem)
            losses[f'loss_render_{term}'] = weight * self._reduce(*view_means(errors, mask))
        return losses

    def _reduce(self, means: Tensor, valid: Tensor) -> Tensor:
        total = means.mean(1)
        total = total.mean() if self.batch_reduction == 'mean' else total.sum()
        return total * valid.all() if self.invalid_views == 'zero_term' else total
