"""Comparison of an image with its neighbours in time through a depth map.

Formulas of Monodepth2 and SurroundDepth as GaussianOcc uses them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

MASK_MODES = ('exclude', 'zero')
SSIM_WINDOW = 3  # pixels


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


def smallest_error(
    warped: Sequence[Tensor],
    unwarped: Sequence[Tensor] = (),
    mask: Tensor | None = None,
    mask_mode: str = 'exclude',
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Smallest error of every pixel over all neighbours.

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
        The error and whether the pixel counts, (B, 1, H, W) each.

    Raises:
        ValueError: If ``mask_mode`` is unknown.
    """
    if mask_mode not in MASK_MODES:
        raise ValueError(f'mask_mode must be one of {MASK_MODES}, got {mask_mode!r}')
    errors = torch.cat(list(warped), 1)
    if mask is not None and mask_mode == 'zero':
        errors = errors * mask.to(errors.dtype)
    if unwarped:
        still = torch.cat(list(unwarped), 1)
        errors = torch.cat([still if noise is None else still + noise, errors], 1)
    smallest = errors.min(1, keepdim=True).values
    everywhere = torch.ones_like(smallest, dtype=torch.bool)
    return smallest, everywhere if mask is None or mask_mode == 'zero' else everywhere & (mask > 0)


def masked_mean(values: Tensor, counted: Tensor) -> Tensor:
    """Mean over the pixels that count, without dimensions; 0, with a gradient of 0, where none does."""
    return values.where(counted, torch.zeros_like(values)).sum() / counted.sum().clamp(min=1)


class Neighbour(NamedTuple):
    """The views of B cameras at another time.

    Attributes:
        image: (B, 3, H, W), 0..1.
        K: (B, 3, 3), intrinsics at this size, pixels measured from the image's corner.
        motion: (B, 4, 4), points of each camera at the key frame -> of the same camera at this time; may carry a gradient.
    """

    image: Tensor
    K: Tensor
    motion: Tensor


def reprojection_error(
    depth: Tensor,
    image: Tensor,
    K: Tensor,
    neighbours: Sequence[Neighbour],
    mask: Tensor | None = None,
    automask: bool = True,
    mask_mode: str = 'exclude',
    half_pixel: bool = True,
    visible_only: bool = False,
    noise: float | Tensor = 1e-5,
) -> tuple[Tensor, Tensor]:
    """How well the neighbours in time, seen through a depth map, show an image.

    Args:
        depth: (B, 1, H, W), metres along the optical axis.
        image: (B, 3, H, W), 0..1, of the key frame.
        K: (B, 3, 3), intrinsics at this size, pixels.
        neighbours: The same cameras at other times.
        mask: As in :func:`smallest_error`.
        automask: Whether the neighbours as they are compete with the warped ones.
        mask_mode: As in :func:`smallest_error`.
        half_pixel: As in :func:`warp_image`.
        visible_only: Leave out warped pixels that come from behind the neighbour or from outside its image. Off, as in the
            original: they are compared with the border, and the automatic mask handles most of them.
        noise: Standard deviation of the noise on errors of unwarped neighbours, or the noise itself
            (B, len(neighbours), H, W).

    Returns:
        The smallest error and whether the pixel counts, (B, 1, H, W) each.
    """
    warped, still = [], []
    for neighbour in neighbours:
        seen = warp_image(neighbour.image, depth, K, neighbour.K, neighbour.motion, half_pixel)
        error = photometric_error(seen.image, image)
        warped.append(error.where(seen.visible, torch.full_like(error, torch.inf)) if visible_only else error)
        if automask:
            still.append(photometric_error(neighbour.image, image))
    added = None
    if still:
        added = noise if torch.is_tensor(noise) else noise * torch.randn_like(torch.cat(still, 1))
    smallest, counted = smallest_error(warped, still, mask, mask_mode, added)
    return (smallest, counted & smallest.detach().isfinite()) if visible_only else (smallest, counted)


def smoothness(depth: Tensor, image: Tensor, mask: Tensor | None = None, eps: float = 1e-7) -> Tensor:
    """Differences of neighbouring inverse depths, weighted down at edges of the image.

    Args:
        depth: (B, 1, H, W), metres.
        image: (B, 3, H, W), 0..1, of the same view and size.
        mask: (B, 1, H, W), 0 on the own car, whose edges do not count: nothing else is known of the depth there, and it
            continues what is around. None: nowhere.
        eps: Added to denominators.

    Returns:
        A scalar; inverse depths are divided by their mean over the image, so that the scale of the scene does not matter.
    """
    inverse = 1 / (depth + eps)
    inverse = inverse / (inverse.mean((2, 3), keepdim=True) + eps)
    loss = 0.0
    for axis in (2, 3):
        edge = image.diff(dim=axis).abs().mean(1, keepdim=True)
        if mask is not None:
            there = mask > 0
            size = mask.shape[axis] - 1
            edge = edge * (there.narrow(axis, 0, size) & there.narrow(axis, 1, size))
        loss = loss + (inverse.diff(dim=axis).abs() * torch.exp(-edge)).mean()
    return loss
