"""Which density is occupied: IoU and mIoU of every threshold, counted in one pass over a data set."""

import numpy as np

from ...structures import VoxelGrid
from .paired_statistics import mean_iou, ratio_of_sums

# densities are told apart to about half a per cent, from one hundredth to a hundred thousand
_SCALE, _LIMIT, _BINS = 0.01, 1e5, 4000


class ThresholdSearch:
    """Counts voxels by density, so that every threshold can be judged at the end.

    Args:
        grid: Voxel grid.
    """

    def __init__(self, grid: VoxelGrid) -> None:
        self.grid = grid
        reach = np.arcsinh(_LIMIT / _SCALE)
        self.thresholds = _SCALE * np.sinh(np.linspace(-reach, reach, _BINS + 1))
        """(T,) float64, from low to high."""
        shape = (grid.num_classes, _BINS + 2)
        self._predicted, self._right = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        self._occupied = np.zeros(shape[1], dtype=np.int64)
        self._true = np.zeros(grid.num_classes, dtype=np.int64)

    def add(self, density: np.ndarray, classes: np.ndarray, gt: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Counts one frame.

        Args:
            density: (X, Y, Z), finite.
            classes: (X, Y, Z) integer, the class of each voxel if it is occupied, never the free one.
            gt: (X, Y, Z) integer class ids and ``grid.ignore_index``, which does not count.
            mask: (X, Y, Z), voxels that count, or None for all.

        Raises:
            ValueError: If shapes do not fit, or a density is not finite.
        """
        if not (density.shape == classes.shape == gt.shape == self.grid.shape):
            raise ValueError(
                f'density, classes and gt must have the grid shape {self.grid.shape}, got {density.shape}, {classes.shape} and '
                f'{gt.shape}'
            )
        if not np.isfinite(density).all():
            raise ValueError('a density is not finite: the network has diverged')
        counted = gt != self.grid.ignore_index
        if mask is not None:
            counted &= mask != 0
        density, classes, gt = density[counted], classes[counted].astype(np.int64), gt[counted].astype(np.int64)
        # bin i: thresholds[:i] lie below the density
        place = np.searchsorted(self.thresholds, density, side='left')
        width = _BINS + 2
        for table, rows in ((self._predicted, slice(None)), (self._right, classes == gt)):
            code = classes[rows] * width + place[rows]
            table += np.bincount(code, minlength=table.size).reshape(table.shape)
        self._occupied += np.bincount(place[gt != self.grid.free_index], minlength=width)
        self._true += np.bincount(gt, minlength=self.grid.num_classes)

    def scores(self) -> tuple[np.ndarray, np.ndarray]:
        """IoU of occupied against free, and mIoU over the classes but free, of every threshold, (T,) each."""

        def above(table: np.ndarray) -> np.ndarray:
            return table[..., ::-1].cumsum(-1)[..., ::-1][..., 1:]

        predicted, right, hit = above(self._predicted), above(self._right), above(self._occupied)
        occupied = self._true.sum() - self._true[self.grid.free_index]
        union = predicted.sum(0) + occupied - hit
        true = np.broadcast_to(self._true[:, None], predicted.shape)
        counts = np.stack([true, predicted, right], -1).swapaxes(0, 1)
        return ratio_of_sums(np.stack([hit, union], -1)), mean_iou(counts, self.grid.free_index)

    def best(self, metric: str = 'mIoU') -> tuple[float, dict[str, float]]:
        """The best threshold: the middle of all that are as good as the best one, and its scores.

        Args:
            metric: ``'IoU'`` or ``'mIoU'``.

        Raises:
            ValueError: If the metric is unknown, or nothing was counted.
        """
        scores = dict(zip(('IoU', 'mIoU'), self.scores()))
        if metric not in scores:
            raise ValueError(f'metric must be IoU or mIoU, got {metric!r}')
        values = scores[metric]
        if np.isnan(values).all():
            raise ValueError('no voxel counts: every label is ignored, outside the mask, or free')
        ties = np.flatnonzero(values == np.nanmax(values))
        # the first row of ties alone: others lie where nothing is predicted
        ties = ties[: np.flatnonzero(np.append(np.diff(ties) > 1, True))[0] + 1]
        place = int(ties[len(ties) // 2])
        return float(self.thresholds[place]), {name: float(value[place]) for name, value in scores.items()}
