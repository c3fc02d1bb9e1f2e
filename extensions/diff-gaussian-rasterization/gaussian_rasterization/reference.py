"""The rasteriser in plain PyTorch, the oracle of the compiled backends: any device, float32 and float64, gradients by autograd.

Work is bounded in three ways. Tiles list a Gaussian only if its alpha >= alpha_min ellipse meets one of their pixel centres;
the lists are blended in segments, and tiles leave as soon as their list or their light is used up; large scenes are split into
groups of tile rows and each segment is checkpointed, so that the backward pass keeps one segment alive at a time.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from . import constants
from .projection import Ellipses, project
from .settings import RasterSettings

SEGMENT = 64
"""Gaussians blended per step."""
MAX_PAIRS = 1 << 20
"""Gaussian-pixel pairs held at a time."""
MAX_ENTRIES = 1 << 22
"""Gaussian-tile candidates held at a time."""
CHECKPOINT_PAIRS = 1 << 22
"""Backward passes over more pairs than this recompute instead of storing."""


class _View(NamedTuple):
    """Visible Gaussians of one view, sorted by (z, index), (M, ...); the last row is a padding Gaussian of opacity 0."""

    ellipses: Ellipses
    opacities: Tensor
    payload: Tensor
    rect: Tensor


def rasterize_reference(
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
    tile_size: int = 8,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Render checked inputs; see :func:`gaussian_rasterization.rasterize` for shapes and meaning.

    Args:
        tile_size: Side of the internal tiles in pixels; changes nothing but speed and rounding.

    Returns:
        Features (V, H, W, C), depth (V, H, W), alpha (V, H, W), radii (V, G) int32.
    """
    views = [
        _render_view(
            means, quats, scales, opacities, features, viewmat, K, width, height, background[i], settings,
            None if tile_mask is None else tile_mask[i], tile_size,
        )
        for i, (viewmat, K) in enumerate(zip(viewmats, Ks))
    ]  # fmt: skip
    features_image, depth, alpha, radii = (torch.stack(parts) for parts in zip(*views))
    # an exact zero out of every input: images in which nothing is drawn have gradients, too
    zero = sum(t[:0].sum() for t in (means, quats, scales, opacities, features, viewmats, Ks, background))
    return features_image + zero, depth + zero, alpha + zero, radii


