"""The compiled operators as PyTorch sees them: shapes for tracing, autograd. Imported only after the library was loaded."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .constants import MASK_TILE
from .settings import RasterSettings

_ops = torch.ops.gaussian_rasterization

# positions of the tensor inputs of `render` that have gradients
_DIFFERENTIABLE = dict(means=0, quats=1, scales=2, opacities=3, features=4, viewmats=5, background=7)


def schema_options(settings: RasterSettings) -> tuple:
    """Options in the order of the operators' schemas."""
    return (
        settings.near,
        settings.dilation,
        settings.alpha_min,
        settings.alpha_max,
        settings.transmittance_min,
        settings.scale_modifier,
        settings.jacobian_clamp == 'offcentre',
        settings.tile_compat == 'rect12',
        settings.cap_gradient == 'exact',
    )


def integer_labels(labels: Tensor, channels: int) -> Tensor:
    """Labels as int32; what does not fit into 32 bits must not turn into a label."""
    return labels if labels.dtype == torch.int32 else labels.long().clamp(-1, channels).to(torch.int32)


def rasterize_native(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    features: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    background: Tensor,
    settings: RasterSettings,
    tile_mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Render checked float32 inputs with the compiled backend of their device; ``features`` may be integer labels (G,).

    Returns:
        Features (V, H, W, C), depth (V, H, W), alpha (V, H, W), radii (V, G) int32.

    Raises:
        RuntimeError: If a derivative is asked for that the backends do not have: forward mode, of a gradient, or by torch.func.
    """
    if not features.is_floating_point():
        features = integer_labels(features, background.shape[1])
    inputs = (means, quats, scales, opacities, features, viewmats, background)
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in inputs):
        raise RuntimeError("rasterize: the compiled backends have no forward-mode derivatives; use backend='reference'")
    if Ks.requires_grad and torch.is_grad_enabled():
        raise RuntimeError(
            'rasterize: the compiled backends have no gradient of Ks; detach Ks, let viewmats learn instead, or use '
            "backend='reference'"
        )
    # a trace of torch.compile runs on interpreters of its own, and is none of torch.func's transforms
    if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None:
        raise RuntimeError(
            'rasterize: the compiled backends do not work inside torch.func and vmap; use torch.autograd.grad, or '
            "backend='reference'"
        )
    keep_state = torch.is_grad_enabled() and any(t.requires_grad for t in inputs)
    return _ops.render(
        means,
        quats,
        scales,
        opacities,
        features,
        viewmats,
        Ks,
        background,
        tile_mask,
        width,
        height,
        *schema_options(settings),
        keep_state,
    )[:4]


@torch.library.register_fake('gaussian_rasterization::render')
def _(means, quats, scales, opacities, features, viewmats, Ks, background, tile_mask, width, height, *options):
    views, count, kept = viewmats.shape[0], means.shape[0], viewmats.shape[0] if options[-1] else 0
    image = means.new_empty(views, height, width, background.shape[1])
    planes = [means.new_empty(views, height, width) for _ in range(2)]
    radii = means.new_empty(views, count, dtype=torch.int32)
    light = means.new_empty(kept, height, width)
    stop, order = means.new_empty(kept, height, width, dtype=torch.int32), means.new_empty(kept, count, dtype=torch.int32)
    counts = torch.empty(kept, 2 + -(-height // MASK_TILE), dtype=torch.int64, device='cpu')
    return image, *planes, radii, light, stop, order, counts


@torch.library.register_fake('gaussian_rasterization::render_backward')
def _(grad_features, grad_depth, grad_alpha, means, quats, scales, opacities, features, viewmats, Ks, background, *rest):
    need_features, need_geometry, need_background = rest[-3:]
    count, views, channels = means.shape[0], viewmats.shape[0], background.shape[1]
    shaped = count if need_geometry else 0
    return (
        means.new_empty(shaped, 3),
        means.new_empty(shaped, 4),
        means.new_empty(shaped, 3),
        means.new_empty(count),
        means.new_empty(count if need_features and features.is_floating_point() else 0, channels),
        means.new_empty(views if need_geometry else 0, 4, 4),
        means.new_empty(views if need_background else 0, channels),
    )


def _setup_context(ctx, inputs, output):
    ctx.settings = inputs[9:-1]
    ctx.kept = inputs[-1]
    ctx.has_mask = inputs[8] is not None
    ctx.set_materialize_grads(False)
    saved = [*inputs[:8], *output[4:]]
    if ctx.has_mask:
        saved.append(inputs[8])
    ctx.save_for_backward(*saved)


def _backward(ctx, grad_features, grad_depth, grad_alpha, *_):
    # once: every access unpacks, which checkpointing allows a single time and offloading pays for
    saved = ctx.saved_tensors
    tensors, state = saved[:8], saved[8:12]
    mask = saved[12] if ctx.has_mask else None
    needs = {name: ctx.needs_input_grad[i] for name, i in _DIFFERENTIABLE.items()}
    grads = [None] * (10 + len(ctx.settings))
    if not any(needs.values()) or (grad_features is None and grad_depth is None and grad_alpha is None):
        return tuple(grads)
    if not ctx.kept:
        raise RuntimeError('gaussian_rasterization::render was called with keep_state=False and has no backward pass')
    results = _ops.render_backward(
        grad_features,
        grad_depth,
        grad_alpha,
        *tensors,
        mask,
        *ctx.settings,
        *state,
        needs['features'],
        needs['means'] or needs['quats'] or needs['scales'] or needs['viewmats'],
        needs['background'],
    )
    for (name, i), grad in zip(_DIFFERENTIABLE.items(), results, strict=True):
        if needs[name]:
            grads[i] = grad
    return tuple(grads)


def _refuse_second_derivative(ctx, *grads):
    raise RuntimeError(
        'rasterize: the compiled backends have first derivatives only; second derivatives (create_graph=True) need '
        "backend='reference'"
    )


torch.library.register_autograd('gaussian_rasterization::render', _backward, setup_context=_setup_context)
torch.library.register_autograd('gaussian_rasterization::render_backward', _refuse_second_derivative)
