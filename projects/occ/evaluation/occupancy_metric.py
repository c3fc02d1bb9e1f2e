"""mIoU and IoU of predicted occupancy as a metric of mmengine."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from terminaltables import AsciiTable
from torch import Tensor

from ..structures import VoxelGrid
from ..structures.benchmarks import get_benchmark
from ..structures.masks import MASK_FIELDS
from ..structures.voxel_grid import plain_class_name
from .functional import ABSENT_POLICIES, summarize_confusion, voxel_confusion
from .functional.report import percent, sample_name


@METRICS.register_module()
class OccupancyMetric(BaseMetric):
    """Pools one confusion matrix per sample over the split and over all processes, then takes the IoUs.

    Reads ``pred_occ`` and ``gt_occ`` (X, Y, Z) integer and, where the mask asks for them, ``mask_camera`` and ``mask_lidar``
    (X, Y, Z) of every data sample. Counts are exact integers; a record is one small matrix per sample, so samples that a
    distributed sampler repeats are cut off and any number of processes gives the same result.

    Args:
        grid: Voxel grid or its config dict.
        preset: ``'occ3d'``, ``'surroundocc'`` or ``'sscbench-kitti360'``: checks the grid against the benchmark and sets the
            mask. None: only what is written here counts.
        mask: Voxels that count, of those not labelled ``grid.ignore_index``: ``'none'`` (all), ``'camera'``, ``'lidar'`` or
            ``'both'`` (camera and LiDAR). None takes the preset's, or ``'none'`` without a preset.
        absent: Policy for classes without a true voxel, see :func:`summarize_confusion`.
        excluding: Further means by name, with the names of classes that are left out of each beside the free one, for example
            ``dict(mIoU_star=('others', 'other_flat'))``, as published for supervision by 2D labels without these.
        region: (x_min, y_min, z_min, x_max, y_max, z_max), metres: only voxels whose centre lies in this box count. None: all.
        collect_device: As in :class:`BaseMetric`.
        prefix: Prefix of the names in logs, ``'occ'`` by default.
        collect_dir: As in :class:`BaseMetric`.

    Raises:
        ValueError: If preset, grid, mask and policy do not agree.
    """

    default_prefix = 'occ'

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        preset: str | None = None,
        mask: str | None = None,
        absent: str = 'exclude',
        excluding: Mapping[str, Sequence[str]] | None = None,
        region: Sequence[float] | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.grid = VoxelGrid.build(grid)
        self.preset = None if preset is None else get_benchmark(preset)
        if mask is not None and mask not in MASK_FIELDS:
            raise ValueError(f'mask must be one of {tuple(MASK_FIELDS)}, got {mask!r}')
        if absent not in ABSENT_POLICIES:
            raise ValueError(f'absent must be one of {ABSENT_POLICIES}, got {absent!r}')
        self.is_benchmark_grid = False
        if self.preset is not None:
            self.is_benchmark_grid = self.preset.check(self.grid)
            if mask not in (None, self.preset.mask):
                raise ValueError(
                    f'preset {preset!r} counts with mask={self.preset.mask!r}, got mask={mask!r}; '
                    'drop one of the two (preset=None counts with any mask)'
                )
            mask = self.preset.mask
        self.mask = mask or 'none'
        self.absent = absent
        self.excluding = {name: tuple(classes) for name, classes in (excluding or {}).items()}
        for name, classes in self.excluding.items():
            unknown = sorted(set(classes) - set(self.grid.class_names))
            if unknown:
                raise ValueError(f'excluding.{name} names {unknown}, the grid has the classes {self.grid.class_names}')
        self.region = None if region is None else tuple(float(bound) for bound in region)
        self._in_region = None if region is None else region_mask(self.grid, self.region)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Appends one (C, C) int64 confusion matrix per sample.

        Raises:
            ValueError: If a sample lacks prediction, label or a mask that is needed, or they do not fit the grid.
        """
        for sample in data_samples:
            gt = self._field(sample, 'gt_occ', 'load it with LoadOccLabels in the test pipeline')
            pred = self._field(sample, 'pred_occ', 'the model must write it in predict')
            self.grid.check_labels(gt, origin=f'gt_occ of sample {sample_name(sample)}')
            hist = voxel_confusion(pred, gt, self.grid.num_classes, self._mask_of(sample), self.grid.ignore_index)
            self.results.append(hist)

    def compute_metrics(self, results: Sequence[np.ndarray]) -> dict:
        """Pools the matrices, logs protocol and per-class table and returns fractions.

        Args:
            results: (C, C) confusion matrices, one per sample.

        Returns:
            dict: ``mIoU``, ``IoU``, ``mIoU_with_free``, ``precision``, ``recall`` and the means of ``excluding`` (float),
            ``num_averaged`` (int) and ``per_class``, a dict of class name -> IoU, None for a class that the policy leaves out.

        Raises:
            ValueError: If there is no sample.
        """
        if not len(results):
            raise ValueError('OccupancyMetric has no sample to score; check the length of the test set')
        hist = np.sum(np.stack(results), axis=0)
        summary = summarize_confusion(hist, self.grid.free_index, self.absent)
        self._warn_if_degenerate(hist)
        names, free = self.grid.class_names, self.grid.free_index
        for name, left_out in self.excluding.items():
            kept = [value for c, value in enumerate(summary['per_class']) if c != free and names[c] not in left_out]
            summary[name] = float(np.nanmean(kept)) if np.isfinite(kept).any() else float('nan')
        print_log(self._report(hist, summary, len(results)), logger='current')
        per_class = summary.pop('per_class')
        summary['per_class'] = {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(self.grid.class_names, per_class, strict=True)
        }
        return summary

    def _field(self, sample: dict, key: str, remedy: str) -> np.ndarray:
        value = sample.get(key)
        if value is None:
            raise ValueError(f'sample {sample_name(sample)} has no {key!r}: {remedy}')
        # bytes are compared and counted faster as arrays
        return value.cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)

    def _mask_of(self, sample: dict):
        counted = self._in_region
        for key in MASK_FIELDS[self.mask]:
            mask = self._field(sample, key, f'mask={self.mask!r} needs a benchmark that ships it') != 0
            counted = mask if counted is None else counted & mask
        return counted

    def _warn_if_degenerate(self, hist: np.ndarray) -> None:
        used = np.flatnonzero(hist.sum(0))
        if len(used) == 1:
            only = int(used[0])
            what = 'free space' if only == self.grid.free_index else f'class {self.grid.class_names[only]!r}'
            print_log(
                f'Every counted voxel is predicted as {what}: the model has not learned yet, or prediction and labels do not '
                'belong together',
                logger='current',
                level=logging.WARNING,
            )

    def _report(self, hist: np.ndarray, summary: dict, num_frames: int) -> str:
        """What was counted and the table in percent."""
        grid = self.grid
        lines = [
            f'Occupancy of {num_frames} frames, {int(hist.sum())} voxels counted',
            f'preset {self.preset.name if self.preset else None} | {grid.num_classes} classes, free {grid.free_index} '
            f'({grid.class_names[grid.free_index]}), ignore {grid.ignore_index} | mask {self.mask} | '
            f'range {grid.point_cloud_range} m ({grid.frame} frame), voxel {grid.voxel_size} m | absent classes: {self.absent}',
        ]
        if self.region is not None:
            lines.append(f'Only the box {self.region} m of the grid is counted')
        if self.preset and self.region is not None:
            lines.append('Not comparable with published numbers: a part of the grid alone')
        elif self.preset and (not self.is_benchmark_grid or self.preset.incomparable(num_frames)):
            what = (
                self.preset.incomparable(num_frames)
                if self.is_benchmark_grid
                else 'the grid is smaller or coarser than the benchmark'
            )
            lines.append(f'Not comparable with published numbers: {what}')
        rows = [['class', 'IoU', 'true voxels', 'predicted voxels']]
        for c, name in enumerate(grid.class_names):
            note = ' (free, not in mIoU)' if c == grid.free_index else ''
            value = summary['per_class'][c]
            rows.append([name + note, percent(value), int(hist[c].sum()), int(hist[:, c].sum())])
        table = AsciiTable(rows)
        table.justify_columns = {1: 'right', 2: 'right', 3: 'right'}
        lines.append(table.table)
        parts = [f'mIoU {percent(summary["mIoU"])} (mean over {summary["num_averaged"]} of {grid.num_classes - 1} classes)']
        for key in ('IoU', 'precision', 'recall', 'mIoU_with_free', *self.excluding):
            parts.append(f'{key} {percent(summary[key])}')
        lines.append(' | '.join(parts))
        return '\n'.join(lines)


