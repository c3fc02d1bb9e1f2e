"""Says when predictions would fit their labels much better with an axis flipped or two swapped."""

from itertools import product

import numpy as np

from ..structures import VoxelGrid

FRAMES = 20
# how many times the agreement, and at least how much more
MUCH_BETTER = 1.5
MARGIN = 0.1


class AxisCheck:
    """Compares predictions with labels along every axis, in both directions.

    The agreement is the number of voxels with the same class, free space left aside, over the number of voxels that are not
    free in one of the two. Symmetric streets agree with themselves to some degree, so only a clear difference is named.

    Args:
        grid: Grid of both.
        frames: How many frames to look at, the first ones.
    """

    def __init__(self, grid: VoxelGrid, frames: int = FRAMES) -> None:
        self.grid = grid
        self.left = frames
        swaps = (False, True) if grid.shape[0] == grid.shape[1] else (False,)
        self._moves = list(product(swaps, (1, -1), (1, -1), (1, -1)))
        self._hits, self._unions = np.zeros(len(self._moves)), np.zeros(len(self._moves))

    def add(self, pred: np.ndarray, gt: np.ndarray) -> None:
        """Adds a frame; both are (X, Y, Z) class ids."""
        if self.left == 0:
            return
        self.left -= 1
        counted = gt != self.grid.ignore_index
        occupied = counted & (gt != self.grid.free_index)
        for index, move in enumerate(self._moves):
            moved = _moved(pred, move)
            self._hits[index] += np.count_nonzero(occupied & (moved == gt))
            self._unions[index] += np.count_nonzero(counted & (occupied | (moved != self.grid.free_index)))

    def sentence(self) -> str:
        """What to say about the frames so far, '' if nothing."""
        agreement = self._hits / np.maximum(self._unions, 1)
        best = int(agreement.argmax())
        if agreement[best] < agreement[0] + MARGIN or agreement[best] < MUCH_BETTER * agreement[0]:
            return ''
        swapped, *signs = self._moves[best]
        flipped = [axis for axis, sign in zip('xyz', signs) if sign < 0]
        parts = ['x and y swapped'] if swapped else []
        parts += [f'{" and ".join(flipped)} flipped'] if flipped else []
        return (
            f'with {", then ".join(parts)}, {100 * agreement[best]:.0f} % of the voxels would have the class of the label '
            f'instead of {100 * agreement[0]:.0f} %; the axes of the predictions are probably not those of the labels '
            '(docs/conventions.md)'
        )


def _moved(labels: np.ndarray, move: tuple) -> np.ndarray:
    swapped, *signs = move
    labels = labels.swapaxes(0, 1) if swapped else labels
    return labels[tuple(slice(None, None, sign) for sign in signs)]
