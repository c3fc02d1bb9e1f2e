"""What a loss between two renders compares, with what, and what comes out."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

SEMANTICS = (None, 'l1', 'kl_softmax', 'kl_log')


class TargetGaussians(NamedTuple):
    """Gaussians of the target, as for :func:`rasterize`; they have no gradient.

    Attributes:
        means: (T, 3).
        quats: (T, 4).
        scales: (T, 3).
        opacities: (T,).
        features: (T,) integer labels below the C of the prediction, or (T, C).
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    features: Tensor


class TargetImages(NamedTuple):
    """Given images of the target; they have no gradient.

    Attributes:
        features: (V, H, W, C).
        depth: (V, H, W), metres, or None where the loss has no depth term.
    """

    features: Tensor
    depth: Tensor | None = None


@dataclass(frozen=True)
class RenderLossSettings:
    """What is compared.

    Args:
        semantic: Error of a pixel between the feature images. ``'l1'``: absolute difference, averaged over the channels;
            ``'kl_softmax'``: Kullback-Leibler divergence of the softmax of both, times 10, averaged over the channels;
            ``'kl_log'``: the same of the images themselves, clamped at 1e-8; None: no such loss.
        depth: Whether the absolute difference of the depth images, in metres, is a loss.
        min_depth: Metres of target depth above which a pixel takes part in the depth loss.
        free_class: Pixels whose target is largest in this channel take no part in either loss; None: all do.

    Raises:
        ValueError: If an option is unknown or nothing is compared.
    """

    semantic: str | None = 'l1'
    depth: bool = True
    min_depth: float = 0.1
    free_class: int | None = None

    def __post_init__(self):
        if self.semantic not in SEMANTICS:
            raise ValueError(f'RenderLossSettings.semantic must be one of {SEMANTICS}, got {self.semantic!r}')
        if self.semantic is None and not self.depth:
            raise ValueError('RenderLossSettings: semantic=None and depth=False leave nothing to compare')


class RenderLossOutput(NamedTuple):
    """Losses of V views.

    Attributes:
        semantic: Sum over the views of weight * mean error of the feature images; 0 where not wanted.
        depth: The same of the depth images, metres.
        view_means: (V, 2), mean errors of every view (features, depth), 0 for a view without valid pixels; no gradient.
        view_pixels: (V, 2) int64, how many pixels the means are over.
    """

    semantic: Tensor
    depth: Tensor
    view_means: Tensor
    view_pixels: Tensor
