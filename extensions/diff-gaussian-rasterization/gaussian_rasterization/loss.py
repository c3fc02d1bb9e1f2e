"""Losses between two renders, without their images where the backend can compute render, loss and gradient tile by tile."""

import torch
from torch import Tensor
from torch.nn import functional as F

from . import backends, constants
from .checks import check_features, check_finite, check_size, check_tensors, check_tile_mask
from .functional import rasterize
from .loss_settings import RenderLossOutput, RenderLossSettings, TargetGaussians, TargetImages
from .settings import RasterSettings

KL_FACTOR = 10.0
KL_FLOOR = 1e-8


def fused_render_loss(
    means: Tensor,  # (G, 3)
    quats: Tensor,  # (G, 4)
    scales: Tensor,  # (G, 3)
    opacities: Tensor,  # (G,)
    features: Tensor,  # (G, C)
    target: TargetGaussians | TargetImages,
    viewmats: Tensor,  # (V, 4, 4)
    Ks: Tensor,  # (V, 3, 3)
    width: int,
    height: int,
    background: Tensor | None = None,  # (C,) or (V, C)
    settings: RasterSettings = RasterSettings(),  # noqa: B008 (frozen)
    loss: RenderLossSettings = RenderLossSettings(),  # noqa: B008 (frozen)
    backend: str | None = None,
    *,
    view_weights: Tensor | None = None,  # (V,) or (V, 2)
    tile_mask: Tensor | None = None,  # (V, ceil(H / 16), ceil(W / 16)) bool
    fused: bool | None = None,
) -> RenderLossOutput:
    """Compare the render of a prediction with that of a target, in the same cameras and over the same background.

    The loss of a view is the mean error over its valid pixels; the views are added with their weights. On the CPU backend
    prediction, target, error and gradient of a tile are computed while it is in cache, and no image is written; gradients of
    features and opacities are ready after the forward pass, which skips them where nobody wants them. Other backends, and
    gradients of means, quats, scales, viewmats or background, render both images and compare them with PyTorch: the same
    numbers up to float32 rounding.

    Args:
        means: (G, 3) centres of the prediction, see :func:`rasterize`.
        quats: (G, 4).
        scales: (G, 3).
        opacities: (G,).
        features: (G, C), for instance class probabilities.
        target: Gaussians, rendered alike, or given images.
        viewmats: (V, 4, 4) reference -> camera.
        Ks: (V, 3, 3) intrinsics in pixels.
        width: Image width in pixels.
        height: Image height in pixels.
        background: (C,) or (V, C) of both renders; None: zeros.
        settings: Thresholds and variants of the rasteriser.
        loss: What is compared.
        backend: As in :func:`rasterize`.
        view_weights: Weight of every view, (V,), or of its two losses, (V, 2); None: 1 / V. No gradient.
        tile_mask: 16-pixel blocks marked False take no part in the losses: a random subset of tiles per step is an unbiased
            sample of the sums.
        fused: True: raise where images would have to be written; False: always write them; None: as said above.

    Returns:
        Losses, with gradients to the prediction, and what they are made of.

    Raises:
        TypeError: If a dtype does not fit.
        ValueError: If a shape, device, size, label or backend name does not fit, or ``fused=True`` cannot be had.
        RuntimeError: If the backend was not built; the message holds the command that builds it.
    """
    check_tensors(means, quats, scales, opacities, features, viewmats, Ks, background)
    if not features.is_floating_point():
        raise TypeError(f'fused_render_loss: features of the prediction must be (G, C) floating point, got {features.dtype}')
    views = viewmats.shape[0]
    channels = check_features(features, means.shape[0], views, background, None)
    check_size(width, height)
    if tile_mask is not None:
        check_tile_mask(tile_mask, views, width, height, constants.MASK_TILE, means.device)
    if settings.debug:
        check_finite(means=means, quats=quats, scales=scales, opacities=opacities, features=features, viewmats=viewmats, Ks=Ks)
    _check_target(target, viewmats, Ks, (views, height, width), channels, loss)
    inputs = [means, quats, scales, opacities, features, viewmats, Ks, *([] if background is None else [background])]
    dtype = torch.float64 if any(t.dtype == torch.float64 for t in inputs) else torch.float32
    name = backends.choose_backend('fused_render_loss', 'render', backend, means.device, dtype)

    if background is None:
        background = means.new_zeros(channels, dtype=dtype)
    background = background.to(dtype).expand(views, channels)
    if view_weights is None:
        view_weights = means.new_full((views,), 1.0 / views, dtype=dtype)
    if tuple(view_weights.shape) not in ((views,), (views, 2)):
        raise ValueError(f'fused_render_loss: view_weights must be ({views},) or ({views}, 2), got {tuple(view_weights.shape)}')
    view_weights = view_weights.detach().to(means.device, dtype).reshape(views, -1).expand(views, 2)
    prediction = [t.to(dtype) for t in (means, quats, scales, opacities, features)]
    target = type(target)(*(t.detach().to(dtype) if t is not None and t.is_floating_point() else t for t in target))

    obstacle = _obstacle(name, [means, quats, scales, viewmats, background])
    if fused and obstacle:
        raise ValueError(f'fused_render_loss: fused=True, but {obstacle}; use fused=None')
    cameras = (viewmats.to(dtype), Ks.detach().to(dtype), int(width), int(height))
    with torch.autocast(means.device.type, enabled=False):
        if obstacle or fused is False:
            compute = render_loss_reference
        else:
            from .loss_native import render_loss_native as compute
        return compute(prediction, target, cameras, background, settings, loss, name, view_weights, tile_mask)


