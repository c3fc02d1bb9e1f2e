"""Comparison of an image with its neighbours in time through a depth map.

Formulas of Monodepth2 and SurroundDepth as GaussianOcc uses them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MASK_MODES = ('exclude', 'zero')


def ssim_distance(image: Tensor, other: Tensor) -> Tensor:
    """Structural dissimilarity over windows of 3x3 pixels.

    Args:
        image: (B, C, H, W), 0..1.
        other: The same shape.

    Returns:
        (B, C, H, W), ``(1 - SSIM) / 2`` clamped to 0..1; windows are reflected at the border.
    """
    image, other = (F.pad(x, (1, 1, 1, 1), mode='reflect') for x in (image, other))
    mean_a, mean_b = F.avg_pool2d(image, 3, 1), F.avg_pool2d(other, 3, 1)
    var_a = F.avg_pool2d(image**2, 3, 1) - mean_a**2
    var_b = F.avg_pool2d(other**2, 3, 1) - mean_b**2
    covariance = F.avg_pool2d(image * other, 3, 1) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    denominator = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return ((1 - numerator / denominator) / 2).clamp(0, 1)


def photometric_error(image: Tensor, other: Tensor, ssim_weight: float = 0.85) -> Tensor:
    """Difference of two images pixel by pixel.

    Args:
        image: (B, C, H, W), 0..1.
        other: The same shape.
        ssim_weight: Share of :func:`ssim_distance`; the rest is the absolute difference.

    Returns:
        (B, 1, H, W).
    """
    absolute = (image - other).abs().mean(1, keepdim=True)
    return ssim_weight * ssim_distance(image, other).mean(1, keepdim=True) + (1 - ssim_weight) * absolute


class Warped(NamedTuple):
    """An image seen from another view.

    Attributes:
        image: (B, C, H, W), the source image where the target's pixels look.
        grid: (B, H, W, 2), those places, -1..1 over the source image.
        visible: (B, 1, H, W) bool, the point lies in front of the source camera and inside its image.
    """

    image: Tensor
    grid: Tensor
    visible: Tensor


def warp_image(
    source: Tensor, depth: Tensor, K: Tensor, source_K: Tensor, motion: Tensor, half_pixel: bool = True, eps: float = 1e-7
) -> Warped:
    """Looks a source image up at the points that a target view's depth map describes.

    Args:
        source: (B, C, H, W), of the other view.
        depth: (B, 1, H, W) of the target view, metres along its optical axis.
        K: (B, 3, 3), intrinsics of the target view at the size of ``depth``, pixels measured from the image's corner.
        source_K: (B, 3, 3), intrinsics of the source view at the size of ``source``.
        motion: (B, 4, 4), points of the target camera -> of the source camera; may carry a gradient.
        half_pixel: Depths and colours belong to pixel centres, half a pixel from the corner. False: to corners, and the border
            of the source image lies in the middle of its outer pixels, as in the original and its published numbers.
        eps: Added to depths in the denominator.

    Returns:
        The warped image and where it was looked up; beyond the border the outermost pixels repeat.
    """
    height, width = depth.shape[-2:]
    offset = 0.5 if half_pixel else 0.0
    v, u = torch.meshgrid(
        torch.arange(height, dtype=depth.dtype, device=depth.device) + offset,
        torch.arange(width, dtype=depth.dtype, device=depth.device) + offset,
        indexing='ij',
    )
    pixels = torch.stack([u, v, torch.ones_like(u)]).flatten(1)
    points = torch.linalg.inv(K) @ pixels * depth.flatten(2)
    projection = source_K @ motion[:, :3]
    projected = projection[..., :3] @ points + projection[..., 3:]
    uv = projected[:, :2] / (projected[:, 2:] + eps)
    size = uv.new_tensor([source.shape[-1], source.shape[-2]]).view(1, 2, 1)
    grid = 2 * uv / (size if half_pixel else size - 1) - 1
    visible = (grid.detach().abs() <= 1).all(1) & (projected[:, 2] > 0)
    grid = grid.transpose(1, 2).unflatten(1, (height, width))
    image = F.grid_sample(source, grid, padding_mode='border', align_corners=not half_pixel)
    return Warped(image, grid, visible.view(-1, 1, height, width))


def minimum_error(
    warped: Sequence[Tensor],
    unwarped: Sequence[Tensor] = (),
    mask: Tensor | None = None,
    mask_mode: str = 'exclude',
    noise: Tensor | None = None,
) -> Tensor:
    """Smallest error of every pixel over all neighbours, averaged.

    Where the neighbours as they are fit better than warped ones, the pixel gives no gradient: it moves with the camera or has
    no texture (automatic mask of Monodepth2).

    Args:
        warped: Errors (B, 1, H, W) of the warped neighbours.
        unwarped: Errors (B, 1, H, W) of the neighbours as they are; empty for no automatic mask.
        mask: (B, 1, H, W), True or 1 where the image may be compared, 0 on the own car; None: everywhere.
        mask_mode: ``'exclude'``: masked pixels do not count. ``'zero'``: they count with a warped error of 0, which wins but
            has no gradient, as in the original.
        noise: (B, len(unwarped), H, W), added to ``unwarped`` to break ties.

    Returns:
        A scalar; 0, with a gradient of 0, where everything is masked.

    Raises:
        ValueError: If ``mask_mode`` is unknown.
    """
    if mask_mode not in MASK_MODES:
        raise ValueError(f'mask_mode must be one of {MASK_MODES}, got {mask_mode!r}')
    own, others = torch.cat(list(warped), 1), list(unwarped)
    if mask is not None and mask_mode == 'zero':
        own = own * mask.to(own.dtype)
    if others:
        still = torch.cat(others, 1)
        own = torch.cat([still if noise is None else still + noise, own], 1)
    smallest = own.min(1, keepdim=True).values
    if mask is None or mask_mode == 'zero':
        return smallest.mean()
    valid = mask.to(torch.bool).expand_as(smallest)
    return smallest.where(valid, torch.zeros_like(smallest)).sum() / valid.sum().clamp(min=1)


def smoothness(depth: Tensor, image: Tensor, eps: float = 1e-7) -> Tensor:
    """Differences of neighbouring inverse depths, weighted down at edges of the image.

    Args:
        depth: (B, 1, H, W), metres.
        image: (B, 3, H, W), 0..1, of the same view and size.
        eps: Added to denominators.

    Returns:
        A scalar; inverse depths are divided by their mean over the image, so that the scale of the scene does not matter.
    """
    inverse = 1 / (depth + eps)
    inverse = inverse / (inverse.mean((2, 3), keepdim=True) + eps)
    loss = 0.0
    for axis in (2, 3):
        edge = image.diff(dim=axis).abs().mean(1, keepdim=True)
        loss = loss + (inverse.diff(dim=axis).abs() * torch.exp(-edge)).mean()
    return loss
