"""Ray marching: the public function. Checks, casts, picks a backend."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import backends
from .checks import FLOATS, check_finite
from .march_reference import march_reference
from .march_settings import MarchSettings

Vector = Tensor | Sequence[float]
MAX_SAMPLES = 1 << 20


class MarchOutput(NamedTuple):
    """What R rays of B volumes see.

    Attributes:
        features: (B, R, C), sum of weight * feature; None without features.
        depth: (B, R), sum of weight * t: metres along unit directions, accumulated, not divided by alpha.
        alpha: (B, R), share of the light that the ray has lost, 1 - transmittance to full precision.
        transmittance: (B, R), share that is left behind the last sample.
        distortion: (B, R) distortion of the weights of every ray, None unless asked for.
        weights: (B, R, S) weights of the samples, 0 for those left out, None unless asked for.
        count: (B, R) int32, number of samples that count.
    """

    features: Tensor | None
    depth: Tensor
    alpha: Tensor
    transmittance: Tensor
    distortion: Tensor | None
    weights: Tensor | None
    count: Tensor


def march_rays(
    density: Tensor,  # (B, X, Y, Z)
    features: Tensor | None,  # (B, X, Y, Z, C)
    lower: Vector,  # (3,)
    voxel_size: Vector,  # (3,)
    origins: Tensor,  # (B, R, 3)
    directions: Tensor,  # (B, R, 3)
    t: Tensor,  # (S,) positions or (B, R, S + 1) edges
    settings: MarchSettings = MarchSettings(),  # noqa: B008 (frozen)
    backend: str | None = None,
) -> MarchOutput:
    """Volume rendering along rays through voxel grids, front to back, differentiably.

    Sample k of a ray is at ``origin + direction * t_k``, contracted if the settings say so. Density and features are looked up
    there by trilinear interpolation between voxel centres, with zeros outside the grid. With light T = 1 at first::

        nerf   alpha = 1 - exp(-max(density, 0) (t_k+1 - t_k))           dvgo   alpha = 1 - exp(-interval softplus(x + shift))
        weight = T alpha;   T <- T (1 - alpha)
        features += weight feature;   depth += weight t

    Gradients reach density and features, from all outputs, and nothing else. The compiled backends raise on any but first
    derivatives in reverse mode. Rays do not touch each other: their order does not matter.

    Args:
        density: (B, X, Y, Z); its meaning is that of ``settings.form``.
        features: (B, X, Y, Z, C), any C, or None.
        lower: (3,) lower corner of the grid, metres: cell i covers ``[lower + i voxel, lower + (i + 1) voxel]``.
        voxel_size: (3,) edges of a voxel, metres.
        origins: (B, R, 3) metres, frame of the grid. R may be 0.
        directions: (B, R, 3); ``t`` and depth are metres if they have length 1. A zero direction stays at its origin.
        t: (S,) increasing sample positions of all rays; or (B, R, S + 1) edges of the intervals in whose middle the samples
            lie, B and R may be 1 for all.
        settings: Form, thresholds, contraction, what to return.
        backend: ``'cpu'`` or ``'cuda'``: compiled, float32; ``'reference'``: PyTorch operations on any device, float32 or
            float64. None: the compiled backend of the device, or the reference for float64 input.

    Returns:
        :class:`MarchOutput`, in float32 (float16 and bfloat16 inputs are converted, autocast is off inside) or, if any
        input is float64, in float64. A ray that is not finite sees empty space.

    Raises:
        TypeError: If a dtype does not fit.
        ValueError: If a shape, device, size or backend name does not fit; with ``settings.debug``, also on values that are not
            finite or positions that do not increase.
        RuntimeError: If the backend was not built; the message holds the command that builds it.
    """
    if not isinstance(settings, MarchSettings):
        raise TypeError(f'march_rays: settings must be MarchSettings(...), got {type(settings).__name__} {settings!r}')
    _check(density, features, origins, directions, t, settings)
    if settings.debug:
        check_finite(density=density, features=features, origins=origins, directions=directions, t=t)
        _need(bool((t.diff(dim=-1) >= 0).all()), 't must not decrease along a ray')
    batch, rays = origins.shape[:2]
    tensors = [x for x in (density, features, origins, directions, t) if x is not None]
    dtype = torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32
    name = backends.choose_backend('march_rays', 'march', backend, density.device, dtype)

    with torch.autocast(density.device.type, enabled=False):
        transform = _transform(density, lower, voxel_size, settings).to(dtype)
        origins, directions, t = (x.detach().to(dtype) for x in (origins, directions, t))
        if settings.contraction is not None:
            origins = origins - origins.new_tensor(settings.contraction.center)
        if settings.unit != 1:
            origins, t = origins / settings.unit, t / settings.unit
        if t.dim() == 3:
            t = t.expand(batch, rays, t.shape[-1])
        density = density.to(dtype)
        given = features is not None
        features = features.to(dtype) if given else density.new_zeros(*density.shape, 0)
        if name == 'reference':
            march = march_reference
        else:
            from .march_native import march_native as march
        sums, depth, alpha, light, distortion, weights, count = march(
            density, features, origins, directions, t, transform, settings
        )
    return MarchOutput(
        sums if given else None,
        depth,
        alpha,
        light,
        distortion[..., 0] if settings.distortion is not None else None,
        weights if settings.weights else None,
        count,
    )


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(f'march_rays: {message}')


def _shape(tensor: Tensor) -> str:
    return f'{tuple(tensor.shape)} {str(tensor.dtype).removeprefix("torch.")}'


def _check(density, features, origins, directions, t, settings) -> None:
    named = dict(density=density, origins=origins, directions=directions, t=t)
    if features is not None:
        named['features'] = features
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f'march_rays: {name} must be a torch.Tensor, got {type(tensor).__name__}')
        if tensor.dtype not in FLOATS:
            raise TypeError(f'march_rays: {name} must be floating point, got {tensor.dtype}; convert it with .float()')
        _need(
            tensor.device == density.device,
            f'all tensors must be on one device, but density is on {density.device} and {name} on {tensor.device}',
        )
    _need(
        density.dim() == 4 and min(density.shape[1:]) >= 1,
        f'density must be (B, X, Y, Z) with at least one voxel, got {_shape(density)}',
    )
    batch = density.shape[0]
    _need(density.shape[1:].numel() < 2**31 - 1, f'a grid of {density.shape[1:].numel()} voxels is too large')
    if features is not None:
        _need(
            features.dim() == 5 and features.shape[:4] == density.shape,
            f'features must be {(*density.shape, "C")} to fit density, got {_shape(features)}',
        )
    _need(
        origins.dim() == 3 and origins.shape[0] == batch and origins.shape[2] == 3,
        f'origins must be ({batch}, R, 3), got {_shape(origins)}',
    )
    _need(
        directions.shape == origins.shape,
        f'directions must be {tuple(origins.shape)} to fit origins, got {_shape(directions)}',
    )
    rays = origins.shape[1]
    _need(
        t.dim() == 1 and t.shape[0] >= 1
        or t.dim() == 3 and t.shape[0] in (1, batch) and t.shape[1] in (1, rays) and t.shape[2] >= 2,
        f't must be (S,) sample positions or ({batch}, {rays}, S + 1) edges with S >= 1, got {_shape(t)}',
    )  # fmt: skip
    _need(t.shape[-1] <= MAX_SAMPLES, f'at most {MAX_SAMPLES} samples per ray, got {t.shape[-1]}')
    _need(
        not (t.shape == (1,) and settings.form == 'nerf' and settings.last_step == 'repeat'),
        "one sample has no step to repeat: give t as edges, or use last_step='inf'",
    )


def _transform(density: Tensor, lower: Vector, voxel_size: Vector, settings: MarchSettings) -> Tensor:
    """(2, 3) float64: factor and offset from the points of the kernels to voxel indices (voxel centres at whole numbers)."""
    parts = []
    for name, value in (('lower', lower), ('voxel_size', voxel_size)):
        part = torch.as_tensor(value, dtype=torch.float64, device=density.device)
        _need(tuple(part.shape) == (3,), f'{name} must be three numbers, got {tuple(part.shape)}')
        if not isinstance(value, Tensor):
            good = bool(part.isfinite().all()) and (name == 'lower' or bool((part > 0).all()))
            _need(good, f'{name} must be finite{" and > 0" if name == "voxel_size" else ""}, got {tuple(part.tolist())}')
        parts.append(part)
    low, size = parts
    if settings.contraction is not None:
        low = low - low.new_tensor(settings.contraction.center)
    if settings.align_corners:
        cells = low.new_tensor(density.shape[1:])
        share = (cells - 1) / cells
        return torch.stack([settings.unit * share / size, -low * share / size])
    return torch.stack([settings.unit / size, -low / size - 0.5])
