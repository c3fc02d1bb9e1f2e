"""What a renderer returns."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rendered:
    """What B samples look like along pixels or rays; leading dimensions are (B, V, H, W) for cameras, (B, R) for rays.

    Attributes:
        features: (..., C), the blended features, the background where nothing is.
        depth: (...), sum of (blending weight x depth along the optical axis), metres; not divided by alpha, 0 where nothing is.
        alpha: (...), sum of blending weights, in [0, 1].
        transmittance: (...), what light is left behind everything, or None: 1 - alpha.
        weights: (..., S), blending weights of the samples along a ray, or None.
        t: (..., S), ranges of these samples, metres, or None.
        distortion: (...), how far the weights of a ray spread (mip-NeRF 360, equation 15), or None.
        valid: (...) bool, False for rays that fill up a batch and count nowhere, or None: all count.
    """

    features: Tensor
    depth: Tensor
    alpha: Tensor
    transmittance: Tensor | None = None
    weights: Tensor | None = None
    t: Tensor | None = None
    distortion: Tensor | None = None
    valid: Tensor | None = None
