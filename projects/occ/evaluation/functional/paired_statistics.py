"""How sure a difference between two trainings is: hierarchical bootstrap over seeds and scenes, and Holm's correction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

BATCH = 500


@dataclass(frozen=True)
class PairedDifference:
    """A metric of two rows of a table, trained with the same seeds and tested on the same scenes.

    Attributes:
        a: Metric of the first row, mean over the seeds.
        b: Metric of the second one.
        difference: a - b.
        low: Lower end of the interval of the difference.
        high: Upper end.
        p: Two-sided share of draws beyond zero, at least 1 / (draws + 1).
        seeds: Number of seeds.
        scenes: Number of scenes.
    """

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float
    seeds: int
    scenes: int

    @property
    def verdict(self) -> str:
        """``'higher'`` or ``'lower'`` if the interval excludes zero, else ``'open'``."""
        return 'higher' if self.low > 0 else 'lower' if self.high < 0 else 'open'


def paired_bootstrap(
    a: np.ndarray | Mapping[str, np.ndarray],
    b: np.ndarray | Mapping[str, np.ndarray],
    metric: Callable,
    draws: int = 10000,
    level: float = 0.95,
    seed: int = 0,
) -> PairedDifference:
    """Interval of the difference of two rows by a hierarchical bootstrap.

    A draw takes seeds with replacement and, within each of them, scenes with replacement, the same for both rows. The metric is
    computed from the pooled counts of the drawn scenes and averaged over the drawn seeds.

    Args:
        a: Counts of the first row, (S, N, ...), of S seeds and N scenes, or a dict of several such arrays.
        b: Counts of the second row, alike: seed for seed and scene for scene.
        metric: Function of pooled counts (..., *rest), or of the dict of them, -> (...); leading dimensions are draws.
        draws: Number of draws.
        level: Share of draws inside the interval.
        seed: Of the draws.

    Returns:
        The difference and its interval (percentiles). Draws without a metric (NaN) are left out.

    Raises:
        ValueError: If the rows do not have the same seeds and scenes, or the metric is NaN in all draws.
    """
    parts_a, parts_b = _parts(a), _parts(b)
    shapes = {np.shape(part)[:2] for part in (*parts_a.values(), *parts_b.values())}
    if parts_a.keys() != parts_b.keys() or len(shapes) != 1 or len(next(iter(shapes))) != 2 or 0 in next(iter(shapes)):
        raise ValueError(f'paired_bootstrap: both rows need counts (seeds, scenes, ...) of the same ones, got {sorted(shapes)}')
    seeds, scenes = next(iter(shapes))
    generator = np.random.default_rng(seed)
    whole = np.ones((1, seeds, scenes))
    every = np.broadcast_to(np.arange(seeds), (1, seeds))
    value_a, value_b = (float(_metric(parts, every, whole, metric)[0]) for parts in (parts_a, parts_b))
    differences = []
    for start in range(0, draws, BATCH):
        size = min(BATCH, draws - start)
        drawn = generator.integers(0, seeds, (size, seeds))
        # how often each scene was drawn within each drawn seed
        weights = generator.multinomial(scenes, np.full(scenes, 1 / scenes), (size, seeds)).astype(np.float64)
        differences.append(_metric(parts_a, drawn, weights, metric) - _metric(parts_b, drawn, weights, metric))
    found = np.concatenate(differences)
    found = found[~np.isnan(found)]
    if not len(found):
        raise ValueError('paired_bootstrap: the metric is NaN in all draws; there is nothing to compare')
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
    beyond = min((found <= 0).sum(), (found >= 0).sum())
    p = min(1.0, 2 * (beyond + 1) / (len(found) + 1))
    return PairedDifference(value_a, value_b, value_a - value_b, float(low), float(high), float(p), seeds, scenes)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's correction: p-values that may be compared with one level however many comparisons a table has.

    Args:
        p_values: Of all comparisons; NaN where there was none.

    Returns:
        Adjusted p-values, float64, in the same order.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p_values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind='stable')]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1)
    return adjusted


def class_counts(hist: np.ndarray) -> np.ndarray:
    """What mIoU needs of confusion matrices (..., C, C), rows = ground truth: true, predicted and right cells, (..., C, 3)."""
    hist = np.asarray(hist)
    return np.stack([hist.sum(-1), hist.sum(-2), np.diagonal(hist, axis1=-2, axis2=-1)], -1)


def occupied_counts(hist: np.ndarray, free_index: int) -> np.ndarray:
    """What the geometric IoU needs of confusion matrices (..., C, C): cells occupied in both, and in either, (..., 2)."""
    hist = np.asarray(hist)
    occupied = np.arange(hist.shape[-1]) != free_index
    both = hist[..., occupied, :][..., occupied].sum((-2, -1))
    return np.stack([both, hist.sum((-2, -1)) - hist[..., free_index, free_index]], -1)


def mean_iou(counts: np.ndarray, free_index: int) -> np.ndarray:
    """mIoU of many counts at once, as :func:`summarize_confusion` computes it with ``absent='exclude'``.

    Args:
        counts: (..., C, 3), of :func:`class_counts`.
        free_index: Id of empty space.

    Returns:
        (...), NaN where no class has a true voxel.
    """
    seen, predicted, right = np.moveaxis(np.asarray(counts, dtype=np.float64), -1, 0)
    counted = (seen > 0) & (np.arange(seen.shape[-1]) != free_index)
    iou = np.where(counted, right / np.maximum(seen + predicted - right, 1), 0)
    return _ratio(iou.sum(-1), counted.sum(-1))


def ray_iou_of_counts(counts: np.ndarray, free_index: int, threshold: int | None = None) -> np.ndarray:
    """RayIoU of many counts at once, as :func:`summarize_rays` computes it.

    Args:
        counts: (..., T + 2, C): right rays by threshold, true rays, predicted rays.
        free_index: Id of empty space.
        threshold: Position of one threshold; None is the mean over classes and thresholds.

    Returns:
        (...).
    """
    counts = np.asarray(counts, dtype=np.float64)
    right, true, predicted = counts[..., :-2, :], counts[..., -2:-1, :], counts[..., -1:, :]
    if threshold is not None:
        right = right[..., threshold : threshold + 1, :]
    union = true + predicted - right
    counted = (union > 0) & (np.arange(counts.shape[-1]) != free_index)
    iou = np.where(counted, right / np.maximum(union, 1), 0)
    return _ratio(iou.sum((-2, -1)), counted.sum((-2, -1)))


def ratio_of_sums(counts: np.ndarray) -> np.ndarray:
    """Sums (..., 2) of a quantity and of its cases -> its mean (...), NaN without a case."""
    return _ratio(counts[..., 0], counts[..., 1])


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.broadcast_arrays(np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64))
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _parts(counts: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return (
        {name: np.asarray(part, dtype=np.float64) for name, part in counts.items()}
        if isinstance(counts, Mapping)
        else {'': np.asarray(counts, dtype=np.float64)}
    )


def _metric(parts: Mapping[str, np.ndarray], drawn: np.ndarray, weights: np.ndarray, metric: Callable) -> np.ndarray:
    """Metric of each draw: drawn seeds (D, S), weights of their scenes (D, S, N)."""
    pooled = {}
    for name, part in parts.items():
        flat = part.reshape(*part.shape[:2], -1)
        table = np.empty((*drawn.shape, flat.shape[-1]))
        for s in range(len(flat)):
            there = drawn == s
            table[there] = weights[there] @ flat[s]
        pooled[name] = table.reshape(*drawn.shape, *part.shape[2:])
    values = metric(pooled[''] if set(pooled) == {''} else pooled)
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(1), known.sum(1))