def has_fused_loss(backend: str | None, device: torch.device | str, dtype: torch.dtype) -> bool:
    """Whether :func:`fused_render_loss` of such tensors can do without images.

    Args:
        backend: As in :func:`rasterize`.
        device: Of the tensors.
        dtype: Of the tensors.
    """
    device = torch.device(device)
    name = backends.default_backend(device, dtype) if backend is None else backend
    return device.type == name and dtype != torch.float64 and backends.COMPILED.get(('render_loss', name), False)


def _obstacle(backend: str, unused: list[Tensor]) -> str | None:
    """Why images have to be written, or None."""
    if not backends.COMPILED.get(('render_loss', backend)):
        return f"the '{backend}' backend has no fused loss"
    if torch.is_grad_enabled() and any(t.requires_grad for t in unused):
        return 'means, quats, scales, viewmats or background want a gradient, which the fused loss does not have'
    return None


def _check_target(target, viewmats: Tensor, Ks: Tensor, size: tuple[int, int, int], channels: int, loss) -> None:
    if isinstance(target, TargetGaussians):
        check_tensors(target.means, target.quats, target.scales, target.opacities, target.features, viewmats, Ks, None)
        classes = None if target.features.is_floating_point() else channels
        got = check_features(target.features, len(target.means), size[0], None, classes)
        if got != channels:
            raise ValueError(f'fused_render_loss: features of the target have {got} channels, of the prediction {channels}')
        return
    if not isinstance(target, TargetImages):
        raise TypeError(f'fused_render_loss: target must be TargetGaussians or TargetImages, got {type(target).__name__}')
    if loss.depth and target.depth is None:
        raise ValueError('fused_render_loss: the loss has a depth term, but target.depth is None; use depth=False')
    for name, image, want in (('features', target.features, (*size, channels)), ('depth', target.depth, size)):
        if image is not None and tuple(image.shape) != want:
            raise ValueError(f'fused_render_loss: target.{name} must be {want}, got {tuple(image.shape)}')


def render_loss_reference(
    prediction: list[Tensor], target, cameras, background: Tensor, settings: RasterSettings, loss: RenderLossSettings,
    backend: str, view_weights: Tensor, tile_mask: Tensor | None,
) -> RenderLossOutput:  # fmt: skip
    """Both renders and their comparison with PyTorch; arguments as :func:`fused_render_loss` has checked them."""
    options = dict(background=background, settings=settings, backend=backend)
    pred = rasterize(*prediction, *cameras, **options)
    if isinstance(target, TargetGaussians):
        with torch.no_grad():
            classes = None if target.features.is_floating_point() else background.shape[1]
            goal = rasterize(*target, *cameras, **options, num_classes=classes)
        target = TargetImages(goal.features, goal.depth)
    counts = torch.ones_like(pred.depth, dtype=torch.bool)
    if tile_mask is not None:
        pixels = tile_mask.repeat_interleave(constants.MASK_TILE, 1).repeat_interleave(constants.MASK_TILE, 2)
        counts &= pixels[:, : counts.shape[1], : counts.shape[2]]
    if loss.free_class is not None:
        counts &= target.features.argmax(-1) != loss.free_class
    errors = [torch.zeros_like(pred.depth), torch.zeros_like(pred.depth)]
    masks = [counts & (loss.semantic is not None), counts & False]
    if loss.semantic is not None:
        errors[0] = semantic_errors(pred.features, target.features, loss.semantic)
    if loss.depth:
        errors[1] = (pred.depth - target.depth).abs()
        masks[1] = counts & (target.depth > loss.min_depth)
    # where instead of a product: an infinite error outside the mask must not become NaN
    sums = torch.stack([torch.where(m, e, 0.0).sum((1, 2)) for m, e in zip(masks, errors, strict=True)], 1)
    pixels = torch.stack([m.sum((1, 2)) for m in masks], 1)
    view_means = sums / pixels.clamp(min=1)
    semantic, depth = (view_weights * view_means).sum(0)
    return RenderLossOutput(semantic, depth, view_means.detach(), pixels)


def semantic_errors(pred: Tensor, target: Tensor, kind: str) -> Tensor:
    """Errors (...) of feature images (..., C), see ``RenderLossSettings.semantic``."""
    if kind == 'l1':
        return (pred - target).abs().mean(-1)
    if kind == 'kl_softmax':
        log_pred, log_target = pred.log_softmax(-1), target.log_softmax(-1)
    else:
        log_pred, log_target = pred.clamp(min=KL_FLOOR).log(), target.clamp(min=KL_FLOOR).log()
    return KL_FACTOR * F.kl_div(log_pred, log_target, reduction='none', log_target=True).mean(-1)
