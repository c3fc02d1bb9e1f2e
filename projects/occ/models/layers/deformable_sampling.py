"""The sampling step of multi-scale deformable attention, one call for all devices."""

import math
from collections.abc import Sequence

import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch
from torch import Tensor

MAX_IM2COL_STEP = 64


def deformable_sampling(value: Tensor, spatial_shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Samples feature maps bilinearly (zero outside, pixel centres at +0.5) and adds up the weighted samples of every head.

    Uses mmcv's CUDA kernel for tensors on a GPU and mmcv's PyTorch form elsewhere. Half precision input is sampled in float32:
    positions far outside the image would overflow.

    Args:
        value: (B, S, M, C/M), the maps of all levels flattened row by row and concatenated, for M heads.
        spatial_shapes: (h, w) of every level; the products sum up to S.
        locations: (B, Q, M, levels, P, 2), x before y, [0, 1] inside the map.
        weights: (B, Q, M, levels, P).

    Returns:
        (B, Q, C), float32 or wider, heads concatenated.
    """
    dtype = torch.promote_types(value.dtype, torch.float32)
    value, locations, weights = (t.to(dtype).contiguous() for t in (value, locations, weights))
    if not value.is_cuda:
        return multi_scale_deformable_attn_pytorch(value, spatial_shapes, locations, weights)
    shapes = torch.tensor(spatial_shapes, dtype=torch.long, device=value.device)
    areas = shapes.prod(1)
    batch_size = value.shape[0]
    # The kernel walks over the batch in equal steps, so the step must divide the batch size.
    step = next(s for s in range(min(batch_size, MAX_IM2COL_STEP), 0, -1) if batch_size % s == 0)
    return MultiScaleDeformableAttnFunction.apply(value, shapes, areas.cumsum(0) - areas, locations, weights, step)


def star_directions(num_heads: int) -> Tensor:
    """One direction per head, evenly spread over the circle and stretched onto the unit square: (M, 2), x before y.

    The usual start value of sampling offsets (Deformable DETR); point j of a head starts j + 1 such steps away.
    """
    angles = torch.arange(num_heads, dtype=torch.float32) * (2.0 * math.pi / num_heads)
    directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
    return directions / directions.abs().max(-1, keepdim=True).values
