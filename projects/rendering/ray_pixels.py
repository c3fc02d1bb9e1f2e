"""Rays that are pixels of cameras, rendered by whole images."""

from collections.abc import Callable

import torch
from torch import Tensor

from projects.occ.structures import OccField, Rays

from .rendered import Rendered


def render_pixels(
    renderer: Callable[..., Rendered], field: OccField, rays: Rays, known: Tensor | None, cull: str | None, reduction: float
) -> Rendered:
    """Renders the images that rays are pixels of, and takes the pixels in which the rays lie.

    Args:
        renderer: ``(field, cameras, known, cull) -> Rendered``.
        field: B fields.
        rays: (B, R), with ``cameras``, ``view`` and ``uv``. Rays of views that the cameras do not have are left out.
        known: As in the renderer.
        cull: As in the renderer.
        reduction: The images are smaller by this factor.

    Returns:
        ``features``, ``depth``, ``alpha`` and ``valid``, (B, R, ...).

    Raises:
        ValueError: If the rays do not know what they are pixels of.
    """
    if rays.cameras is None or rays.view is None or rays.uv is None:
        raise ValueError(
            'SplatRenderer renders rays by whole images, but these rays do not know their cameras, views and pixels; take '
            'MarchRenderer'
        )
    cameras = rays.cameras.reduced(reduction)
    valid = rays.valid & (rays.view >= 0) & (rays.view < cameras.num_cameras)
    background = field.background.to(field.opacity)
    samples = []
    for b in range(rays.batch_size):
        one, only = field.samples([b]), None if known is None else known[b : b + 1]
        # rays that do not count see the background
        values = [background.expand(rays.num_rays, -1), *field.opacity.new_zeros(2, rays.num_rays)]
        rows, seen = [], []
        for view in rays.view[b, valid[b]].unique().tolist():
            image = renderer(one, cameras.samples([b]).select([view]), only, cull)
            height, width = image.depth.shape[2:]
            rows.append(torch.nonzero(valid[b] & (rays.view[b] == view)).squeeze(1))
            column, row = (rays.uv[b, rows[-1]] / reduction).floor().long().unbind(-1)
            place = (0, 0, row.clamp(0, height - 1), column.clamp(0, width - 1))
            seen.append((image.features[place], image.depth[place], image.alpha[place]))
        if rows:
            index = torch.cat(rows)
            values = [base.index_put((index,), torch.cat(parts)) for base, parts in zip(values, zip(*seen))]
        samples.append(values)
    return Rendered(*(torch.stack(values) for values in zip(*samples)), valid=valid)
