"""Ray marching in PyTorch operations: any device, float32 or float64, all derivatives of density and features."""

import torch
from torch import Tensor
from torch.nn.functional import softplus
from torch.utils.checkpoint import checkpoint

from .march_settings import INFINITE_STEP, MarchSettings, contract_unit

CHUNK_ELEMENTS = 1 << 22
"""Rays are marched in chunks of about so many samples times channels; more than one chunk is recomputed for its gradient."""


def optical_depth(density: Tensor, widths: Tensor | float, settings: MarchSettings) -> Tensor:
    """What a sample takes from the logarithm of the transmittance, for the forms ``'nerf'`` and ``'dvgo'``.

    Args:
        density: (...) value at the sample: per metre for ``'nerf'``, raw for ``'dvgo'``.
        widths: (...) step length, metres (``'nerf'``).
        settings: Form, shift and interval.

    Returns:
        (...) tau >= 0; the opacity of the sample is ``-expm1(-tau)``.

    Raises:
        ValueError: For the form ``'prob'``, which has none.
    """
    if settings.form == 'dvgo':
        return settings.interval * softplus(density + settings.shift)
    if settings.form == 'nerf':
        return density.clamp_min(0) * widths
    raise ValueError("optical_depth: the form 'prob' adds up probabilities, it has no optical depth")


