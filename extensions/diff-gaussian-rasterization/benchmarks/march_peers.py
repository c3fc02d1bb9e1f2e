"""Other ways to march rays of the form 'dvgo': PyTorch's ``grid_sample``, and a scalar loop compiled by numba."""

import numba
import numpy as np
import torch
import torch.nn.functional as F

from gaussian_rasterization.march_reference import _keep
from gaussian_rasterization.march_settings import contract_unit


def kept_samples(scene, settings):
    """Samples that the rule of the contraction keeps.

    Returns:
        Ray numbers (M,), t (M,) metres and points (M, 3) in metres after the contraction.
    """
    contraction = settings.contraction
    center = scene['origins'].new_tensor(contraction.center)
    u = scene['t'] / contraction.radius
    p = ((scene['origins'][0] - center) / contraction.radius)[:, None] + scene['directions'][0][:, None] * u[:, None]
    p, inner = contract_unit(p, contraction.background)
    kept = _keep(p, inner, contraction.min_spacing / contraction.radius)
    ray, sample = kept.nonzero(as_tuple=True)
    return ray, scene['t'][sample], p[ray, sample] * contraction.radius + center


def grid_sample_march(scene, settings, sparse=False):
    """March with ``torch.nn.functional.grid_sample``; ``sparse``: look features up only where weights count.

    Density (1, X, Y, Z) and features (1, C, X, Y, Z) as ``grid_sample`` wants them.

    Returns:
        Features (R, C), depth (R,).
    """
    with torch.no_grad():
        ray, t, points = kept_samples(scene, settings)
        lower, size = (points.new_tensor(scene[k]) for k in ('lower', 'voxel_size'))
        shape = points.new_tensor(scene['density'].shape[1:])
        grid = ((points - lower) / (size * shape) * 2 - 1).flip(-1)[None, None, None]
        first = torch.searchsorted(ray, torch.arange(len(scene['origins'][0])))
        place = torch.arange(len(ray)) - first[ray]
    density = F.grid_sample(scene['density'][:, None], grid, align_corners=False)[0, 0, 0, 0]
    tau = settings.interval * F.softplus(density + settings.shift)
    rays, most = len(scene['origins'][0]), int(place.max()) + 1
    dense = tau.new_zeros(rays, most).index_put((ray, place), tau)
    total = dense.cumsum(1)
    light = torch.exp(-(total - dense))
    if sparse:
        light = torch.where(light >= settings.transmittance_min, light, 0.0)
    weights = (light * -torch.expm1(-dense))[ray, place]
    depth = weights.new_zeros(rays).index_add(0, ray, weights * t)
    if sparse:
        chosen = (weights > settings.weight_min).nonzero()[:, 0]
        ray, weights, grid = ray[chosen], weights[chosen], grid[..., chosen, :]
    values = F.grid_sample(scene['features'], grid, align_corners=False)[0, :, 0, 0].t()
    sums = values.new_zeros(rays, values.shape[1]).index_add(0, ray, weights[:, None] * values)
    return sums, depth


@numba.njit(cache=False, fastmath=True)
def _trace(density, lower, size, center, radius, background, spacing, o, d, t, shift, interval, stop, u_out, cell, part, state):
    """One ray; fills position, cell, fractions and (weight, light before, slope) of its samples, returns how many."""
    used, moved, light = 0, 0.0, 1.0
    last = np.zeros(3)
    p = np.zeros(3)
    for k in range(len(t)):
        square = 0.0
        for a in range(3):
            p[a] = (o[a] - center[a] + d[a] * t[k]) / radius
            square += p[a] * p[a]
        q = np.sqrt(square)
        if q > 1:
            scale = (1 + background - background / q) / q
            for a in range(3):
                p[a] *= scale
        step = 0.0
        for a in range(3):
            step += (p[a] - last[a]) ** 2
            last[a] = p[a]
        if k > 0:
            moved += np.sqrt(step)
        far = moved > spacing
        if far:
            moved = 0.0
        if q > 1 and not far:
            continue
        inside, value = True, 0.0
        for a in range(3):
            g = (p[a] * radius + center[a] - lower[a]) / size[a] - 0.5
            inside = inside and -1 < g < density.shape[a]
            cell[used, a] = int(np.floor(g)) if inside else -2
            part[used, a] = g - np.floor(g)
        if inside:
            for c in range(8):
                x, y, z = cell[used, 0] + (c >> 2), cell[used, 1] + ((c >> 1) & 1), cell[used, 2] + (c & 1)
                if 0 <= x < density.shape[0] and 0 <= y < density.shape[1] and 0 <= z < density.shape[2]:
                    w = part[used, 0] if c & 4 else 1 - part[used, 0]
                    w *= part[used, 1] if c & 2 else 1 - part[used, 1]
                    w *= part[used, 2] if c & 1 else 1 - part[used, 2]
                    value += w * density[x, y, z]
        else:
            cell[used, 0] = -2
        e = np.exp(min(value + shift, 30.0))
        alpha = -np.expm1(-interval * np.log1p(e))
        u_out[used] = t[k]
        state[used, 0] = light * alpha
        state[used, 1] = light
        state[used, 2] = interval * e / (1 + e)
        light *= 1 - alpha
        used += 1
        if light < stop:
            break
    state[used, 1] = light
    return used


