"""RayIoU as a metric of mmengine."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from terminaltables import AsciiTable

from ..structures import VoxelGrid
from ..structures.benchmarks import get_benchmark
from .functional import RayCounts, count_rays, summarize_rays
from .functional.report import percent
from .ray_origin_files import RayOrigins, load_ray_origins

PUBLISHED_PRESET = 'occ3d'


@METRICS.register_module()
class RayIoUMetric(BaseMetric):
    """Counts the query rays of every sample, pools them over the split and over all processes, then takes the IoUs.

    Reads ``pred_occ``, ``gt_occ`` (X, Y, Z) integer and ``token`` of every data sample; no mask is applied. A record is a few
    dozen integers per sample, so memory does not depend on the size of the grid and samples that a distributed sampler repeats
    are cut off: any number of processes gives the same integers. Volumes that lie on a GPU are scored there.

    Args:
        grid: Voxel grid or its config dict.
        origins: Where rays start: a file of :func:`write_ray_origins`; or the config of a data set (``dict(type=...)``) whose
            poses they are computed from, whole scenes at once, whatever ``subset`` or ``indices`` say; or a dict
            token -> (T, 3), metres, in ``grid.frame``.
        preset: Checks the grid against a benchmark and tells whether numbers can be compared, see :class:`OccupancyMetric`.
        thresholds: Depth errors that count as right, metres.
        collect_device: As in :class:`BaseMetric`.
        prefix: Prefix of the names in logs, ``'occ'`` by default.
        collect_dir: As in :class:`BaseMetric`.

    Raises:
        FileNotFoundError: If the file of origins does not exist.
        ValueError: If it is damaged, or preset and grid do not agree.
    """

    default_prefix = 'occ'

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        origins: RayOrigins,
        preset: str | None = None,
        thresholds: Sequence[float] = (1, 2, 4),
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.thresholds = tuple(thresholds)
        self.preset = None if preset is None else get_benchmark(preset)
        self.grid = VoxelGrid.build(grid)
        self.is_benchmark_grid = self.preset is not None and self.preset.check(self.grid)
        self.origins = load_ray_origins(origins, self.grid)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Appends the counts of every sample: (thresholds + 2, C) int64, right rays by threshold, true and predicted rays.

        Raises:
            ValueError: If a sample lacks prediction, label or origins, or they do not fit the grid.
        """
        for sample in data_samples:
            token = str(sample.get('token', '<without token>'))
            for key, remedy in (('gt_occ', 'load it with LoadOccLabels'), ('pred_occ', 'the model must write it in predict')):
                if sample.get(key) is None:
                    raise ValueError(f'sample {token} has no {key!r}: {remedy}')
            if token not in self.origins:
                raise ValueError(
                    f'there are no RayIoU origins for frame {token} ({len(self.origins)} frames have some); make them from all '
                    'frames of the split that is tested, see docs/evaluation.md, "RayIoU"'
                )
            counts = count_rays(sample['pred_occ'], sample['gt_occ'], self.origins[token], self.grid, self.thresholds)
            self.results.append(np.concatenate([counts.tp, counts.gt[None], counts.pred[None]]))

    def compute_metrics(self, results: Sequence[np.ndarray]) -> dict:
        """Pools the counts, logs the per-class table and returns fractions.

        Args:
            results: Records of :meth:`process`, one per sample.

        Returns:
            dict: ``RayIoU``, ``RayIoU@<t>`` (float) and ``RayIoU_per_class``, class name -> dict of the same keys, None for a
            class that is neither true nor predicted.

        Raises:
            ValueError: If there is no sample.
        """
        if not len(results):
            raise ValueError('RayIoUMetric has no sample to score; check the length of the test set')
        total = np.sum(np.stack(results), axis=0)
        counts = RayCounts(total[:-2], total[-2], total[-1])
        summary = summarize_rays(counts, self.grid, self.thresholds)
        per_class = summary.pop('per_class')
        print_log(self._report(counts, summary, per_class, len(results)), logger='current')
        names = [f'RayIoU@{t:g}' for t in self.thresholds]
        table = {}
        for c in self.grid.semantic_classes:
            values = per_class[:, c]
            empty = np.isnan(values).all()
            row = [None if empty else float(values.mean()), *(None if np.isnan(v) else float(v) for v in values)]
            table[self.grid.class_names[c]] = dict(zip(['RayIoU', *names], row, strict=True))
        return {**summary, 'RayIoU_per_class': table}

    def _report(self, counts: RayCounts, summary: dict, per_class: np.ndarray, num_frames: int) -> str:
        """What was counted and the table in percent."""
        grid = self.grid
        lines = [
            f'RayIoU of {num_frames} frames, {int(counts.gt.sum())} rays counted (rays whose label is free or ignored are not; '
            'no mask)',
            f'preset {self.preset.name if self.preset else None} | {grid.num_classes} classes, free {grid.free_index} | range '
            f'{grid.point_cloud_range} m ({grid.frame} frame), voxel {grid.voxel_size} m',
        ]
        if not self.is_benchmark_grid or self.preset.name != PUBLISHED_PRESET:
            lines.append('Not comparable with published numbers: RayIoU is published for the grid of Occ3D-nuScenes alone')
        elif self.preset.incomparable(num_frames):
            lines.append(f'Not comparable with published numbers: {self.preset.incomparable(num_frames)}')
        rows = [['class', *(f'IoU@{t:g} m' for t in self.thresholds), 'true rays', 'predicted rays']]
        for c in grid.semantic_classes:
            values = [percent(value) for value in per_class[:, c]]
            rows.append([grid.class_names[c], *values, int(counts.gt[c]), int(counts.pred[c])])
        table = AsciiTable(rows)
        table.justify_columns = {i: 'right' for i in range(1, len(rows[0]))}
        return '\n'.join([*lines, table.table, ' | '.join(f'{key} {percent(value)}' for key, value in summary.items())])
