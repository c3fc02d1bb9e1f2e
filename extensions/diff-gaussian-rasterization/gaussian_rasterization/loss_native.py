"""The compiled loss as PyTorch sees it: shapes for tracing, autograd. Imported only after the library was loaded."""

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .loss_settings import SEMANTICS, RenderLossOutput, RenderLossSettings, TargetGaussians
from .native import integer_labels, schema_options
from .settings import RasterSettings

_ops = torch.ops.gaussian_rasterization
_OPACITIES, _FEATURES = 3, 4  # positions of the inputs of `render_loss` that have gradients


def render_loss_native(
    prediction: list[Tensor], target, cameras, background: Tensor, settings: RasterSettings, loss: RenderLossSettings,
    backend: str, view_weights: Tensor, tile_mask: Tensor | None,
) -> RenderLossOutput:  # fmt: skip
    """Arguments as :func:`fused_render_loss` has checked them, float32.

    Raises:
        RuntimeError: If a derivative is asked for that the backend does not have: forward mode, or of a gradient.
    """
    opacities, features = prediction[_OPACITIES:]
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in (opacities, features)):
        raise RuntimeError('fused_render_loss: the compiled loss has no forward-mode derivatives; use fused=False')
    channels = features.shape[1]
    if isinstance(target, TargetGaussians):
        images = (None, None)
        labels = target.features
        gaussians = (*target[:4], labels if labels.is_floating_point() else integer_labels(labels, channels))
    else:
        images = tuple(target)
        empty = features.new_zeros
        gaussians = (empty(0, 3), empty(0, 4), empty(0, 3), empty(0), empty(0, channels))
    viewmats, Ks, width, height = cameras
    terms, view_means, view_pixels, *_ = _ops.render_loss(
        *prediction,
        viewmats.detach(),
        Ks,
        background.detach(),
        tile_mask,
        width,
        height,
        *schema_options(settings),
        *gaussians,
        *images,
        view_weights,
        SEMANTICS.index(loss.semantic),
        loss.depth,
        loss.min_depth,
        -1 if loss.free_class is None else loss.free_class,
        torch.is_grad_enabled() and (opacities.requires_grad or features.requires_grad),
    )
    return RenderLossOutput(terms[0], terms[1], view_means, view_pixels)


@torch.library.register_fake('gaussian_rasterization::render_loss')
def _(means, quats, scales, opacities, features, viewmats, *rest):
    semantic, keep_grads = rest[-5], rest[-1]
    views, count, channels = viewmats.shape[0], means.shape[0], features.shape[1]
    return (
        means.new_empty(2),
        means.new_empty(views, 2),
        means.new_empty(views, 2, dtype=torch.int64),
        means.new_empty(count if keep_grads and semantic else 0, channels),
        means.new_empty(2, count if keep_grads else 0),
    )


def _setup_context(ctx, inputs, output):
    ctx.inputs = len(inputs)
    ctx.semantic, ctx.kept = bool(inputs[-5]), inputs[-1]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[3:])


def _backward(ctx, grad_terms, *_):
    grads = [None] * ctx.inputs
    if grad_terms is None:
        return tuple(grads)
    if not ctx.kept:
        raise RuntimeError('gaussian_rasterization::render_loss was called with keep_grads=False and has no backward pass')
    to_features, to_opacities = ctx.saved_tensors
    if ctx.needs_input_grad[_OPACITIES]:
        grads[_OPACITIES] = grad_terms @ to_opacities
    if ctx.needs_input_grad[_FEATURES]:
        zero = to_opacities.new_zeros(to_opacities.shape[1], to_features.shape[1])
        grads[_FEATURES] = grad_terms[0] * to_features if ctx.semantic else zero
    return tuple(grads)


torch.library.register_autograd('gaussian_rasterization::render_loss', _backward, setup_context=_setup_context)
