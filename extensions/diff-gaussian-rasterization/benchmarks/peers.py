"""Other rasterisers behind one signature: ``render(scene) -> (features (V, H, W, C), depth (V, H, W))``.

gsplat 1.5.3 (Apache-2.0) is used where it can be imported; nothing of it is copied. Its PyTorch path does not run on a CPU as
shipped: it calls a CUDA kernel that lists pairs, the CUDA scans of nerfacc, and a Python loop over Gaussians for the tile
lists. These three pieces are replaced here by vectorised PyTorch code; projection, blending and gradients are gsplat's.
"""

import sys
from types import ModuleType

import torch

MISSING = 'not installed: pip install gsplat==1.5.3'
NEAR, ALPHA_MIN, STOP = 0.2, 1 / 255, 1e-4


def gsplat_problem() -> str | None:
    """Why gsplat cannot be used, or None."""
    try:
        import gsplat
    except ImportError as error:
        return MISSING if error.name == 'gsplat' else f'gsplat cannot be imported: {error}'
    return None if gsplat.__version__.startswith('1.5.3') else f'gsplat is {gsplat.__version__}; pip install gsplat==1.5.3'


def gsplat_cuda(packed: bool):
    """gsplat's CUDA rasteriser. Channels, depth included, are padded to the next compiled number (19 to 32, 17 is native)."""
    from gsplat import rasterization

    def render(scene):
        image, _, _ = rasterization(
            scene['means'], scene['quats'], scene['scales'], scene['opacities'], scene['features'], scene['viewmats'],
            scene['Ks'], scene['width'], scene['height'], near_plane=NEAR, packed=packed, render_mode='RGB+D',
            backgrounds=scene['background'][None],
        )  # fmt: skip
        return image[..., :-1], image[..., -1]

    return render


def gsplat_torch(tile_size: int = 16):
    """gsplat's PyTorch path on the CPU."""
    from gsplat.cuda import _torch_impl as theirs
    from gsplat.cuda import _wrapper

    _wrapper.rasterize_to_indices_in_range = _list_pairs
    nerfacc = ModuleType('nerfacc')
    nerfacc.render_weight_from_alpha, nerfacc.accumulate_along_rays = _weights, _accumulate
    sys.modules['nerfacc'] = nerfacc

    def render(scene):
        width, height = scene['width'], scene['height']
        columns, rows = -(-width // tile_size), -(-height // tile_size)
        covars, _ = theirs._quat_scale_to_covar_preci(scene['quats'], scene['scales'], True, False, triu=False)
        radii, means2d, depths, conics, _ = theirs._fully_fused_projection(
            scene['means'], covars, scene['viewmats'], scene['Ks'], width, height, near_plane=NEAR
        )
        ids, flat = _tile_lists(means2d, radii, depths, tile_size, columns, rows)
        offsets = theirs._isect_offset_encode(ids, 1, columns, rows)
        colors = torch.cat([scene['features'][None], depths[..., None]], -1)
        image, _ = theirs._rasterize_to_pixels(
            means2d, conics, colors, scene['opacities'][None], width, height, tile_size, offsets, flat,
            backgrounds=torch.nn.functional.pad(scene['background'], (0, 1))[None], batch_per_iter=1 << 20,
        )  # fmt: skip
        return image[..., :-1], image[..., -1]

    return render


@torch.no_grad()
def _tile_lists(means2d, radii, depths, tile_size, columns, rows):
    """What ``_isect_tiles`` returns, for one image and without a loop over Gaussians."""
    centre, reach = means2d[0] / tile_size, radii[0] / tile_size
    limit = torch.tensor([columns, rows])
    low, high = (x.long().clamp(min=0).minimum(limit) for x in ((centre - reach).floor(), (centre + reach).ceil()))
    span = (high - low) * (radii[0] > 0).all(-1, keepdim=True)
    counts = span.prod(-1)
    index = torch.arange(len(counts)).repeat_interleave(counts)
    local = torch.arange(len(index)) - (counts.cumsum(0) - counts)[index]
    across = span[index, 0]
    tile = (low[index, 1] + local // across) * columns + low[index, 0] + local % across
    keys, order = ((tile << 32) | depths[0, index].view(torch.int32).long()).sort(stable=True)
    return keys, index[order].int()


@torch.no_grad()
def _list_pairs(first, last, light, means2d, conics, opacities, width, height, tile_size, offsets, flatten_ids):
    """Pairs that are blended, pixel by pixel and front to back: Gaussians, pixels, images. One image, all of the list."""
    starts = [*offsets.flatten().tolist(), len(flatten_ids)]
    columns = offsets.shape[-1]
    gaussians, pixels = [], []
    for tile, (start, end) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
        if start == end:
            continue
        ids = flatten_ids[start:end].long()
        top, left = tile // columns * tile_size, tile % columns * tile_size
        y, x = torch.meshgrid(
            torch.arange(top, min(top + tile_size, height)), torch.arange(left, min(left + tile_size, width)), indexing='ij'
        )
        x, y = x.reshape(-1, 1), y.reshape(-1, 1)
        dx, dy = x + 0.5 - means2d[0, ids, 0], y + 0.5 - means2d[0, ids, 1]
        a, b, c = conics[0, ids].unbind(-1)
        sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
        alpha = (opacities[0, ids] * (-sigma).exp()).clamp_max(0.999)
        alpha = torch.where((sigma >= 0) & (alpha >= ALPHA_MIN), alpha, 0.0)
        drawn = (alpha > 0) & ((1 - alpha).cumprod(1) > STOP)
        pixel, position = drawn.nonzero(as_tuple=True)
        gaussians.append(ids[position])
        pixels.append((y * width + x)[pixel, 0])
    gaussians, pixels = (torch.cat(p) if p else torch.zeros(0, dtype=torch.long) for p in (gaussians, pixels))
    return gaussians, pixels, torch.zeros_like(pixels)


def _weights(alphas, ray_indices, n_rays):
    """Weights and transmittances of pairs that are grouped by ray."""
    logs = torch.log1p(-alphas.double())
    before = logs.cumsum(0) - logs
    change = torch.ones_like(ray_indices, dtype=torch.bool)
    change[1:] = ray_indices[1:] != ray_indices[:-1]
    group = change.cumsum(0) - 1
    light = (before - before[change][group]).exp().to(alphas.dtype)
    return alphas * light, light


def _accumulate(weights, values, ray_indices, n_rays):
    source = weights[:, None] if values is None else weights[:, None] * values
    return torch.zeros(n_rays, source.shape[1]).index_add(0, ray_indices, source)
