"""The rays of :mod:`ray_casting` with tensor operations, for label volumes that lie on a GPU; any device will do."""

import torch
from torch import Tensor

from .ray_casting import MAX_STEPS

COMPACT_EVERY = 32


def cast_rays_torch(labels: Tensor, origins: Tensor, ends: Tensor, free_index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Follows the same rays through V volumes at once; results equal those of :func:`cast_rays` up to the last bit of a depth.

    Args:
        labels: (V, X, Y, Z) integer class ids.
        origins: (R, 3) float32, voxel units.
        ends: (R, 3) float32, voxel units.
        free_index: Id of empty space.

    Returns:
        Depths (V, R) float64 in voxel units, labels (V, R) in the type of ``labels`` and cells (V, R, 3) int64, on the device
        of ``labels``.

    Raises:
        ValueError: If a shape does not fit.
    """
    if labels.dim() != 4 or origins.dim() != 2 or origins.shape != ends.shape or origins.shape[1] != 3:
        raise ValueError(
            f'labels must be (V, X, Y, Z), origins and ends (R, 3), got {tuple(labels.shape)}, {tuple(origins.shape)} and '
            f'{tuple(ends.shape)}'
        )
    volumes, rays = labels.shape[0], len(origins)
    device = labels.device
    shape = torch.tensor(labels.shape[1:], device=device)
    flat_labels = labels.reshape(-1)
    start = origins.to(device, torch.float64)
    direction = ends.to(device, torch.float64) - start
    # sums in a fixed order, so that every device rounds alike
    squares = direction * direction
    direction = direction / torch.sqrt(squares[:, 0] + squares[:, 1] + squares[:, 2])[:, None]
    cell = start.trunc().long()
    step = torch.where(direction >= 0, 1, -1)
    infinite = torch.full_like(start, float('inf'))
    leave = torch.where(direction != 0, (cell + (step > 0) - start) / direction, infinite)
    delta = torch.where(direction != 0, step / direction, infinite)

    # one row per ray and volume; rows that have ended are written out and dropped now and then
    row = torch.arange(volumes * rays, device=device)
    cell, step, leave, delta = (values.repeat(volumes, 1) for values in (cell, step, leave, delta))
    offset = (row // rays) * (labels[0].numel())
    depth = torch.full((volumes * rays,), -1.0, dtype=torch.float64, device=device)
    hit = torch.zeros_like(cell)
    depths, cells = depth.clone(), hit.clone()
    entered = torch.zeros_like(row, dtype=torch.bool)
    ended = torch.zeros_like(entered)
    for iteration in range(MAX_STEPS):
        inside = ((cell >= 0) & (cell < shape)).all(-1)
        ended |= entered & ~inside
        x, y, z = leave.unbind(-1)
        axis = torch.where(x < y, torch.where(x < z, 0, 2), torch.where(y < z, 1, 2))[:, None]
        visited = inside & ~ended
        depth = torch.where(visited, leave.gather(1, axis)[:, 0], depth)
        hit = torch.where(visited[:, None], cell, hit)
        entered |= inside
        index = torch.where(visited, (cell[:, 0] * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2], 0)
        ended |= visited & (flat_labels[offset + index] != free_index)
        cell.scatter_add_(1, axis, step.gather(1, axis))
        leave.scatter_add_(1, axis, delta.gather(1, axis))
        if iteration % COMPACT_EVERY == COMPACT_EVERY - 1 or iteration == MAX_STEPS - 1:
            depths[row], cells[row] = depth, hit
            going = ~ended
            row, cell, step, leave, delta, offset, depth, hit, entered, ended = (
                values[going] for values in (row, cell, step, leave, delta, offset, depth, hit, entered, ended)
            )
            if not len(row):
                break
    cells = cells.view(volumes, rays, 3)
    volume = torch.arange(volumes, device=device)[:, None]
    return depths.view(volumes, rays), labels[volume, cells[..., 0], cells[..., 1], cells[..., 2]], cells
