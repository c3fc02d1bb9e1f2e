"""Labels for the coarse outputs of a network."""

from collections.abc import Sequence

import torch
from torch import Tensor

from projects.occ.structures import VoxelGrid

REDUCTIONS = ('strided', 'sparse_last', 'sparse_last_known', 'majority', 'majority_occupied')


def _factors(fine: Sequence[int], coarse: Sequence[int]) -> tuple[int, int, int]:
    if any(c < 1 or f % c for f, c in zip(fine, coarse)):
        raise ValueError(f'the coarse grid {tuple(coarse)} must divide the full grid {tuple(fine)} on every axis')
    return tuple(f // c for f, c in zip(fine, coarse))


def reduce_volume(volume: Tensor, shape: Sequence[int]) -> Tensor:
    """Brings labels or masks to a coarser grid by taking the last child of every cell on each axis.

    That is what the original's scatter ("last write wins") gives on a CPU; here it is the rule on every device.

    Args:
        volume: (B, X, Y, Z), any dtype.
        shape: Coarse (X_s, Y_s, Z_s); each must divide the fine size.

    Returns:
        (B, X_s, Y_s, Z_s), a view.

    Raises:
        ValueError: If a coarse size does not divide the fine one.
    """
    rx, ry, rz = _factors(volume.shape[1:], shape)
    return volume[:, rx - 1 :: rx, ry - 1 :: ry, rz - 1 :: rz]


def _children(volume: Tensor, shape: Sequence[int]) -> Tensor:
    """(B, X, Y, Z) -> (B, X_s, Y_s, Z_s, children), the children of a cell with x slowest and z fastest."""
    rx, ry, rz = _factors(volume.shape[1:], shape)
    xs, ys, zs = shape
    return volume.reshape(-1, xs, rx, ys, ry, zs, rz).permute(0, 1, 3, 5, 2, 4, 6).flatten(4)


def _last_of(children: Tensor, candidates: Tensor, fallback: Tensor) -> Tensor:
    """The last candidate of every cell, or the cell's ``fallback`` where it has none."""
    rank = torch.arange(1, children.shape[-1] + 1, device=children.device)
    last = (candidates * rank).amax(-1)
    found = children.gather(-1, (last - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return torch.where(last > 0, found, fallback)


def _most_frequent(children: Tensor, counts: Tensor, grid: VoxelGrid) -> Tensor:
    """The class with most counting voxels, the smaller id of two that draw."""
    best = torch.full_like(children[..., 0], grid.ignore_index)
    most = torch.zeros_like(best)
    for label in range(grid.num_classes):
        number = (counts & (children == label)).sum(-1)
        best = torch.where(number > most, label, best)
        most = torch.maximum(number, most)
    return best


def reduce_labels(
    labels: Tensor, shape: Sequence[int], grid: VoxelGrid, rule: str = 'strided', mask: Tensor | None = None
) -> Tensor:
    """Labels of a coarser grid. All rules give the same on every device.

    Rules:
        ``'strided'``: The last child of a cell on each axis, whatever it is (GaussRender).
        ``'sparse_last'``: The last child, with x slowest and z fastest, that is not free; free only if all are (SurroundOcc,
            whose files list the occupied voxels in this order). An ignored child counts as not free.
        ``'sparse_last_known'``: The same, but an ignored child decides only where no other one is occupied. For labels with
            many ignored voxels, which would otherwise blank out most coarse cells.
        ``'majority'``: The most frequent class, free among them; ignored voxels do not vote, of two that draw the smaller id
            wins. Not how SSCBench pools its labels, which is the next one.
        ``'majority_occupied'``: The most frequent class but free; free only where no voxel is occupied, of two classes that
            draw the smaller id wins (majority pooling of SSCBench and MonoScene, which made the coarse files ``_1_8.npy``).

    Args:
        labels: (B, X, Y, Z) integer class ids.
        shape: Coarse (X_s, Y_s, Z_s); each must divide the fine size.
        grid: Voxel grid, for the ids of free and ignored.
        rule: One of the above.
        mask: (B, X, Y, Z) bool, voxels that count, or None for all. The others take no part; a cell without counting voxels is
            ignored, with ``'strided'`` a cell whose last child does not count.

    Returns:
        (B, X_s, Y_s, Z_s) int64, ``grid.ignore_index`` where nothing is known.

    Raises:
        ValueError: If a coarse size does not divide the fine one, or the rule is unknown.
    """
    if rule not in REDUCTIONS:
        raise ValueError(f'the label reduction must be one of {REDUCTIONS}, got {rule!r}')
    if rule == 'strided':
        reduced = reduce_volume(labels, shape).long()
        return reduced if mask is None else reduced.masked_fill(~reduce_volume(mask, shape), grid.ignore_index)
    children = _children(labels, shape).long()
    counts = torch.ones_like(children, dtype=torch.bool) if mask is None else _children(mask, shape)
    if rule == 'majority':
        return _most_frequent(children, counts, grid)
    occupied = counts & (children != grid.free_index)
    if rule == 'majority_occupied':
        pooled = _most_frequent(children, occupied, grid)
        any_free = (counts & (children == grid.free_index)).any(-1)
        return torch.where((pooled == grid.ignore_index) & any_free, grid.free_index, pooled)
    reduced = torch.full_like(children[..., 0], grid.free_index).masked_fill(~counts.any(-1), grid.ignore_index)
    reduced = _last_of(children, occupied, reduced)
    if rule == 'sparse_last_known':
        reduced = _last_of(children, occupied & (children != grid.ignore_index), reduced)
    return reduced
