"""The compiled ray marcher as PyTorch sees it: shapes for tracing, autograd. Imported only after the library was loaded."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .march_settings import DISTORTION_INTERVALS, FORMS, MarchSettings

_ops = torch.ops.gaussian_rasterization


def march_native(
    density: Tensor, features: Tensor, origins: Tensor, directions: Tensor, t: Tensor, transform: Tensor,
    settings: MarchSettings,
) -> tuple[Tensor, ...]:  # fmt: skip
    """March checked float32 inputs with the compiled backend of their device.

    Args:
        density: (B, X, Y, Z).
        features: (B, X, Y, Z, C), C may be 0.
        origins: (B, R, 3) in units of ``settings.unit``, from the centre of the contraction if there is one.
        directions: (B, R, 3).
        t: (S,) positions or (B, R, S + 1) edges, in units of ``settings.unit``.
        transform: (2, 3) factor and offset from points to voxel indices.
        settings: Form, thresholds, contraction, what to return.

    Returns:
        Features (B, R, C), depth, alpha and transmittance (B, R), distortion (B, R, 0 or 1), weights (B, R, S or 0), count
        (B, R) int32.

    Raises:
        RuntimeError: If a derivative is asked for that the backends do not have: forward mode, or of a gradient.
    """
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(x).tangent is not None for x in (density, features)):
        raise RuntimeError("march_rays: the compiled backends have no forward-mode derivatives; use backend='reference'")
    return _ops.march(density, features, origins, directions, t, transform, *_options(settings))


def _options(settings: MarchSettings) -> tuple:
    """Options in the order of the operator's schema."""
    contraction, distortion = settings.contraction, settings.distortion
    return (
        FORMS.index(settings.form),
        settings.unit,
        settings.shift,
        settings.interval,
        settings.last_step == 'inf',
        settings.alpha_min,
        settings.transmittance_min,
        settings.weight_min,
        0.0 if contraction is None else contraction.background,
        0.0 if contraction is None else contraction.min_spacing / contraction.radius,
        settings.depth_mode == 'contracted',
        # 0: none, 1 and 2: as named, 3: the number that follows
        0 if distortion is None else 1 + DISTORTION_INTERVALS.index(distortion) if isinstance(distortion, str) else 3,
        0.0 if distortion is None or isinstance(distortion, str) else float(distortion),
        settings.weights,
    )


@torch.library.register_fake('gaussian_rasterization::march')
def _(density, features, origins, directions, t, transform, *options):
    batch, rays = origins.shape[:2]
    distortion, keep_weights = options[-3], options[-1]
    samples = t.shape[-1] - int(t.dim() == 3)
    plane = [density.new_empty(batch, rays) for _ in range(3)]
    return (
        density.new_empty(batch, rays, features.shape[-1]),
        *plane,
        density.new_empty(batch, rays, 1 if distortion else 0),
        density.new_empty(batch, rays, samples if keep_weights else 0),
        density.new_empty(batch, rays, dtype=torch.int32),
    )


@torch.library.register_fake('gaussian_rasterization::march_backward')
def _(grad_features, grad_depth, grad_alpha, grad_light, grad_distortion, grad_weights, density, features, *rest):
    need_density, need_features = rest[-2:]
    none = density.new_empty(0)
    return (
        torch.empty_like(density, memory_format=torch.contiguous_format) if need_density else none,
        torch.empty_like(features, memory_format=torch.contiguous_format) if need_features else none.clone(),
    )


def _setup_context(ctx, inputs, output):
    ctx.options = inputs[6:]
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:6])


def _backward(ctx, *grads):
    need_density, need_features = ctx.needs_input_grad[:2]
    results = [None] * (6 + len(ctx.options))
    if (need_density or need_features) and any(g is not None for g in grads[:6]):
        found = _ops.march_backward(*grads[:6], *ctx.saved_tensors, *ctx.options, need_density, need_features)
        results[0] = found[0] if need_density else None
        results[1] = found[1] if need_features else None
    return tuple(results)


def _refuse_second_derivative(ctx, *grads):
    raise RuntimeError(
        'march_rays: the compiled backends have first derivatives only; second derivatives (create_graph=True) need '
        "backend='reference'"
    )


torch.library.register_autograd('gaussian_rasterization::march', _backward, setup_context=_setup_context)
torch.library.register_autograd('gaussian_rasterization::march_backward', _refuse_second_derivative)
