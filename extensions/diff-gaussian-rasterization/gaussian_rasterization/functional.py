"""The public function: checks, casts, picks a backend."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from . import backends, constants
from .camera import transform_points
from .checks import check_cameras, check_features, check_finite, check_labels, check_size, check_tensors, check_tile_mask
from .reference import rasterize_reference
from .settings import RasterSettings


class RasterOutput(NamedTuple):
    """Images of V views.

    Attributes:
        features: (V, H, W, C), sum of weight * feature + remaining light * background.
        depth: (V, H, W), metres, sum of weight * z: accumulated, neither divided by alpha nor filled behind.
        alpha: (V, H, W), 1 - remaining light.
        radii: (V, G) int32, three standard deviations of the longer axis in pixels, rounded up; 0 for discarded Gaussians and
            those too far outside the image to colour a pixel.
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

    Gradients reach means, quats, scales, opacities, features, background and viewmats, from all three images; with the
    reference Ks too. ``radii`` has none. Culled Gaussians get zeros. The compiled backends raise on any but first derivatives
    in reverse mode, and on Ks that want a gradient. Pinhole cameras only, neither orthographic nor fisheye.

    Args:
        means: (G, 3) centres in the reference frame, metres. G may be 0: the images are the background.
        quats: (G, 4) rotations w, x, y, z, used as given: normalise them yourself; zeros act as identity.
        scales: (G, 3) standard deviations along the rotated axes, metres.
        opacities: (G,) in [0, 1]; more acts as 1 and gets no gradient.
        features: (G, C) any real values, any C >= 1. Or (G,) integer class labels with ``num_classes``: the same
            picture as from their one-hot rows, which are never made; no gradient to labels.
        viewmats: (V, 4, 4) reference -> camera (x right, y down, z forward), column vectors, rigid. On a GPU they and Ks are
            checked with ``settings.debug`` only, which waits for the device.
        Ks: (V, 3, 3) intrinsics in pixels, pixel centres at +0.5, without skew.
        width: Image width in pixels.
        height: Image height in pixels.
        background: (C,) or (V, C) added where light is left; None: zeros.
        settings: Thresholds and variants.
        backend: ``'cpu'`` or ``'cuda'``: compiled, float32; ``'reference'``: PyTorch operations on any device, float32
            or float64. None: the compiled backend of the device, or the (slow) reference for float64 Gaussians.
        num_classes: C when ``features`` are labels.
        tile_mask: (V, ceil(H / 16), ceil(W / 16)) bool; 16-pixel blocks marked False show the background only.

    Returns:
        Features (V, H, W, C), depth (V, H, W), alpha (V, H, W) and radii (V, G). Computed in float32
        (float16 and bfloat16 inputs are converted, autocast is off inside) or, if the means are float64, in float64;
        cameras, background and other properties of the Gaussians follow the means.

    Raises:
        TypeError: If a dtype does not fit.
        ValueError: If a shape, device, size, label, camera or backend name does not fit; with ``settings.debug``, also on
            values that are not finite.
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

    if (settings.debug or not viewmats.is_cuda) and not torch.compiler.is_compiling():
        check_cameras(viewmats, Ks)

    labels = not features.is_floating_point()
    dtype = torch.float64 if means.dtype == torch.float64 else torch.float32
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
        image, depth, alpha, radii = render(
            means, quats, scales, opacities, features, *cameras, background, settings, tile_mask
        )
        return RasterOutput(image, depth, alpha, _seen_radii(radii, means, *cameras, settings))


@torch.no_grad()
def _seen_radii(
    radii: Tensor, means: Tensor, viewmats: Tensor, Ks: Tensor, width: int, height: int, settings: RasterSettings
) -> Tensor:
    """Radii (V, G), 0 where the square around a Gaussian that holds all it can draw does not meet the image."""
    if settings.tile_compat is not None:  # culls by its tiles
        return radii
    # an opaque Gaussian draws down to alpha_min, further than the three standard deviations of a radius
    reach = max(1.0, math.sqrt(2 * math.log(1 / settings.alpha_min)) / constants.RADIUS_SIGMAS)
    seen = []
    for radius, viewmat, K in zip(radii, viewmats, Ks):
        x, y, z = transform_points(means, viewmat)
        half = radius * reach
        inside = torch.ones_like(radius, dtype=torch.bool)
        for offset, focal, centre, size in ((x, K[0, 0], K[0, 2], width), (y, K[1, 1], K[1, 2], height)):
            pixel = focal * offset / z + centre
            inside &= (pixel + half >= 0) & (pixel - half <= size)
        seen.append(radius * inside)
    return torch.stack(seen)