@numba.njit(cache=False, fastmath=True)
def _loop_forward(density, features, lower, size, center, radius, background, spacing, origins, directions, t, shift, interval,
                  stop, least, sums, depth):  # fmt: skip
    n = len(t) + 1
    u, cell, part, state = np.zeros(n), np.zeros((n, 3), np.int64), np.zeros((n, 3)), np.zeros((n, 3))
    for r in range(len(origins)):
        used = _trace(density, lower, size, center, radius, background, spacing, origins[r], directions[r], t, shift, interval,
                      stop, u, cell, part, state)  # fmt: skip
        for k in range(used):
            w = state[k, 0]
            if w <= least:
                continue
            depth[r] += w * u[k]
            if cell[k, 0] < -1:
                continue
            for c in range(8):
                x, y, z = cell[k, 0] + (c >> 2), cell[k, 1] + ((c >> 1) & 1), cell[k, 2] + (c & 1)
                if 0 <= x < density.shape[0] and 0 <= y < density.shape[1] and 0 <= z < density.shape[2]:
                    s = w * (part[k, 0] if c & 4 else 1 - part[k, 0])
                    s *= part[k, 1] if c & 2 else 1 - part[k, 1]
                    s *= part[k, 2] if c & 1 else 1 - part[k, 2]
                    s32 = np.float32(s)
                    for i in range(features.shape[3]):
                        sums[r, i] += s32 * features[x, y, z, i]


@numba.njit(cache=False, fastmath=True)
def _loop_backward(density, features, lower, size, center, radius, background, spacing, origins, directions, t, shift, interval,
                   stop, least, grad_sums, grad_depth, to_density, to_features):  # fmt: skip
    n = len(t) + 1
    u, cell, part, state = np.zeros(n), np.zeros((n, 3), np.int64), np.zeros((n, 3)), np.zeros((n, 3))
    value = np.zeros(n)
    for r in range(len(origins)):
        used = _trace(density, lower, size, center, radius, background, spacing, origins[r], directions[r], t, shift, interval,
                      stop, u, cell, part, state)  # fmt: skip
        for k in range(used):
            w = state[k, 0]
            value[k] = 0.0
            if w <= least:
                continue
            value[k] = grad_depth[r] * u[k]
            if cell[k, 0] < -1:
                continue
            for c in range(8):
                x, y, z = cell[k, 0] + (c >> 2), cell[k, 1] + ((c >> 1) & 1), cell[k, 2] + (c & 1)
                if 0 <= x < density.shape[0] and 0 <= y < density.shape[1] and 0 <= z < density.shape[2]:
                    s = part[k, 0] if c & 4 else 1 - part[k, 0]
                    s *= part[k, 1] if c & 2 else 1 - part[k, 1]
                    s *= part[k, 2] if c & 1 else 1 - part[k, 2]
                    dot = np.float32(0)
                    s32 = np.float32(s * w)
                    for i in range(features.shape[3]):
                        dot += features[x, y, z, i] * grad_sums[r, i]
                        to_features[x, y, z, i] += s32 * grad_sums[r, i]
                    value[k] += s * dot
        behind = 0.0
        for k in range(used - 1, -1, -1):
            w = state[k, 0] if state[k, 0] > least else 0.0
            grad = state[k, 2] * (state[k + 1, 1] * value[k] - behind)
            behind += w * value[k]
            if cell[k, 0] < -1:
                continue
            for c in range(8):
                x, y, z = cell[k, 0] + (c >> 2), cell[k, 1] + ((c >> 1) & 1), cell[k, 2] + (c & 1)
                if 0 <= x < density.shape[0] and 0 <= y < density.shape[1] and 0 <= z < density.shape[2]:
                    s = part[k, 0] if c & 4 else 1 - part[k, 0]
                    s *= part[k, 1] if c & 2 else 1 - part[k, 1]
                    s *= part[k, 2] if c & 1 else 1 - part[k, 2]
                    to_density[x, y, z] += np.float32(grad * s)


class LoopMarch(torch.autograd.Function):
    """The scalar loop, one thread: early stop, features only where weights count, gradients added in place."""

    @staticmethod
    def forward(ctx, density, features, scene, settings):
        contraction = settings.contraction
        ctx.constants = (
            density[0].numpy(),
            features[0].numpy(),
            np.array(scene['lower']),
            np.array(scene['voxel_size']),
            np.array(contraction.center),
            contraction.radius,
            contraction.background,
            contraction.min_spacing / contraction.radius,
            scene['origins'][0].numpy(),
            scene['directions'][0].numpy(),
            scene['t'].numpy(),
            settings.shift,
            settings.interval,
            settings.transmittance_min,
            settings.weight_min,
        )
        rays = scene['origins'].shape[1]
        sums, depth = torch.zeros(rays, features.shape[-1]), torch.zeros(rays)
        _loop_forward(*ctx.constants, sums.numpy(), depth.numpy())
        return sums, depth

    @staticmethod
    def backward(ctx, grad_sums, grad_depth):
        to_density, to_features = (torch.zeros(1, *x.shape) for x in ctx.constants[:2])
        grads = (grad_sums.contiguous().numpy(), grad_depth.contiguous().numpy())
        _loop_backward(*ctx.constants, *grads, to_density[0].numpy(), to_features[0].numpy())
        return to_density, to_features, None, None


def loop_march(scene, settings):
    """March with the scalar loop; density (1, X, Y, Z), features (1, X, Y, Z, C)."""
    return LoopMarch.apply(scene['density'], scene['features'], scene, settings)
