"""Scale from a rig of cameras: what one camera sees has to fit what its neighbours see of the same place.

Gaussian splatting for projection (GaussianOcc): every pixel becomes a small Gaussian at its predicted depth, and each camera's
picture is splatted from the Gaussians of the others. Only true metric depths put them in the right place, because the distances
between the cameras are known.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .photometric import photometric_error
from .splat import load_rasterizer


def ring_pairs(num_cameras: int) -> list[tuple[int, int]]:
    """Ordered pairs (target, source) of neighbours in a rig whose cameras stand in a circle, in this order."""
    pairs = []
    for target in range(num_cameras):
        sources = {(target - 1) % num_cameras, (target + 1) % num_cameras} - {target}
        pairs += [(target, source) for source in sorted(sources)]
    return pairs


def pixel_points(depth: Tensor, K: Tensor, cam2ref: Tensor) -> Tensor:
    """Points in space of all pixels.

    Args:
        depth: (N, 1, H, W), metres along the optical axes, at pixel centres.
        K: (N, 3, 3), at the size of the depth maps, pixels.
        cam2ref: (N, 4, 4), camera -> reference frame.

    Returns:
        (N, H * W, 3), metres, reference frame; gradients reach the depths.
    """
    directions = _pixel_directions(K, depth.shape[-2:])
    points = directions * depth.flatten(2)
    return (cam2ref[:, :3, :3] @ points + cam2ref[:, :3, 3:]).transpose(1, 2)


def _pixel_directions(K: Tensor, size: Sequence[int]) -> Tensor:
    """(N, 3, H * W), rays through pixel centres with z = 1."""
    height, width = size
    v, u = torch.meshgrid(
        torch.arange(height, dtype=K.dtype, device=K.device) + 0.5,
        torch.arange(width, dtype=K.dtype, device=K.device) + 0.5,
        indexing='ij',
    )
    return torch.linalg.inv(K) @ torch.stack([u, v, torch.ones_like(u)]).flatten(1)


def overlap_masks(
    K: Tensor,
    cam2ref: Tensor,
    size: Sequence[int],
    pairs: Sequence[tuple[int, int]],
    near: float = 0.1,
    far: float = 80.0,
    samples: int = 64,
    need: int = 2,
) -> Tensor:
    """Pixels of a camera along whose rays another one may see the same place. Depends on the calibration alone.

    Args:
        K: (N, 3, 3), at the size of the masks, pixels.
        cam2ref: (N, 4, 4), camera -> reference frame.
        size: (H, W) of the masks.
        pairs: Ordered pairs (target, source).
        near: First depth looked at, metres.
        far: Last depth, metres; depths in between are evenly spaced, because in inverse depth narrow overlaps vanish.
        samples: Number of depths.
        need: Number of them that must fall into the image of the source.

    Returns:
        (P, H, W) bool, per pair, over the target's pixels.
    """
    height, width = size
    depths = torch.linspace(near, far, samples, dtype=K.dtype, device=K.device)
    directions = _pixel_directions(K, size)
    limits = K.new_tensor([width, height]).view(2, 1)
    masks = []
    for target, source in pairs:
        motion = torch.linalg.inv(cam2ref[source]) @ cam2ref[target]
        # along a ray the projection is linear in the depth: no volume of points is needed
        turned = K[source] @ motion[:3, :3] @ directions[target]
        shift = K[source] @ motion[:3, 3:]
        count = torch.zeros(height * width, dtype=torch.long, device=K.device)
        for depth in depths:
            projected = turned * depth + shift
            uv = projected[:2] / projected[2:]
            count += ((projected[2] > 0) & (uv >= 0).all(0) & (uv < limits).all(0)).long()
        masks.append((count >= need).view(height, width))
    return torch.stack(masks) if masks else torch.zeros(0, height, width, dtype=torch.bool, device=K.device)


def erode(masks: Tensor, size: int) -> Tensor:
    """Erosion by a square; the border of the image itself does not erode.

    Args:
        masks: (P, H, W) bool.
        size: Edge of the square, odd, pixels.

    Raises:
        ValueError: If ``size`` is even or not positive.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f'the square of the erosion needs an odd edge, got {size}')
    if not len(masks):
        return masks
    outside = F.max_pool2d((~masks).float().unsqueeze(1), size, 1, size // 2)
    return (outside == 0).squeeze(1)


class CrossView(NamedTuple):
    """Result of :func:`cross_view_loss`.

    Attributes:
        loss: Scalar; 0 with a gradient of 0 where nothing can be compared.
        sums: (P,), sums of the errors per pair.
        counts: (P,), numbers of pixels compared per pair.
        colors: (P, 3, H, W), splatted colours, not divided by alpha; without gradient.
        alphas: (P, H, W), how much of a pixel is covered; without gradient.
    """

    loss: Tensor
    sums: Tensor
    counts: Tensor
    colors: Tensor
    alphas: Tensor


def cross_view_loss(
    images: Tensor,
    depth: Tensor,
    K: Tensor,
    cam2ref: Tensor,
    pairs: Sequence[tuple[int, int]],
    overlap: Tensor,
    compared: Tensor,
    use: Tensor | None = None,
    scale: float | Tensor = 0.02,
    alpha_min: float = 0.5,
    alpha_floor: float = 0.05,
    literal: bool = False,
    backend: str | None = None,
) -> CrossView:
    """Photometric difference of every camera's image and what the other cameras' Gaussians show of it.

    For a pair (target, source), the target's own Gaussians inside the overlap are taken out, so that the source has to explain
    them. Colours are divided by alpha; where too little of a pixel is covered, it takes the target's colour before windows are
    compared, and does not count.

    Args:
        images: (N, 3, H, W), 0..1.
        depth: (N, 1, H, W), metres along the optical axes.
        K: (N, 3, 3), at this size, pixels.
        cam2ref: (N, 4, 4), camera -> reference frame.
        pairs: Ordered pairs (target, source).
        overlap: (P, H, W) bool, pixels whose own Gaussians are taken out, see :func:`overlap_masks`.
        compared: (P, H, W) bool, pixels that are compared, the overlap eroded.
        use: (N, 1, H, W), 0 on the own car: no Gaussians there, and not compared. None: everywhere.
        scale: Standard deviation of the Gaussians, metres, one number or a map (N, 1, H, W). Larger ones, half a pixel for
            example, move the minimum away from the true scale.
        alpha_min: Pixels covered less do not count.
        alpha_floor: Smallest divisor.
        literal: Compare the colours as they are over all of ``compared``, as the paper can be read: holes are black, and the
            loss falls as depths grow to infinity.
        backend: Of the rasteriser.

    Returns:
        Loss and what it is made of; gradients reach ``depth``, and ``scale`` if it is a tensor.
    """
    count, _, height, width = images.shape
    points = pixel_points(depth, K, cam2ref)
    colors = images.flatten(2).transpose(1, 2)
    spread = torch.as_tensor(scale, dtype=points.dtype, device=points.device)
    spread = spread.expand(count, 1, height, width).flatten(1)
    there = torch.ones(count, height * width, dtype=torch.bool, device=images.device)
    if use is not None:
        there = there & (use.flatten(1) > 0)
    ref2cam = torch.linalg.inv(cam2ref)
    rasterizer = load_rasterizer()
    settings = rasterizer.RasterSettings()
    sums, counts, rendered, alphas = [], [], [], []
    for pair, (target, _) in enumerate(pairs):
        keep = there.clone()
        keep[target] &= ~overlap[pair].flatten()
        means, radius = points[keep], spread[keep].unsqueeze(1).expand(-1, 3)
        quats = means.new_zeros(len(means), 4)
        quats[:, 0] = 1
        output = rasterizer.rasterize(
            means,
            quats,
            radius,
            means.new_ones(len(means)),
            colors[keep],
            ref2cam[target : target + 1],
            K[target : target + 1],
            width,
            height,
            settings=settings,
            backend=backend,
        )
        color, alpha = output.features.permute(0, 3, 1, 2), output.alpha.unsqueeze(1)
        counted = compared[pair].view(1, 1, height, width)
        if use is not None:
            counted = counted & (use[target : target + 1] > 0)
        image = images[target : target + 1]
        if not literal:
            covered = alpha.detach() > alpha_min
            color = torch.where(covered, color / alpha.clamp(min=alpha_floor), image)
            counted = counted & covered
        error = photometric_error(color, image)
        sums.append(error.where(counted, torch.zeros_like(error)).sum())
        counts.append(counted.sum())
        rendered.append(output.features.detach()[0].permute(2, 0, 1))
        alphas.append(output.alpha.detach()[0])
    if not pairs:
        empty = images.new_zeros(0)
        return CrossView(
            0 * depth.sum(), empty, empty, images.new_zeros(0, 3, height, width), images.new_zeros(0, height, width)
        )
    total, number = torch.stack(sums), torch.stack(counts)
    loss = total.sum() / number.sum().clamp(min=1) + 0 * depth.sum()
    return CrossView(loss, total.detach(), number, torch.stack(rendered), torch.stack(alphas))
