"""Learned positions of the scene cells."""

import math
from collections.abc import Sequence

import torch
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn


class ScenePositionEmbedding(BaseModule):
    """One table per axis, finer along x and y and coarser along z than the cells; their rows are concatenated and projected.

    The cells of one column in z share the rows of a z step in groups of ``prod(squeeze)``; inside a group the cells take turns
    with the finer rows of x and y (x slowest).

    Args:
        embed_dims: Channels C; every table has C // 2.
        cells: Cells (X, Y, Z); the sizes of the tables follow from them. The original has them hard-coded for 128 x 128 x 8.
        squeeze: Rows per cell along x and y, and rows per group of cells along z.

    Raises:
        ValueError: If Z is not a multiple of the size of a group.
    """

    def __init__(self, embed_dims: int, cells: Sequence[int], squeeze: Sequence[int] = (2, 2, 1)) -> None:
        super().__init__()
        group = math.prod(squeeze)
        if cells[2] % group:
            raise ValueError(
                f'the scene volume {tuple(cells)} must have a height of a multiple of {group} cells (the product of '
                f'view_encoder.position_squeeze {tuple(squeeze)})'
            )
        self.base = (cells[0], cells[1], cells[2] // group)
        self.squeeze = tuple(squeeze)
        self.embeds = ModuleList(nn.Embedding(n * s, embed_dims // 2) for n, s in zip(self.base, self.squeeze))
        self.proj = nn.Linear(3 * (embed_dims // 2), embed_dims)

    def forward(self) -> Tensor:
        """Positions of all cells, (X*Y*Z, C), z fastest."""
        rows = []
        for axis, (table, n, s) in enumerate(zip(self.embeds, self.base, self.squeeze)):
            shape = [1] * 6  # base x, y, z, then squeeze x, y, z: the order in which z counts through them
            shape[axis], shape[axis + 3] = n, s
            rows.append(table.weight.view(*shape, -1).expand(*self.base, *self.squeeze, -1))
        return self.proj(torch.cat(rows, -1).flatten(0, 5))