def _render_view(
    means, quats, scales, opacities, features, viewmat, K, width, height, background, settings, tile_mask, tile_size
):
    # not clamp, whose slope at the bound depends on the version of PyTorch: an opacity of exactly 1 learns
    opacities = torch.where(opacities > 1, 1.0, opacities)
    view, radii, bounds = _visible(means, quats, scales, opacities, features, viewmat, K, width, height, settings)
    grid = (-(-height // tile_size), -(-width // tile_size))
    tiles, transmittance, sums = [], [], []
    for first_row, last_row in _row_groups(bounds, grid, tile_size):
        gaussians, offsets = _bin(view, bounds, first_row, last_row, grid[1], tile_size, settings)
        part = _blend_tiles(view, gaussians, offsets, first_row * grid[1], grid[1], tile_size, settings)
        for total, piece in zip((tiles, transmittance, sums), part):
            total.append(piece)
    order = torch.cat(tiles).argsort()
    transmittance = _untile(torch.cat(transmittance)[order, :, None], grid, tile_size, height, width)[..., 0]
    sums = _untile(torch.cat(sums)[order], grid, tile_size, height, width)
    if tile_mask is not None:
        block = constants.MASK_TILE
        mask = tile_mask.repeat_interleave(block, 0).repeat_interleave(block, 1)[:height, :width]
        transmittance = torch.where(mask, transmittance, 1.0)
        sums = torch.where(mask[..., None], sums, 0.0)
    image = sums[..., :-1] + transmittance[..., None] * background
    return image, sums[..., -1], 1 - transmittance, radii


def _visible(means, quats, scales, opacities, features, viewmat, K, width, height, settings):
    """Cull and sort; returns the view, radii (G,) and the pixel bounds (M, 4) x_lo, x_hi, y_lo, y_hi of what is drawn."""
    with torch.no_grad():
        z = ((viewmat[2, 0] * means[:, 0] + viewmat[2, 1] * means[:, 1]) + viewmat[2, 2] * means[:, 2]) + viewmat[2, 3]
        finite = opacities.isfinite()
        for tensor in (means, quats, scales):
            finite = finite & tensor.isfinite().all(-1)
        ids = (finite & (z > settings.near) & (z < constants.Z_LIMIT)).nonzero().squeeze(1)
        ellipses = project(means[ids], quats[ids], scales[ids], viewmat, K, width, height, settings)
        good = torch.stack(ellipses).isfinite().all(0)
        radius = ellipses.radius()
        good &= radius.isfinite()
        rect = _pixel_rect(ellipses, radius, width, height, settings)
        if settings.tile_compat is not None:
            good &= (rect[:, 0] < rect[:, 1]) & (rect[:, 2] < rect[:, 3])
        radii = torch.zeros(means.shape[0], dtype=torch.int32, device=means.device)
        radii[ids[good]] = radius[good].clamp_max(2.0**31 - 256).to(torch.int32)

        # the alpha >= alpha_min ellipse, a little larger than exact: the test per pixel decides
        extent = _extent(opacities[ids], settings)
        half_x = (extent.clamp_min(0) * ellipses.cov_xx).sqrt()
        half_y = (extent.clamp_min(0) * ellipses.cov_yy).sqrt()
        bounds = torch.stack(
            [
                (ellipses.u - half_x).ceil().clamp(-1, width).maximum(rect[:, 0]),
                (ellipses.u + half_x).floor().clamp(-1, width).minimum(rect[:, 1] - 1),
                (ellipses.v - half_y).ceil().clamp(-1, height).maximum(rect[:, 2]),
                (ellipses.v + half_y).floor().clamp(-1, height).minimum(rect[:, 3] - 1),
            ],
            -1,
        )
        good &= (extent > 0) & (bounds[:, 0] <= bounds[:, 1]) & (bounds[:, 2] <= bounds[:, 3])
        kept = good.nonzero().squeeze(1)
        kept = kept[ellipses.z[kept].argsort(stable=True)]
        ids, rect, bounds = ids[kept], rect[kept], bounds[kept].long()

    ellipses = project(means[ids], quats[ids], scales[ids], viewmat, K, width, height, settings)
    payload = torch.cat([features[ids], ellipses.z[:, None]], 1)
    pad = torch.nn.functional.pad
    view = _View(
        Ellipses(*(pad(value, (0, 1), value=1.0) for value in ellipses)),
        pad(opacities[ids], (0, 1)),
        pad(payload, (0, 0, 0, 1)),
        pad(rect, (0, 0, 0, 1)),
    )
    return view, radii, bounds


def _extent(opacities, settings):
    """Squared Mahalanobis length at which alpha falls to alpha_min, a little enlarged."""
    return 2.0 * (opacities / settings.alpha_min).log() * constants.EXTENT_FACTOR + constants.EXTENT_MARGIN


def _pixel_rect(ellipses, radius, width, height, settings):
    """Pixels (M, 4) that may be drawn: x0, x1, y0, y1, upper bounds excluded; the whole image unless ``tile_compat``."""
    if settings.tile_compat is None:
        return ellipses.u.new_tensor([0, width, 0, height]).expand(len(radius), 4)
    tile = constants.COMPAT_TILE
    bounds = []
    for centre, size in ((ellipses.u, width), (ellipses.v, height)):
        count = -(-size // tile)
        bounds.append(((centre - radius) / tile).trunc().clamp(0, count) * tile)
        bounds.append(((centre + radius + (tile - 1)) / tile).trunc().clamp(0, count) * tile)
    bounds[1], bounds[3] = bounds[1].clamp_max(width), bounds[3].clamp_max(height)
    return torch.stack(bounds, -1)


def _row_groups(bounds, grid, tile_size):
    """Split the tile rows so that no group lists more than MAX_ENTRIES candidates (single rows excepted)."""
    x0, x1, y0, y1 = (bounds // tile_size).unbind(-1)
    change = torch.zeros(grid[0] + 1, dtype=torch.long, device=bounds.device)
    change.index_add_(0, y0, x1 - x0 + 1)
    change.index_add_(0, y1 + 1, x0 - x1 - 1)
    first, total = 0, 0
    for row, count in enumerate(change.cumsum(0)[:-1].tolist()):
        if total and total + count > MAX_ENTRIES:
            yield first, row
            first, total = row, 0
        total += count
    yield first, grid[0]


def _bin(view, bounds, first_row, last_row, columns, tile_size, settings):
    """Lists of Gaussians for the tiles of some rows.

    Returns:
        Indices into the view, tile by tile in depth order, and offsets (tiles + 1,).
    """
    x0, x1, y0, y1 = (bounds // tile_size).unbind(-1)
    y0, y1 = y0.clamp_min(first_row), y1.clamp_max(last_row - 1)
    spans, rows = x1 - x0 + 1, (y1 - y0 + 1).clamp_min(0)
    counts = spans * rows
    gaussian = torch.arange(len(bounds), device=bounds.device).repeat_interleave(counts)
    local = torch.arange(len(gaussian), device=bounds.device) - (counts.cumsum(0) - counts)[gaussian]
    tile_x = x0[gaussian] + local % spans[gaussian]
    tile_y = y0[gaussian] + local // spans[gaussian]
    keep = _meets_tile(view, gaussian, tile_x * tile_size, tile_y * tile_size, tile_size, settings)
    gaussian, tile = gaussian[keep], ((tile_y - first_row) * columns + tile_x)[keep]
    order = tile.argsort(stable=True)
    lengths = torch.bincount(tile, minlength=(last_row - first_row) * columns)
    return gaussian[order], torch.nn.functional.pad(lengths.cumsum(0), (1, 0))


def _meets_tile(view, gaussian, left, top, tile_size, settings):
    """Whether the (slightly enlarged) ellipse alpha >= alpha_min meets the rectangle of a tile's pixel centres."""
    with torch.no_grad():
        e = view.ellipses.pick(gaussian)
        extent = _extent(view.opacities, settings)[gaussian]
        x0, y0 = left - e.u, top - e.v
        x1, y1 = x0 + (tile_size - 1), y0 + (tile_size - 1)
        inside = (x0 <= 0) & (x1 >= 0) & (y0 <= 0) & (y1 >= 0)
        # otherwise the minimum of the quadratic form lies on an edge: a parabola in one coordinate, clamped to the edge
        smallest = torch.full_like(x0, float('inf'))
        for x in (x0, x1):
            y = torch.minimum(torch.maximum(e.cov_xy / e.cov_xx * x, y0), y1)
            smallest = torch.minimum(smallest, e.distance(x, y))
        for y in (y0, y1):
            x = torch.minimum(torch.maximum(e.slope * y, x0), x1)
            smallest = torch.minimum(smallest, e.distance(x, y))
        return inside | (smallest <= extent)


def _blend_tiles(view, gaussians, offsets, first_tile, columns, tile_size, settings):
    """Blend the lists of some tiles.

    Returns:
        Tile numbers (n,), final transmittance (n, P) and weighted sums of the payload (n, P, C + 1), tiles in no special order.
    """
    device, pixels = gaussians.device, tile_size * tile_size
    lengths = offsets.diff()
    pending, lengths = lengths.argsort(descending=True, stable=True), lengths.sort(descending=True, stable=True).values
    saving = torch.is_grad_enabled() and any(t.requires_grad for t in (*view.ellipses, view.opacities, view.payload))
    recompute = saving and len(gaussians) * pixels > CHECKPOINT_PAIRS
    padding = len(view.opacities) - 1
    gaussians = torch.nn.functional.pad(gaussians, (0, 1), value=padding)
    steps = torch.arange(SEGMENT, device=device)
    chunk = max(1, MAX_PAIRS // (SEGMENT * pixels))
    channels = view.payload.shape[1]
    done_tiles, done_light, done_sums = [], [], []

    light = view.payload.new_ones(len(pending), pixels)
    stopped = torch.zeros(len(pending), pixels, dtype=torch.bool, device=device)
    sums = view.payload.new_zeros(len(pending), pixels, channels)
    start = 0
    while True:
        leaving = (lengths <= start) | stopped.all(1)
        done_tiles.append(pending[leaving] + first_tile)
        done_light.append(light[leaving])
        done_sums.append(sums[leaving])
        staying = ~leaving
        if not bool(staying.any()):
            break
        pending, lengths, light, stopped, sums = (t[staying] for t in (pending, lengths, light, stopped, sums))
        pieces = []
        for tile, length, t, s in zip(pending.split(chunk), lengths.split(chunk), light.split(chunk), stopped.split(chunk)):
            position = start + steps[: max(1, min(SEGMENT, int(length.max()) - start))]
            slot = torch.where(position < length[:, None], offsets[tile][:, None] + position, len(gaussians) - 1)
            number = tile + first_tile
            corner = torch.stack([number % columns, number // columns], -1) * tile_size
            args = (view, gaussians[slot], corner, t, s, tile_size, settings)
            pieces.append(checkpoint(_blend_segment, *args, use_reentrant=False, preserve_rng_state=False) if recompute
                          else _blend_segment(*args))  # fmt: skip
        light, stopped, more = (torch.cat(part) for part in zip(*pieces))
        sums = sums + more
        start += SEGMENT
    return torch.cat(done_tiles), torch.cat(done_light), torch.cat(done_sums)


def _blend_segment(view, index, corner, light, stopped, tile_size, settings):
    """Blend up to SEGMENT Gaussians front to back into n tiles of P pixels.

    Args:
        index: (n, S) rows of the view in depth order.
        corner: (n, 2) column and row of the first pixel.
        light: (n, P) transmittance so far.
        stopped: (n, P) bool, pixels that are finished.

    Returns:
        New transmittance (n, P), new stopped (n, P), weighted sums (n, P, C + 1).
    """
    e = view.ellipses.pick(index[..., None])
    inner = torch.arange(tile_size * tile_size, device=index.device)
    column = (corner[:, :1] + inner % tile_size)[:, None, :]
    row = (corner[:, 1:] + inner // tile_size)[:, None, :]
    alpha = view.opacities[index][..., None] * (-0.5 * e.distance(e.u - column, e.v - row)).exp()
    if settings.cap_gradient == 'exact':
        alpha = torch.where(alpha > settings.alpha_max, settings.alpha_max, alpha)
    else:
        alpha = torch.where(alpha > settings.alpha_max, settings.alpha_max + (alpha - alpha.detach()), alpha)
    drawn = alpha >= settings.alpha_min
    if settings.tile_compat is not None:
        x0, x1, y0, y1 = (bound[..., None] for bound in view.rect[index].unbind(-1))
        drawn = drawn & (column >= x0) & (column < x1) & (row >= y0) & (row < y1)
    alpha = torch.where(drawn, alpha, 0.0)

    product = (1 - alpha).cumprod(1)
    after = light[:, None] * product
    before = light[:, None] * torch.cat([torch.ones_like(product[:, :1]), product[:, :-1]], 1)
    # transmittance only falls, so the blended Gaussians of a pixel are a prefix
    blended = (after >= settings.transmittance_min) & ~stopped[:, None]
    weight = torch.where(blended, alpha * before, 0.0)
    count = blended.sum(1, keepdim=True)
    final = torch.where(count > 0, after.gather(1, (count - 1).clamp_min(0)), light[:, None])[:, 0]
    return final, stopped | (count[:, 0] < index.shape[1]), torch.einsum('nsp,nsc->npc', weight, view.payload[index])


def _untile(values, grid, tile_size, height, width):
    """(tiles, P, K) in raster order of tiles and pixels -> (H, W, K)."""
    values = values.reshape(*grid, tile_size, tile_size, -1).transpose(1, 2)
    return values.reshape(grid[0] * tile_size, grid[1] * tile_size, -1)[:height, :width]
