"""Terms: how rendered quantities are compared with targets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from projects.occ.structures import OccField

from .rendered import Rendered

KL_FACTOR = 10.0
INVALID_VIEWS = ('skip', 'zero_term')
BATCH_REDUCTIONS = ('mean', 'sum')


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


def depth_l1(pred: Tensor, target: Tensor, metres: float = 1.0) -> Tensor:
    """Absolute difference of depths (...) in units of ``metres``: (...)."""
    return (pred - target).abs() / metres


def view_means(errors: Tensor, mask: Tensor | None, lead: int = 2) -> tuple[Tensor, Tensor]:
    """Mean error of each view over its valid pixels.

    Args:
        errors: (B, N, H, W), or whatever else has ``lead`` dimensions in front of its pixels.
        mask: Bool, valid pixels, shaped like ``errors``, or None for all.
        lead: Number of dimensions that count views.

    Returns:
        Means (B, N), 0 with zero gradient where a view has no valid pixel, and a bool tensor (B, N) that is True elsewhere.
    """
    pixels = tuple(range(lead - errors.dim(), 0))
    if mask is None:
        means = errors.mean(pixels)
        return means, torch.ones_like(means, dtype=torch.bool)
    count = mask.sum(pixels)
    # where instead of a product: an infinite error outside the mask must not become NaN
    return torch.where(mask, errors, 0.0).sum(pixels) / count.clamp(min=1), count > 0


def shares(sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Values (B, V) whose mean over a sample's views is the mean over all its pixels, and whether the sample has any."""
    total = counts.sum(1, keepdim=True)
    there = (total > 0).expand_as(sums)
    return sums / total.clamp(min=torch.finfo(sums.dtype).tiny) * there * sums.shape[1], there


# Errors of pixels by name: (pred, target, **options) -> (...), the last dimension of features is summed up.
PIXEL_ERRORS: dict[str, Callable[..., Tensor]] = {'l1': semantic_l1, 'kl': semantic_kl, 'depth_l1': depth_l1}
# Errors of whole views by name: (pred, target, mask, lead, **options) -> values and validity, both (B, N) or (B,).
VIEW_ERRORS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {}
# What each of them compares: quantities of the rendering, and the kind of value that a target must have for them, see
# ``Target.value_kinds``. A function that is not listed takes anything.
TAKES: dict[str, tuple[tuple[str, ...], str]] = {
    'l1': (('features',), 'image'),
    'kl': (('features',), 'image'),
    'depth_l1': (('depth', 'alpha'), 'image'),
}
# Regularisers by name: (rendered, field, **options) -> scalar; they have no target.
REGULARIZERS: dict[str, Callable[..., Tensor]] = {}
# The quantity of the rendering that a regulariser reads, where it reads one.
READS: dict[str, str] = {}


@dataclass(frozen=True)
class Term:
    """One loss term.

    Attributes:
        function: Name of an error or regulariser, or a function with the signature of :data:`PIXEL_ERRORS`.
        weight: Its factor.
        view: The kind of views that it reads, for example ``'cam'``, ``'bev'`` or ``'ray'``.
        quantity: What is compared: ``'features'``, ``'depth'``, ``'alpha'``, or another one that the target has. Regularisers
            ignore it.
        options: Further arguments of the function.
        batch_reduction: ``'mean'`` or ``'sum'`` over the samples of a batch.
        invalid_views: What a view without any valid pixel does. ``'skip'``: it contributes 0, the others count as usual;
            ``'zero_term'``: the whole term becomes 0.
    """

    function: str | Callable[..., Tensor]
    weight: float = 1.0
    view: str = 'cam'
    quantity: str = 'features'
    options: Mapping[str, Any] | None = None
    batch_reduction: str = 'mean'
    invalid_views: str = 'skip'

    def __post_init__(self) -> None:
        for name, known in (('batch_reduction', BATCH_REDUCTIONS), ('invalid_views', INVALID_VIEWS)):
            if getattr(self, name) not in known:
                raise ValueError(f'loss.{name} must be one of {known}, got {getattr(self, name)!r}')
        if not self.weight >= 0:
            raise ValueError(f'the weight of a term must not be negative, got {self.weight}')
        known = (*PIXEL_ERRORS, *VIEW_ERRORS, *REGULARIZERS)
        if isinstance(self.function, str) and self.function not in known:
            raise ValueError(f'unknown loss function {self.function!r}; there are {sorted(known)}')

    @property
    def regularizes(self) -> bool:
        """Whether it needs no target."""
        return self.function in REGULARIZERS

    def compare(self, rendered: Rendered, target: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
        """Errors of the views and whether they have any valid pixel, both (B, V) for images and (B,) for rays."""
        value, mask = target
        pred = getattr(rendered, self.quantity)
        if rendered.valid is not None:
            mask = rendered.valid if mask is None else mask & rendered.valid
        lead = rendered.depth.dim() - 2 if rendered.depth.dim() == 4 else 1
        options = self.options or {}
        if self.function in VIEW_ERRORS:
            return VIEW_ERRORS[self.function](pred, value, mask, lead, **options)
        function = PIXEL_ERRORS[self.function] if isinstance(self.function, str) else self.function
        return view_means(function(pred, value, **options), mask, lead)

    def regularize(self, rendered: Rendered, field: OccField) -> Tensor:
        """The weighted value of a regulariser, without dimensions."""
        return self.weight * REGULARIZERS[self.function](rendered, field, **(self.options or {}))

    def reduce(self, errors: Tensor, valid: Tensor) -> Tensor:
        """The weighted term, without dimensions, from errors and validity (B, V) or (B,)."""
        total = errors.mean(1) if errors.dim() > 1 else errors
        total = total.mean() if self.batch_reduction == 'mean' else total.sum()
        return self.weight * (total * valid.all() if self.invalid_views == 'zero_term' else total)


def assemble(parts: Sequence[tuple[Sequence[int], Sequence[int], Tensor]], shape: tuple[int, int]) -> Tensor:
    """Puts values of groups of views together.

    Args:
        parts: Samples, views and the values (samples, views) of each group.
        shape: (B, V).

    Returns:
        (B, V).
    """
    if len(parts) == 1:
        return parts[0][2]
    table: dict[tuple[int, int], Tensor] = {}
    for samples, views, values in parts:
        for i, sample in enumerate(samples):
            for j, view in enumerate(views):
                table[sample, view] = values[i, j]
    rows = [torch.stack([table[b, v] for v in range(shape[1])]) for b in range(shape[0])]
    return torch.stack(rows)
