"""The public function: checks, casts, picks a backend."""

from typing import NamedTuple

import torch
from torch import Tensor

from . import backends, constants
from .checks import check_features, check_finite, check_labels, check_size, check_tensors, check_tile_mask
from .reference import rasterize_reference
from .settings import RasterSettings


class RasterOutput(NamedTuple):
    """Images of V views.

    Attributes:
        features: (V, H, W, C), sum of weight * feature + remaining light * background.
        depth: (V, H, W), metres, sum of weight * z: accumulated, neither divided by alpha nor filled behind.
        alpha: (V, H, W), 1 - remaining light.
        radii: (V, G) int32, three standard deviations of the longer axis in pixels, rounded up; 0 for discarded Gaussians.
    """

    features: Tensor
    depth: Tensor
    alpha: Tensor
    radii: Tensor


def rasterize(
    means: Tensor,  # (G, 3)
    quats: Tensor,  # (G, 4)
    scales: Tensor,  # (G, 3)
    opacities: Tensor,  # (G,)
    features: Tensor,  # (G, C), or (G,) integer labels
    viewmats: Tensor,  # (V, 4, 4)
    Ks: Tensor,  # (V, 3, 3)
    width: int,
    height: int,
    background: Tensor | None = None,  # (C,) or (V, C)
    settings: RasterSettings = RasterSettings(),  # noqa: B008 (frozen)
    backend: str | None = None,
    *,
    num_classes: int | None = None,
    tile_mask: Tensor | None = None,  # (V, ceil(H / 16), ceil(W / 16)) bool
) -> RasterOutput:
    """Splat Gaussians into V images, front to back, differentiably.

    Per pixel, over the Gaussians by increasing camera z (equal z: input order), with light T = 1 at first::

        alpha = min(alpha_max, opacity * exp(-1/2 d^T cov^-1 d))     skipped below alpha_min
        stop in front of the Gaussian that would make T (1 - alpha) < transmittance_min
        features += alpha T feature;  depth += alpha T z;  T <- T (1 - alpha)

    Gradients reach means, quats, scales, opacities, features, background and viewmats, from all three images; not Ks, and
    ``radii`` has none. Culled Gaussians get zeros. The compiled backends raise on any but first derivatives in reverse mode.

    Args:
        means: (G, 3) centres in the reference frame, metres. G may be 0: the images are the background.
        quats: (G, 4) rotations w, x, y, z, used as given: normalise them yourself; zeros act as identity.
        scales: (G, 3) standard deviations along the rotated axes, metres.
        opacities: (G,) in [0, 1]; more acts as 1 and gets no gradient.
        features: (G, C) any real values, any C >= 1. Or (G,) integer class labels with ``num_classes``: the same
            picture as from their one-hot rows, which are never made; no gradient to labels.
        viewmats: (V, 4, 4) reference -> camera (x right, y down, z forward), column vectors.
        Ks: (V, 3, 3) intrinsics in pixels, pixel centres at +0.5; fx, fy, cx, cy are read, skew is not.
        width: Image width in pixels.
        height: Image height in pixels.
        background: (C,) or (V, C) added where light is left; None: zeros.
        settings: Thresholds and variants.
        backend: ``'cpu'`` or ``'cuda'``: compiled, float32; ``'reference'``: PyTorch operations on any device, float32
            or float64. None: the compiled backend of the device, or the reference for float64 input.
        num_classes: C when ``features`` are labels.
        tile_mask: (V, ceil(H / 16), ceil(W / 16)) bool; 16-pixel blocks marked False show the background only.

    Returns:
        Features (V, H, W, C), depth (V, H, W), alpha (V, H, W) and radii (V, G). Computed in float32
        (float16 and bfloat16 inputs are converted, autocast is off inside) or, if any input is float64, in float64.

    Raises:
        TypeError: If a dtype does not fit.
        ValueError: If a shape, device, size, label or backend name does not fit; with ``settings.debug``, also on values that
            are not finite.
        RuntimeError: If the backend was not built; the message holds the command that builds it.
    """
    if not isinstance(settings, RasterSettings):
        raise TypeError(f'rasterize: settings must be RasterSettings(...), got {type(settings).__name__} {settings!r}')
    check_tensors(means, quats, scales, opacities, features, viewmats, Ks, background)
    channels = check_features(features, means.shape[0], viewmats.shape[0], background, num_classes)
    check_size(width, height)
    if tile_mask is not None:
        check_tile_mask(tile_mask, viewmats.shape[0], width, height, constants.MASK_TILE, means.device)
    if settings.debug:
        check_finite(
            means=means, quats=quats, scales=scales, opacities=opacities, features=features, viewmats=viewmats, Ks=Ks,
            background=background,
        )  # fmt: skip

    floats = [means, quats, scales, opacities, viewmats, Ks]
    labels = not features.is_floating_point()
    if not labels:
        floats.append(features)
    if background is not None:
        floats.append(background)
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in floats) else torch.float32
    name = backends.choose_backend('rasterize', 'render', backend, means.device, dtype)

    if background is None:
        background = means.new_zeros(channels, dtype=dtype)
    background = background.to(dtype).expand(viewmats.shape[0], channels)
    means, quats, scales, opacities, viewmats, Ks = (t.to(dtype) for t in (means, quats, scales, opacities, viewmats, Ks))
    if not labels:
        features = features.to(dtype)
    if name == 'reference':
        render = rasterize_reference
        if labels:
            if features.is_cuda and len(features) and not torch.compiler.is_compiling():
                check_labels(features, channels)
            features = torch.nn.functional.one_hot(features.long(), channels).to(dtype)
    else:
        from .native import rasterize_native as render

    cameras = (viewmats, Ks, int(width), int(height))
    with torch.autocast(means.device.type, enabled=False):
        return RasterOutput(*render(means, quats, scales, opacities, features, *cameras, background, settings, tile_mask))
