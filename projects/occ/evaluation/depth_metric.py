"""Errors of predicted depth maps against LiDAR as a metric of mmengine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from terminaltables import AsciiTable

from .functional import DEPTH_METRICS, depth_at_pixels, depth_metrics, summarize_depth_metrics


@METRICS.register_module()
class DepthMetric(BaseMetric):
    """Seven numbers per camera, averaged over the images of each camera and then over the cameras.

    Reads of every data sample ``pred_depth``, (N, h, w) metres along the optical axis; ``depth_pixels``, N arrays (P, 3) of
    column, row and measured depth in the original images, as ``LoadDepthPixels`` makes them; ``ori_img_wh`` (N, 2) and
    ``cam_names``. Depth is metric: nothing is scaled, and beside it, under names that end in ``_median_scaled``, are the
    numbers after every prediction was scaled by the ratio of medians.

    Args:
        min_depth: Measured depths below do not count, metres.
        max_depth: Nor do those above: 80 on nuScenes, 200 on DDAD.
        collect_device: As in :class:`BaseMetric`.
        prefix: Prefix of the names in logs, ``'depth'`` by default.
        collect_dir: As in :class:`BaseMetric`.

    Raises:
        ValueError: If the limits are no range.
    """

    default_prefix = 'depth'

    def __init__(
        self,
        min_depth: float = 0.1,
        max_depth: float = 80.0,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if not 0 < min_depth < max_depth:
            raise ValueError(f'DepthMetric: min_depth must be above 0 and below max_depth, got {min_depth} and {max_depth}')
        self.min_depth = min_depth
        self.max_depth = max_depth

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Appends, for every sample, the names of its cameras and (2, N, 7) numbers: without and with median scaling.

        Raises:
            ValueError: If a sample lacks predicted or measured depths, or has a different number of them.
        """
        for sample in data_samples:
            token = str(sample.get('token', '<without token>'))
            for key, remedy in (
                ('pred_depth', 'the model must write it in predict'),
                (
                    'depth_pixels',
                    "load it with LoadDepthPixels and pack it with PackOccInputs(extra_meta_keys=['depth_pixels'])",
                ),
            ):
                if sample.get(key) is None:
                    raise ValueError(f'sample {token} has no {key!r}: {remedy}')
            predictions, targets = sample['pred_depth'], sample['depth_pixels']
            if len(predictions) != len(targets):
                raise ValueError(f'sample {token} has {len(predictions)} predicted depth maps but {len(targets)} measured ones')
            names = tuple(sample.get('cam_names') or (f'camera_{i}' for i in range(len(targets))))
            numbers = np.empty((2, len(targets), len(DEPTH_METRICS)))
            for view, (prediction, rows) in enumerate(zip(predictions, targets)):
                rows = np.asarray(rows)
                depths = depth_at_pixels(prediction, sample['ori_img_wh'][view], rows[:, :2].astype(np.int64))
                for i, scaled in enumerate((False, True)):
                    numbers[i, view] = depth_metrics(depths.cpu(), rows[:, 2], self.min_depth, self.max_depth, scaled)
            self.results.append((names, numbers))

    def compute_metrics(self, results: Sequence[tuple[tuple[str, ...], np.ndarray]]) -> dict:
        """Averages, logs the table of all cameras and returns the means.

        Args:
            results: Records of :meth:`process`.

        Returns:
            dict: the seven numbers (float), the same with ``_median_scaled``, and ``depth_per_camera``, camera name -> dict of
            the seven.

        Raises:
            ValueError: If there is no sample, samples have different cameras, or no image has a depth that counts.
        """
        if not len(results):
            raise ValueError('DepthMetric has no sample to score; check the length of the test set')
        names = results[0][0]
        other = next((found for found, _ in results if found != names), None)
        if other is not None:
            raise ValueError(
                f'DepthMetric needs the same cameras in every sample, got {names} and {other}; set dataset.cam_names'
            )
        per_image = np.stack([numbers for _, numbers in results], 1)
        if np.isnan(per_image).all():
            raise ValueError(f'no measured depth lies between {self.min_depth} m and {self.max_depth} m; check the LiDAR files')
        (per_camera, total), (_, scaled) = (summarize_depth_metrics(part) for part in per_image)
        rows = [['camera', *DEPTH_METRICS]]
        rows += [[name, *_numbers(values)] for name, values in zip(names, per_camera)]
        rows += [['mean', *_numbers(total)], ['mean, median scaled', *_numbers(scaled)]]
        table = AsciiTable(rows)
        table.justify_columns = {i: 'right' for i in range(1, len(rows[0]))}
        head = f'depth of {len(results)} frames, LiDAR points between {self.min_depth:g} m and {self.max_depth:g} m'
        print_log(f'{head}\n{table.table}', logger='current')
        found = {key: float(value) for key, value in zip(DEPTH_METRICS, total)}
        found.update({f'{key}_median_scaled': float(value) for key, value in zip(DEPTH_METRICS, scaled)})
        found['depth_per_camera'] = {
            name: {key: None if np.isnan(value) else float(value) for key, value in zip(DEPTH_METRICS, values)}
            for name, values in zip(names, per_camera)
        }
        return found


def _numbers(values: np.ndarray) -> list[str]:
    return ['-' if np.isnan(value) else f'{value:.3f}' for value in values]
