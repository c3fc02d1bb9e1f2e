"""Metrics of rendered images: what a camera would see of the prediction against what it would see of the label."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from terminaltables import AsciiTable
from torch import Tensor

from projects.occ.evaluation.functional import ABSENT_POLICIES, depth_errors, summarize_images, voxel_confusion
from projects.occ.evaluation.functional.report import percent, sample_name
from projects.occ.structures import Cameras, VoxelGrid, sample_cameras
from projects.rendering.fields import ABSENT_LOGIT, check_logits

from .gauss_render import GaussRender, RenderedScene

PAINTED = {True: 'class probabilities', False: 'class ids: not comparable with published 2D numbers'}


@METRICS.register_module()
class RenderedImageMetric(BaseMetric):
    """Renders prediction and label of every sample into its own cameras and a bird's-eye view, and compares the images.

    The set-up is that of GaussRender's evaluation: unmoved cameras, original images, every camera, opacity 1 for occupied and 0
    for free voxels, only voxels whose centre a camera sees and which the label does not ignore. The model need not have been
    trained by rendering.

    Reads ``pred_occ``, ``gt_occ`` (X, Y, Z) integer, ``ref2cam``, ``cam2img`` and ``ori_img_wh`` of every data sample. If the
    sample also has ``pred_logits`` (C, X, Y, Z), the prediction is painted with its class probabilities, as in the published
    evaluation. Without them it is painted with its class ids, which gives other numbers: the probability of free space that an
    occupied voxel carries counts like background, so whole surfaces can turn free. Depth is the same for both: in either way
    those voxels are opaque that ``pred_occ`` calls occupied.

    A record is two small matrices and two numbers per sample; any number of processes gives the same result.

    Args:
        grid: Voxel grid or its config dict.
        gaussian_scale: Standard deviation of the Gaussians, metres; None is half the shortest voxel edge. Published: 0.27
            (Occ3D), 0.25 (SurroundOcc), 0.1 (SSCBench-KITTI-360).
        with_bev: Render the bird's-eye view too.
        bev: Arguments of :func:`bird_eye_camera`: ``size`` and ``height``.
        reduction: Camera images are smaller by this factor; published numbers have 1.
        renderer: ``backend`` and ``settings`` of :class:`SplatRenderer`.
        absent: Policy for classes that no pixel of the rendered label shows, see :func:`summarize_confusion`.
        collect_device: As in :class:`BaseMetric`.
        prefix: Prefix of the names in logs, ``'occ'`` by default.
        collect_dir: As in :class:`BaseMetric`.

    Raises:
        ValueError: If an argument is unknown or out of range.
    """

    default_prefix = 'occ'

    def __init__(
        self,
        grid: VoxelGrid | Mapping[str, Any],
        gaussian_scale: float | None = None,
        with_bev: bool = True,
        bev: Mapping[str, Any] | None = None,
        reduction: float = 1,
        renderer: Mapping[str, Any] | None = None,
        absent: str = 'exclude',
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if absent not in ABSENT_POLICIES:
            raise ValueError(f'absent must be one of {ABSENT_POLICIES}, got {absent!r}')
        if not reduction >= 1:
            raise ValueError(f'reduction must be at least 1, got {reduction}')
        self.grid = VoxelGrid.build(grid)
        self.with_bev = with_bev
        self.reduction = reduction
        self.absent = absent
        self.render = GaussRender(self.grid, gaussians=dict(gaussian_scale=gaussian_scale), bev=bev, renderer=renderer)

    @torch.no_grad()
    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Appends the counts of every sample.

        Raises:
            ValueError: If a sample lacks something, or it does not fit the grid.
        """
        for sample in data_samples:
            for key, remedy in (('gt_occ', 'load it with LoadOccLabels'), ('pred_occ', 'the model must write it in predict')):
                if sample.get(key) is None:
                    raise ValueError(f'sample {sample_name(sample)} has no {key!r}: {remedy}')
            pred = self._prediction(sample)[None]
            gt = torch.as_tensor(sample['gt_occ'])[None].to(pred.device)
            logits = None if sample.get('pred_logits') is None else self._logits(sample['pred_logits'], pred)
            cameras = sample_cameras(sample).reduced(self.reduction)
            record = self._count(pred, gt, logits, cameras)
            self.results.append(dict(record, with_probabilities=logits is not None))

    def compute_metrics(self, results: Sequence[dict]) -> dict:
        """Pools the counts, logs the tables and returns fractions and metres.

        Args:
            results: Records of :meth:`process`, one per sample.

        Returns:
            dict: ``img_mIoU``, ``img_IoU``, ``bev_mIoU``, ``bev_IoU``, ``depth_L1`` (metres), and ``img_per_class`` and
            ``bev_per_class``, class name -> IoU, None for a class that the policy leaves out.

        Raises:
            ValueError: If there is no sample.
        """
        if not len(results):
            raise ValueError('RenderedImageMetric has no sample to score; check the length of the test set')
        camera = sum(record['camera'] for record in results)
        bird_eye = sum(record['bird_eye'] for record in results) if self.with_bev else None
        # fsum: the result must not depend on how frames were spread over processes
        depth_sum = math.fsum(record['depth_sum'] for record in results)
        depth_count = sum(record['depth_count'] for record in results)
        summary = summarize_images(camera, bird_eye, depth_sum, depth_count, self.grid.free_index, self.absent)
        with_probabilities = all(record['with_probabilities'] for record in results)
        report = self._report(summary, len(results), int(camera.sum()), depth_count, with_probabilities)
        print_log(report, logger='current')
        for key in ('img_per_class', 'bev_per_class'):
            if key in summary:
                values = zip(self.grid.class_names, summary[key], strict=True)
                summary[key] = {name: None if np.isnan(value) else float(value) for name, value in values}
        return summary

    def _prediction(self, sample: dict) -> Tensor:
        """``pred_occ`` as (X, Y, Z) int64."""
        origin = f'pred_occ of sample {sample_name(sample)}'
        pred = torch.as_tensor(sample['pred_occ'])
        if pred.is_floating_point() or tuple(pred.shape) != self.grid.shape:
            raise ValueError(
                f'{origin}: expected integer class ids of shape {self.grid.shape}, got {pred.dtype} {tuple(pred.shape)}'
            )
        pred = pred.long()
        self.grid.check_labels(pred, origin)
        if (pred == self.grid.ignore_index).any():
            raise ValueError(
                f'{origin}: holds ignore_index {self.grid.ignore_index}, which labels alone may; predict a class everywhere'
            )
        return pred

    def _logits(self, logits: Tensor | np.ndarray, pred: Tensor) -> Tensor:
        """``pred_logits`` as (1, C, X, Y, Z); their arg-max, which decides the opacity, is free where ``pred`` is."""
        logits = torch.as_tensor(logits, device=pred.device)[None]
        check_logits(logits, self.grid)
        free = self.grid.free_index
        # some models decide by more than the largest logit, such as opacity_threshold
        overruled = (logits.argmax(1) == free) != (pred == free)
        if overruled.any():
            decided = torch.where(pred == free, -ABSENT_LOGIT, ABSENT_LOGIT).to(logits.dtype)
            logits = logits.clone()
            logits[:, free] = torch.where(overruled, decided, logits[:, free])
        return logits

    def _count(self, pred: Tensor, gt: Tensor, logits: Tensor | None, cameras: Cameras) -> dict:
        """Counts of one sample; camera by camera, because images of all classes are large."""
        classes = self.grid.num_classes
        record = dict(camera=np.zeros((classes, classes), dtype=np.int64), depth_sum=0.0, depth_count=0)
        for n in range(cameras.num_cameras):
            with_bev = self.with_bev and n == 0
            view = cameras.select([n])
            target = self.render.render_labels(gt, view, with_bev=with_bev)
            guess = self._render_prediction(pred, gt, logits, view, with_bev)
            record['camera'] += _confusion(guess.cam_sem, target.cam_sem, classes)
            errors, count = depth_errors(guess.cam_depth, target.cam_depth)
            record['depth_sum'] += errors
            record['depth_count'] += count
            if with_bev:
                record['bird_eye'] = _confusion(guess.bev_sem, target.bev_sem, classes)
        return record

    def _render_prediction(
        self, pred: Tensor, gt: Tensor, logits: Tensor | None, view: Cameras, with_bev: bool
    ) -> RenderedScene:
        if logits is not None:
            return self.render.render(logits, view, labels=gt, with_bev=with_bev, hard_opacity=True)
        # what the label ignores is left out of both
        shown = torch.where(gt == self.grid.ignore_index, self.grid.ignore_index, pred)
        return self.render.render_labels(shown, view, with_bev=with_bev)

    def _report(self, summary: dict, num_frames: int, num_pixels: int, depth_count: int, with_probabilities: bool) -> str:
        """What was counted and the tables in percent."""
        grid = self.grid
        scale = self.render.gaussians.gaussian_scale
        lines = [
            f'Rendered images of {num_frames} frames, {num_pixels} camera pixels, {depth_count} with depth',
            f'{grid.num_classes} classes, free {grid.free_index} (background), ignore {grid.ignore_index} | Gaussians of '
            f'{scale:g} m | images reduced by {self.reduction:g} | absent classes: {self.absent}',
            f'prediction painted with {PAINTED[with_probabilities]}',
        ]
        columns = [key for key in ('img', 'bev') if f'{key}_mIoU' in summary]
        rows = [['class', *({'img': 'cameras', 'bev': "bird's eye"}[key] for key in columns)]]
        for c, name in enumerate(grid.class_names):
            note = ' (free, not in mIoU)' if c == grid.free_index else ''
            rows.append([name + note, *(percent(summary[f'{key}_per_class'][c]) for key in columns)])
        table = AsciiTable(rows)
        table.justify_columns = {1: 'right', 2: 'right'}
        names = [f'{key}_{what}' for key in columns for what in ('mIoU', 'IoU')]
        values = [f'{name} {percent(summary[name])}' for name in names]
        return '\n'.join([*lines, table.table, ' | '.join([*values, f'depth_L1 {summary["depth_L1"]:.3f} m'])])


def _confusion(pred: Tensor, gt: Tensor, num_classes: int) -> np.ndarray:
    """(C, C) counts of the most likely classes of two class images (..., C)."""
    ids = (images.argmax(-1).to(torch.uint8).cpu().numpy() for images in (pred, gt))
    return voxel_confusion(*ids, num_classes, ignore_index=None)