def ray_weights(depths: Tensor, alpha_min: float = 0.0, transmittance_min: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the samples of rays.

    Args:
        depths: (..., S) optical depths of :func:`optical_depth`; the last axis runs along the ray.
        alpha_min: Samples with opacity <= this are skipped; 0 keeps all.
        transmittance_min: The ray ends after the sample that takes the transmittance below this.

    Returns:
        Weights (..., S), light (...) that is left behind the last sample, and (..., S) bool: sample was used.
    """
    used = torch.ones_like(depths, dtype=torch.bool)
    if alpha_min > 0:
        used = ~(-torch.expm1(-depths) <= alpha_min)
        depths = torch.where(used, depths, 0.0)
    before = torch.exp(-torch.nn.functional.pad(depths[..., :-1].cumsum(-1), (1, 0)))
    if transmittance_min > 0:
        alive = before >= transmittance_min
        used, depths = used & alive, torch.where(alive, depths, 0.0)
    return before * -torch.expm1(-depths), torch.exp(-depths.sum(-1)), used


def probability_weights(probabilities: Tensor, transmittance_min: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the form ``'prob'``: what a sample adds to min(running sum, 1).

    Returns:
        As :func:`ray_weights`.
    """
    total = probabilities.cumsum(-1).clamp_max(1)
    before = torch.nn.functional.pad(total[..., :-1], (1, 0))
    used = (1 - before) > 0 if transmittance_min == 0 else (1 - before) >= transmittance_min
    weights = torch.where(used, total - before, 0.0)
    return weights, 1 - torch.where(used, probabilities, 0.0).sum(-1).clamp_max(1), used


def ray_distortion(weights: Tensor, positions: Tensor, intervals: Tensor | float) -> Tensor:
    """Distortion of the weights of every ray: sum_ij w_i w_j \\|m_i - m_j\\| + 1/3 sum_i q_i w_i^2.

    Args:
        weights: (..., S).
        positions: (..., S) or (S,), increasing.
        intervals: Widths q, (..., S), or a number.

    Returns:
        (...) per ray.
    """
    mass = weights.cumsum(-1) - weights
    moment = (weights * positions).cumsum(-1) - weights * positions
    pairs = 2 * (weights * (positions * mass - moment)).sum(-1)
    return pairs + (intervals * weights * weights).sum(-1) / 3


def march_reference(
    density: Tensor, features: Tensor, origins: Tensor, directions: Tensor, t: Tensor, transform: Tensor,
    settings: MarchSettings,
) -> tuple[Tensor, ...]:  # fmt: skip
    """March checked inputs of one dtype; shapes, units and results as in ``march_native``."""
    batch, rays = origins.shape[:2]
    samples = t.shape[-1] - (t.dim() == 3)
    chunk = max(1, CHUNK_ELEMENTS // (samples * max(8, features.shape[-1])))
    saving = torch.is_grad_enabled() and (density.requires_grad or features.requires_grad)
    parts = []
    for b in range(batch):
        for begin in range(0, rays, chunk):
            rows = slice(begin, begin + chunk)
            positions = t if t.dim() == 1 else t[b, rows]
            args = (density[b], features[b], origins[b, rows], directions[b, rows], positions, transform, settings)
            parts.append(
                checkpoint(_march_chunk, *args, use_reentrant=False, preserve_rng_state=False)
                if saving and batch * rays > chunk
                else _march_chunk(*args)
            )
    if not parts:  # no rays
        parts = [_march_chunk(density.new_zeros(density.shape[1:]), features.new_zeros(features.shape[1:]),
                              origins.new_zeros(0, 3), directions.new_zeros(0, 3),
                              t if t.dim() == 1 else t.new_zeros(0, samples + 1), transform, settings)]  # fmt: skip
    results = [torch.cat(part).reshape(batch, rays, *part[0].shape[1:]) for part in zip(*parts, strict=True)]
    if rays == 0 or batch == 0:  # keep the graph, so that a loss over no rays has a gradient of zeros
        results[1] = results[1] + 0 * (density.sum() + features.sum())
    return tuple(results)


def _march_chunk(density, features, origins, directions, t, transform, settings):
    """March (n, 3) rays through one volume."""
    points = t.dim() == 1
    unit = settings.unit
    low, width = (t, None) if points else (t[..., :-1], _step(t[..., 1:] - t[..., :-1], unit))
    u = low if points else 0.5 * (t[..., :-1] + t[..., 1:])
    p = origins[:, None] + directions[:, None] * u[..., None]
    kept = torch.ones(p.shape[:2], dtype=torch.bool, device=p.device)
    if settings.contraction is not None:
        p, inner = contract_unit(p, settings.contraction.background)
        spacing = settings.contraction.min_spacing / settings.contraction.radius
        if spacing > 0:
            kept = _keep(p, inner, spacing)
    if width is None:
        width = _widths(u, kept, settings)
    index = p * transform[0] + transform[1]

    shape = density.shape
    size = index.new_tensor(shape)
    inside = ((index > -1) & (index < size)).all(-1)
    base = torch.where(inside[..., None], index.floor(), 0.0)
    fraction = torch.where(inside[..., None], index - base, 0.0)
    base = base.long()
    corners = []  # rows of the volume and their trilinear weights
    for cx in (0, 1):
        for cy in (0, 1):
            for cz in (0, 1):
                corner = base + base.new_tensor([cx, cy, cz])
                valid = inside & ((corner >= 0) & (corner < base.new_tensor(shape))).all(-1)
                row = (corner[..., 0] * shape[1] + corner[..., 1]) * shape[2] + corner[..., 2]
                weight = 1.0
                for axis, side in enumerate((cx, cy, cz)):
                    weight = weight * (fraction[..., axis] if side else 1 - fraction[..., axis])
                corners.append((torch.where(valid, row, 0), torch.where(valid, weight, 0.0)))

    flat = density.reshape(-1)
    value = sum(weight * flat.index_select(0, row.flatten()).view_as(weight) for row, weight in corners)
    if settings.form == 'prob':
        probability = torch.where(kept, value.sigmoid(), 0.0)
        if settings.alpha_min > 0:
            probability = torch.where(probability <= settings.alpha_min, 0.0, probability)
        weights, light, used = probability_weights(probability, settings.transmittance_min)
        used = used & (~(probability <= settings.alpha_min) if settings.alpha_min > 0 else kept)
        alpha = weights.sum(-1)
    else:
        depths = torch.where(kept, optical_depth(value, width * unit, settings), 0.0)
        weights, light, used = ray_weights(depths, settings.alpha_min, settings.transmittance_min)
        used = used & kept
        alpha = -torch.expm1(-torch.where(used, depths, 0.0).sum(-1))
    counted = used & ~(weights <= settings.weight_min) if settings.weight_min > 0 else used
    weights = torch.where(counted, weights, 0.0)
    count = counted.sum(-1, dtype=torch.int32)

    contracted = u.clamp_min(0) / (1 + u.clamp_min(0))
    depth = (weights * (contracted if settings.depth_mode == 'contracted' else u)).sum(-1) * unit
    distortion = depth.new_zeros(len(origins), 0)
    if settings.distortion is not None:
        if settings.distortion == 'width':
            start, end = low.clamp_min(0), (low + width).clamp_min(0)
            interval = end / (1 + end) - start / (1 + start)
        elif settings.distortion == 'count':
            interval = (1 / count.clamp_min(1).to(depth.dtype))[:, None]
        else:
            interval = float(settings.distortion)
        distortion = ray_distortion(weights, contracted, interval)[:, None]

    sums = weights.new_zeros(len(origins), features.shape[-1])
    if features.shape[-1]:
        rows = features.reshape(-1, features.shape[-1])
        for row, weight in corners:
            values = rows.index_select(0, row.flatten()).view(*row.shape, rows.shape[1])
            sums = sums + torch.einsum('ns,nsc->nc', weight * weights, values)
    return sums, depth, alpha, light, distortion, weights if settings.weights else weights[:, :0], count


def _keep(p, inner, spacing):
    """Samples (n, S) that are not too close to their predecessors."""
    step = (p[:, 1:] - p[:, :-1]).unbind(-1)
    length = (step[0] * step[0] + step[1] * step[1] + step[2] * step[2]).sqrt()
    kept, moved = [inner[:, 0]], torch.zeros_like(length[:, 0]) if length.shape[1] else None
    for k in range(length.shape[1]):
        moved = moved + length[:, k]
        far = moved > spacing
        kept.append(inner[:, k + 1] | far)
        moved = torch.where(far, 0.0, moved)
    return torch.stack(kept, 1)


def _step(width, unit):
    """Lengths that are finite and not negative."""
    return width.nan_to_num(0.0, posinf=float('inf')).clamp(0, INFINITE_STEP / unit)


def _widths(u, kept, settings):
    """Steps (n, S) from every kept sample to the next kept one; the last one is infinite or repeats the one before."""
    # distances of the kept neighbours, by running extremes over positions that increase
    behind = torch.where(kept, u, float('inf')).flip(-1).cummin(-1).values.flip(-1)
    before = torch.where(kept, u, -float('inf')).cummax(-1).values
    following = torch.nn.functional.pad(behind[:, 1:], (0, 1), value=float('inf'))
    previous = torch.nn.functional.pad(before[:, :-1], (1, 0), value=-float('inf'))
    if settings.last_step == 'repeat' and kept.shape[1] > 1:
        previous = torch.where(previous.isinf(), u, previous)
        following = torch.where(following.isinf(), u + (u - previous), following)
    return _step(following - u, settings.unit)
