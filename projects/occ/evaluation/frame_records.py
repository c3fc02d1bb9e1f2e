"""What metrics keep of every frame, as a file: intervals and comparisons are made from it without a model."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from projects.occ.atomic_write import write_atomically


class FrameRecords:
    """Keeps the records of metrics, which they give away when they are evaluated.

    Args:
        metrics: Metrics that are going to be evaluated, one of a class.
    """

    def __init__(self, metrics: Sequence[BaseMetric]) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        for metric in metrics:
            self._listen(metric)

    def _listen(self, metric: BaseMetric) -> None:
        compute = metric.compute_metrics

        def keep(results: Sequence[Any]) -> dict:
            self.arrays.update(stack_records(results, type(metric).__name__))
            return compute(results)

        metric.compute_metrics = keep

    def write(self, path: str | os.PathLike, tokens: Sequence[str], scenes: Sequence[str]) -> None:
        """Writes an npz without pickled objects, atomically: ``tokens`` and ``scenes`` (F,), and arrays (F, ...) by metric.

        Args:
            path: The file.
            tokens: Of the frames, in the order of the data set.
            scenes: Of the frames.

        Raises:
            ValueError: If metrics have another number of frames.
        """
        for name, array in self.arrays.items():
            if len(array) != len(tokens):
                raise ValueError(
                    f'{name} has {len(array)} frames, but the data set {len(tokens)}: records need whole data sets'
                )
        arrays = dict(self.arrays, tokens=np.array(tokens, dtype=np.str_), scenes=np.array(scenes, dtype=np.str_))
        write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def stack_records(results: Sequence[Any], name: str) -> dict[str, np.ndarray]:
    """Records of frames, of equal form, as arrays.

    Args:
        results: One per frame: an array or a number, or a dict or tuple of such. Text is left out.
        name: Of what they belong to.

    Returns:
        ``name`` or, for parts, ``name.part`` -> (F, ...).
    """
    first = results[0]
    if isinstance(first, Mapping):
        return {k: v for key in first for k, v in stack_records([record[key] for record in results], f'{name}.{key}').items()}
    if isinstance(first, tuple):
        parts = (stack_records([record[i] for record in results], f'{name}.{i}') for i in range(len(first)))
        return {key: value for part in parts for key, value in part.items()}
    if isinstance(first, str):
        return {}
    stacked = np.stack([np.asarray(record) for record in results])
    return {} if stacked.dtype.kind not in 'biuf' else {name: stacked}
