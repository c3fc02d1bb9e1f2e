"""Errors of predicted motions of the cameras as a metric of mmengine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from terminaltables import AsciiTable

from .functional.pose_metrics import POSE_METRICS, pose_metrics
from .functional.report import sample_name

PREDICTORS = ('network', 'constant_velocity', 'standing')


@METRICS.register_module()
class PoseMetric(BaseMetric):
    """Motions between the key frame and its neighbours against the given ones, beside two predictors that see no image.

    Reads ``pred_motions`` and ``gt_motions`` (F, N, 4, 4) of every data sample, points of each of N cameras at the key frame ->
    of the same camera at each of F frames, as ``DepthPoseModel`` writes them; NaN where there is no such frame. Nothing is
    scaled. ``constant_velocity`` takes the given motion to the opposite frame the other way round, so it knows the speed and
    the turn of the moment before; ``standing`` predicts no motion.

    Args:
        frames: Offsets of the F frames.
        collect_device: As in :class:`BaseMetric`.
        prefix: Prefix of the names in logs, ``'pose'`` by default.
        collect_dir: As in :class:`BaseMetric`.

    Raises:
        ValueError: If the key frame is among the frames.
    """

    default_prefix = 'pose'

    def __init__(
        self,
        frames: Sequence[int] = (-1, 1),
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.frames = tuple(int(frame) for frame in frames)
        if not self.frames or 0 in self.frames:
            raise ValueError(f'PoseMetric.frames must be one or more other frames than the key frame 0, got {self.frames}')

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Appends (3, F, N, 3) numbers per sample: predictor, frame, camera, error.

        Raises:
            ValueError: If a sample lacks motions, or has those of other frames.
        """
        for sample in data_samples:
            name = sample_name(sample)
            for key in ('pred_motions', 'gt_motions'):
                value = sample.get(key)
                if value is None:
                    raise ValueError(
                        f'sample {name} has no {key!r}: the model needs a pose network and the images of the frames '
                        f'{self.frames}; set dataset.frames and LoadMultiViewImages or ResizeImages with keep_originals=True'
                    )
                if len(value) != len(self.frames):
                    raise ValueError(
                        f'sample {name}: {key} has {len(value)} frames, PoseMetric.frames says {self.frames}; they must be '
                        "the model's"
                    )
            given = torch.as_tensor(sample['gt_motions']).double().cpu()
            back = torch.full_like(given, torch.nan)
            for i, frame in enumerate(self.frames):
                if -frame in self.frames:
                    back[i] = _inverse(given[self.frames.index(-frame)])
            standing = torch.eye(4, dtype=given.dtype).expand_as(given)
            predicted = torch.as_tensor(sample['pred_motions']).double().cpu()
            self.results.append(np.stack([pose_metrics(motion, given) for motion in (predicted, back, standing)]))

    def compute_metrics(self, results: Sequence[np.ndarray]) -> dict:
        """Averages over samples, frames and cameras, logs a table and returns the numbers.

        Args:
            results: Records of :meth:`process`.

        Returns:
            dict: ``translation_error`` (mean, metres), ``rotation_error`` (mean, degrees) and ``translation_ratio`` (median),
            and the same with ``_constant_velocity`` and ``_standing``; predictors are compared where all of them are known.

        Raises:
            ValueError: If there is no sample, or no motion is known.
        """
        if not len(results):
            raise ValueError('PoseMetric has no sample to score; check the length of the test set')
        values = np.stack(results, 1).reshape(len(PREDICTORS), -1, len(POSE_METRICS))
        known = ~np.isnan(values[..., 0])
        both = known.all(0) if known[1].any() else known[0]
        if not both.any():
            raise ValueError(f'no sample has its frames {self.frames}; check dataset.frames and dataset.missing_frames')
        rows, found = [['predictor', 'translation [m]', 'rotation [deg]', 'length ratio']], {}
        for predictor, part in zip(PREDICTORS, values):
            if np.isnan(part[..., 0]).all():
                continue
            translation, rotation = part[both, :2].mean(0)
            ratios = part[both, 2]
            ratio = float('nan') if np.isnan(ratios).all() else float(np.nanmedian(ratios))
            rows.append([predictor.replace('_', ' '), f'{translation:.4f}', f'{rotation:.4f}', f'{ratio:.3f}'])
            ending = '' if predictor == 'network' else f'_{predictor}'
            found.update({f'{key}{ending}': float(v) for key, v in zip(POSE_METRICS, (translation, rotation, ratio))})
        print_log(f'motions to the frames {self.frames}, {int(both.sum())} counted\n{AsciiTable(rows).table}', logger='current')
        return found


def _inverse(motions: torch.Tensor) -> torch.Tensor:
    """Of rigid motions (..., 4, 4), NaN where one is unknown."""
    known = torch.isfinite(motions).all(-1).all(-1)[..., None, None]
    eye = torch.eye(4, dtype=motions.dtype).expand_as(motions)
    return torch.where(known, torch.linalg.inv(torch.where(known, motions, eye)), motions)
