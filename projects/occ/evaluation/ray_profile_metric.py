"""Bleeding along rays, floaters and holes as a metric of mmengine."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from terminaltables import AsciiTable

from ..structures import VoxelGrid
from .functional import RANGE_BANDS, floaters_and_holes, profile_means, profile_sums, query_rays
from .functional.report import percent, sample_name
from .ray_origin_files import RayOrigins, load_ray_origins

REFERENCES = ('labels', 'lidar')
SHARES = ('ray_front', 'ray_hit', 'ray_behind')


@METRICS.register_module()
class RayProfileMetric(BaseMetric):
    """Where predictions lie along rays whose surface is known; see docs/evaluation.md, "Along rays".

    Reads ``pred_occ``, ``gt_occ`` (X, Y, Z) integer and ``token`` of every data sample. What a model is sure of comes from
    ``pred_opacity`` (X, Y, Z) in [0, 1] if it is there, else from ``pred_logits`` (C, X, Y, Z) as one minus the probability of
    the free class; without both, numbers of opacities are left out. Floaters and holes count where ``mask_camera`` says that a
    camera sees, and everywhere if samples have no such mask. Records are sums and numbers by class and range, a few kilobytes
    per sample, so any number of processes gives the same result.

    Args:
        grid: Voxel grid or its config dict.
        origins: Where query rays start, as of :class:`RayIoUMetric`; None with ``reference='lidar'``.
        reference: What is known of rays. ``'labels'``: query rays of RayIoU, and the first surface of the label along them;
            ``'lidar'``: the rays from cameras to LiDAR points, ``depth_pixels`` as ``LoadDepthPixels`` makes them, with
            ``ref2cam``, ``cam2img``.
        max_depth: LiDAR points farther from the camera do not count, metres along the optical axis.
        collect_device: As in :class:`BaseMetric`.
        prefix: Prefix of the names in logs, ``'occ'`` by default.
        collect_dir: As in :class:`BaseMetric`.

    Raises:
        FileNotFoundError: If the file of origins does not exist.
        ValueError: If an option is unknown, or the origins are missing or damaged.
    """

    default_prefix = 'occ'

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        origins: RayOrigins | None = None,
        reference: str = 'labels',
        max_depth: float = 80.0,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.grid = VoxelGrid.build(grid)
        if reference not in REFERENCES:
            raise ValueError(f'RayProfileMetric: reference must be one of {REFERENCES}, got {reference!r}')
        if reference == 'labels' and origins is None:
            raise ValueError("RayProfileMetric needs origins, the places where query rays start, or reference='lidar'")
        self.reference = reference
        self.max_depth = max_depth
        self.origins = load_ray_origins(origins, self.grid) if reference == 'labels' else None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Appends the sums of every sample.

        Raises:
            ValueError: If a sample lacks something, or it does not fit the grid.
        """
        for sample in data_samples:
            pred, gt = (
                self._field(sample, key, remedy)
                for key, remedy in (
                    ('pred_occ', 'the model must write it in predict'),
                    ('gt_occ', 'load it with LoadOccLabels'),
                )
            )
            rays = self._query_rays(sample) if self.reference == 'labels' else self._lidar_rays(sample)
            opacity = self._opacity(sample)
            record = profile_sums(pred, gt, self.grid, *rays, opacity=opacity)
            mask = sample.get('mask_camera')
            counts = floaters_and_holes(pred, gt, self.grid, mask)
            self.results.append(dict(record, counts=counts, masked=mask is not None))

    def compute_metrics(self, results: Sequence[dict]) -> dict:
        """Pools the sums, logs the tables and returns means over rays.

        Args:
            results: Records of :meth:`process`, one per sample.

        Returns:
            dict: the names of :func:`profile_means`; ``floaters`` and ``holes``, pooled over the frames, and
            ``floaters_per_frame`` and ``holes_per_frame``, means of the frames that have any; ``ray_profile_per_class`` and
            ``ray_profile_per_range``, dicts of the same names, None where there is nothing.

        Raises:
            ValueError: If there is no sample, or only some have opacities.
        """
        if not len(results):
            raise ValueError('RayProfileMetric has no sample to score; check the length of the test set')
        with_opacity = {'soft' in record for record in results}
        if len(with_opacity) > 1:
            raise ValueError('RayProfileMetric: some samples have opacities or logits and others have none; give all or none')
        hard = _total([record['hard'] for record in results])
        soft = _total([record['soft'] for record in results]) if with_opacity == {True} else None
        summary = profile_means(hard, soft)
        counts = np.stack([record['counts'] for record in results])
        for name, (part, whole) in dict(floaters=(0, 1), holes=(2, 3)).items():
            there = counts[:, whole] > 0
            shares = counts[there, part] / counts[there, whole]
            total = counts[:, whole].sum()
            summary[name] = float(counts[:, part].sum() / total) if total else float('nan')
            summary[f'{name}_per_frame'] = math.fsum(shares) / len(shares) if len(shares) else float('nan')
        names = [*self.grid.class_names, 'unknown']
        tables = {}
        for key, rows in dict(ray_profile_per_class=names, ray_profile_per_range=_band_names()).items():
            axis = 1 if key.endswith('class') else 2
            tables[key] = {
                name: profile_means(hard.take(i, axis), None if soft is None else soft.take(i, axis))
                for i, name in enumerate(rows)
                if i != self.grid.free_index or axis == 2
            }
        masked = all(record['masked'] for record in results)
        print_log(self._report(summary, tables, len(results), masked), logger='current')
        for table in tables.values():
            for row in table.values():
                row.update({key: None for key, value in row.items() if math.isnan(value)})
        return {**summary, **tables}

    def _field(self, sample: dict, key: str, remedy: str) -> np.ndarray:
        if sample.get(key) is None:
            raise ValueError(f'sample {sample_name(sample)} has no {key!r}: {remedy}')
        value = torch.as_tensor(sample[key]).cpu().numpy()
        self.grid.check_labels(value, f'{key} of sample {sample_name(sample)}')
        return value

    def _query_rays(self, sample: dict) -> tuple[np.ndarray, np.ndarray]:
        token = sample_name(sample)
        if token not in self.origins:
            raise ValueError(
                f'there are no ray origins for frame {token} ({len(self.origins)} frames have some); make them from all frames '
                'of the split that is tested, see docs/evaluation.md, "RayIoU"'
            )
        return query_rays(self.origins[token])

    def _lidar_rays(self, sample: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Origins, directions and ranges of the LiDAR points that cameras see."""
        for key in ('depth_pixels', 'ref2cam', 'cam2img'):
            if sample.get(key) is None:
                raise ValueError(
                    f"sample {sample_name(sample)} has no {key!r}, which reference='lidar' reads: load it with LoadDepthPixels "
                    "and pack it with PackOccInputs(extra_meta_keys=['depth_pixels'])"
                )
        origins, directions, ranges = [np.zeros((0, 3))], [np.zeros((0, 3))], [np.zeros(0)]
        for rows, ref2cam, cam2img in zip(sample['depth_pixels'], sample['ref2cam'], sample['cam2img']):
            rows = np.asarray(rows, dtype=np.float64)
            rows = rows[(rows[:, 2] > 0) & (rows[:, 2] < self.max_depth)]
            cam2ref = np.linalg.inv(np.asarray(ref2cam, dtype=np.float64))
            # the middle of the pixel, in the convention of Cameras
            pixels = np.column_stack([rows[:, :2] + 0.5, np.ones(len(rows))])
            points = pixels @ np.linalg.inv(np.asarray(cam2img, dtype=np.float64)[:3, :3]).T * rows[:, 2:3]
            directions.append(points @ cam2ref[:3, :3].T)
            origins.append(np.broadcast_to(cam2ref[:3, 3], points.shape))
            ranges.append(np.linalg.norm(points, axis=1))
        return tuple(np.concatenate(parts) for parts in (origins, directions, ranges))

    def _opacity(self, sample: dict) -> np.ndarray | None:
        if sample.get('pred_opacity') is not None:
            return torch.as_tensor(sample['pred_opacity']).float().cpu().numpy()
        if sample.get('pred_logits') is None:
            return None
        logits = torch.as_tensor(sample['pred_logits']).float().cpu()
        return (1 - logits.softmax(0)[self.grid.free_index]).clamp(0, 1).numpy()

    def _report(self, summary: dict, tables: dict, num_frames: int, masked: bool) -> str:
        """What was counted, and the tables in percent and metres."""
        where = 'where cameras see' if masked else 'in all labelled voxels (the data set has no camera mask)'
        source = {'labels': 'first surfaces of the label', 'lidar': 'LiDAR points'}[self.reference]
        lines = [
            f'Ray profiles of {num_frames} frames, {summary["rays"]} rays whose surface is known from {source}; '
            f'v = {max(self.grid.voxel_size):g} m',
            f'floaters {percent(summary["floaters"])} % of predicted voxels, holes {percent(summary["holes"])} % of true ones, '
            f'{where}',
        ]
        rows = [['', 'front', 'hit', 'behind', 'surfaces', 'label', 'thickness (m)', 'label', 'spread (m)', 'rays']]
        sections = [*tables['ray_profile_per_class'].items(), *tables['ray_profile_per_range'].items(), ('all', summary)]
        for name, row in sections:
            if row['rays']:
                numbers = [row[f'ray_{key}'] for key in ('surfaces', 'surfaces_label', 'thickness', 'thickness_label')]
                numbers.append(row.get('ray_spread', float('nan')))
                cells = ['-' if math.isnan(value) else f'{value:.2f}' for value in numbers]
                rows.append([name, *(percent(row[key]) for key in SHARES), *cells, row['rays']])
        table = AsciiTable(rows)
        table.justify_columns = {i: 'right' for i in range(1, len(rows[0]))}
        lines.append(table.table)
        if 'ray_spread' in summary:
            soft = ' | '.join(f'{key} {percent(summary[f"ray_{key}_soft"])}' for key in ('front', 'hit', 'behind'))
            lines.append(f'share of opacity in percent: {soft} | miss {percent(summary["ray_miss"])}')
        return '\n'.join(lines)


def _total(tables: Sequence[np.ndarray]) -> np.ndarray:
    """Sum over frames that does not depend on their order."""
    stacked = np.stack([np.asarray(table) for table in tables]).reshape(len(tables), -1)
    return np.array([math.fsum(column) for column in stacked.T]).reshape(np.shape(tables[0]))


def _band_names() -> list[str]:
    borders = [0.0, *RANGE_BANDS]
    return [*(f'{low:g}-{high:g} m' for low, high in zip(borders, RANGE_BANDS)), f'over {RANGE_BANDS[-1]:g} m']