def class_ids(classes: Sequence[str | int], grid: VoxelGrid, what: str) -> tuple[int, ...]:
    """Ids of classes that are given by name or id.

    Raises:
        ValueError: If the grid has no such class; ``what`` is named.
    """
    names = [plain_class_name(name) for name in grid.class_names]
    ids = []
    for item in classes:
        text = str(item)
        found = int(text) if text.isdigit() else names.index(plain_class_name(text)) if plain_class_name(text) in names else -1
        if not 0 <= found < grid.num_classes:
            raise ValueError(
                f'{what}: no class {item!r}; the grid has 0..{grid.num_classes - 1}: {", ".join(grid.class_names)}'
            )
        ids.append(found)
    return tuple(ids)


def region_mask(grid: VoxelGrid, region: Sequence[float]) -> np.ndarray:
    """(X, Y, Z) bool: voxels whose centre lies in a box (x_min, y_min, z_min, x_max, y_max, z_max), metres.

    Raises:
        ValueError: If there is none.
    """
    if len(region) != 6:
        raise ValueError(f'region must be (x_min, y_min, z_min, x_max, y_max, z_max) in metres, got {tuple(region)}')
    centers = grid.centers().numpy()
    inside = ((centers >= np.asarray(region[:3])) & (centers <= np.asarray(region[3:]))).all(-1)
    if not inside.any():
        raise ValueError(f'region {tuple(region)} holds no voxel centre of the grid, which spans {grid.point_cloud_range} m')
    return inside
