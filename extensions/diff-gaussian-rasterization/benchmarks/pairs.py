"""How much work a render is: pairs of Gaussian and pixel, counted on a sample of its tiles, and the flops they stand for."""

import torch

from gaussian_rasterization import RasterSettings
from gaussian_rasterization.projection import project

TILE = 16


@torch.no_grad()
def count_pairs(scene: dict, every: int = 16) -> dict:
    """Tested and blended pairs of the first view.

    Tested: pixels of a 16-pixel tile times the Gaussians whose alpha >= 1/255 ellipse meets it, up to the stop of the pixel.
    Only every so-many-th tile is looked at and the counts are scaled up.
    """
    s = RasterSettings()
    view, K, width, height = scene['viewmats'][0], scene['Ks'][0], scene['width'], scene['height']
    z = scene['means'] @ view[2, :3] + view[2, 3]
    seen = ((z > s.near) & (scene['opacities'] >= s.alpha_min)).nonzero().squeeze(1)
    seen = seen[z[seen].argsort(stable=True)]
    e = project(*(scene[k][seen] for k in ('means', 'quats', 'scales')), view, K, width, height, s)
    opacity = scene['opacities'][seen]
    extent = 2 * (opacity / s.alpha_min).log()
    half_x, half_y = (extent * e.cov_xx).sqrt(), (extent * e.cov_yy).sqrt()
    rows, columns = -(-height // TILE), -(-width // TILE)
    tested = blended = 0
    sample = range(every // 2, rows * columns, every)
    for tile in sample:
        top, left = tile // columns * TILE, tile % columns * TILE
        near = (e.u + half_x >= left) & (e.u - half_x < left + TILE) & (e.v + half_y >= top) & (e.v - half_y < top + TILE)
        near = near.nonzero()
        y, x = torch.meshgrid(
            torch.arange(top, min(top + TILE, height)), torch.arange(left, min(left + TILE, width)), indexing='ij'
        )
        part = e.pick(near)
        alpha = (opacity[near] * (-0.5 * part.distance(part.u - x.reshape(1, -1), part.v - y.reshape(1, -1))).exp()).clamp_max(
            s.alpha_max
        )
        alpha = torch.where(alpha >= s.alpha_min, alpha, 0.0)
        alpha = alpha[(alpha > 0).any(1)]
        after = (1 - alpha).cumprod(0) >= s.transmittance_min
        tested += int(after.sum()) + int((~after).any(0).sum())
        blended += int((after & (alpha > 0)).sum())
    scale = rows * columns / max(len(sample), 1)
    return dict(tested=round(tested * scale), blended=round(blended * scale))


def flops(pairs: dict, channels: int, labels: bool, gradients: str) -> dict:
    """Floating-point operations of the arithmetic per pair alone: 15 per test, 2 (C + 1) + 3 per blended pair and so on."""
    tested, blended = pairs['tested'], pairs['blended']
    forward = 15 * tested + blended * (6 if labels else 2 * (channels + 1) + 3)
    backward = 15 * tested + blended * (4 * (channels + 1) + (44 if gradients == 'everything' else 15))
    return dict(forward=forward, **(dict(backward=backward) if gradients != 'none' else {}))
