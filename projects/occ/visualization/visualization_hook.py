"""Draws samples while a model is validated or tested."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet3d.registry import HOOKS
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from projects.occ.file_names import name_to_path, shown_text

from ..structures import OccDataSample
from .camera_path import CameraPath
from .scene_videos import Record, SceneVideos


@HOOKS.register_module()
class OccVisualizationHook(Hook):
    """Hands every ``interval``-th sample to the visualiser (``OccVisualizer``).

    mmdet3d's own hook draws boxes and point clouds and knows no occupancy.

    Args:
        draw: Whether to draw at all.
        interval: Draw one of so many samples.
        draw_gt: Draw the label.
        draw_pred: Draw the prediction.
        show: Show windows; needs a display.
        wait_time: Seconds a window stays.
        out_dir: Write ``<out_dir>/<token>_<page>.png`` instead of using the backends of the visualiser; slashes make folders.
        original_images: Overlay on the original image files where they exist; False takes the images that the network saw.
        maps: ``'rays'`` adds a page of class and depth maps, cast at the voxels; ``'none'`` does not.
        video: ``'gif'`` or ``'mp4'``: when testing, one video per scene of *all* its samples under ``out_dir``.
        path: Camera of the videos, arguments of :class:`CameraPath`.
        fps: Pictures per second of the videos; key frames of nuScenes come at 2 Hz.

    Raises:
        ValueError: If ``interval`` is not positive, or ``video`` is set without ``out_dir``.
    """

    priority = 'LOW'

    def __init__(
        self,
        draw: bool = False,
        interval: int = 50,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_dir: str | None = None,
        original_images: bool = True,
        maps: str = 'rays',
        video: str | None = None,
        path: Mapping[str, Any] | None = None,
        fps: float = 2.0,
    ) -> None:
        if interval < 1:
            raise ValueError(f'OccVisualizationHook: interval must be at least 1, got {interval}')
        self.draw = draw
        self.interval = interval
        if video is not None and out_dir is None:
            raise ValueError(f'OccVisualizationHook: video={video!r} needs out_dir, the folder of the videos')
        self.options = dict(draw_gt=draw_gt, draw_pred=draw_pred, show=show, wait_time=wait_time, maps=maps)
        self.out_dir = None if out_dir is None else Path(out_dir)
        self.original_images = original_images
        self.videos = None if video is None else SceneVideos(out_dir, video, fps)
        self.path = CameraPath(**(path or {}))
        self._seen = 0

    def before_val_epoch(self, runner: Runner) -> None:
        """Counts the samples of every validation from the first."""
        self._seen = 0

    def before_test_epoch(self, runner: Runner) -> None:
        """Counts the samples of every test from the first."""
        self._seen = 0

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None) -> None:
        """Draws samples of a validation batch; the step is the training iteration."""
        self._draw_batch(data_batch, outputs, runner.iter)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Sequence | None = None) -> None:
        """Draws samples of a test batch."""
        if self.draw and self.videos is not None:
            self._film_batch(outputs or (), len(runner.test_dataloader.dataset))
        self._draw_batch(data_batch, outputs, batch_idx)

    def after_test_epoch(self, runner: Runner, metrics: Any = None) -> None:
        """Makes the videos, in one process."""
        if self.videos is not None:
            for path in self.videos.finish(_gather):
                runner.logger.info(f'wrote {path}')

    def _film_batch(self, samples: Sequence[OccDataSample], length: int) -> None:
        visualizer = Visualizer.get_current_instance()
        rank, world = get_dist_info()
        for i, sample in enumerate(samples):
            # samples are dealt out to the processes in turn
            position = (self._seen + i) * world + rank
            if position >= length:  # repeated by the sampler, so that all processes get the same number
                continue
            title = shown_text(sample.get('token', f'sample_{position}'))
            picture = visualizer.comparison(sample, self.path, position, title=title)
            self.videos.add(str(sample.get('scene_name', '') or 'scene'), position, picture)

    def _draw_batch(self, data_batch: Any, outputs: Sequence[OccDataSample] | None, step: int) -> None:
        if not self.draw:
            return
        visualizer = Visualizer.get_current_instance()
        for i, sample in enumerate(outputs or ()):
            self._seen += 1
            if (self._seen - 1) % self.interval:
                continue
            name = str(name_to_path(sample.get('token', f'sample_{self._seen - 1}')))
            paths = sample.get('img_paths', ())
            from_files = self.original_images and paths and all(Path(path).is_file() for path in paths)
            images = None if from_files else data_batch['inputs']['img'][i]
            out_file = None if self.out_dir is None else self.out_dir / f'{name}.png'
            visualizer.add_datasample(name, images, sample, out_file=out_file, step=step, **self.options)


def _gather(records: list[Record]) -> list[Record]:
    """The records of all processes in the first one, none in the others."""
    everything = [record for part in all_gather_object(records) for record in part]
    return everything if get_dist_info()[0] == 0 else []
