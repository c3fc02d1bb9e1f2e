"""Draws samples while a model is validated or tested."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import Visualizer

from ..structures import OccDataSample


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
        out_dir: Write ``<out_dir>/<token>_<page>.png`` instead of using the backends of the visualiser.
        original_images: Overlay on the original image files where they exist; False takes the images that the network saw.

    Raises:
        ValueError: If ``interval`` is not positive.
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
    ) -> None:
        if interval < 1:
            raise ValueError(f'OccVisualizationHook: interval must be at least 1, got {interval}')
        self.draw = draw
        self.interval = interval
        self.options = dict(draw_gt=draw_gt, draw_pred=draw_pred, show=show, wait_time=wait_time)
        self.out_dir = None if out_dir is None else Path(out_dir)
        self.original_images = original_images
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
        self._draw_batch(data_batch, outputs, batch_idx)

    def _draw_batch(self, data_batch: Any, outputs: Sequence[OccDataSample] | None, step: int) -> None:
        if not self.draw:
            return
        visualizer = Visualizer.get_current_instance()
        for i, sample in enumerate(outputs or ()):
            self._seen += 1
            if (self._seen - 1) % self.interval:
                continue
            name = PurePosixPath(str(sample.get('token', f'sample_{self._seen - 1}'))).name
            paths = sample.get('img_paths', ())
            from_files = self.original_images and paths and all(Path(path).is_file() for path in paths)
            images = None if from_files else data_batch['inputs']['img'][i]
            out_file = None if self.out_dir is None else self.out_dir / f'{name}.png'
            visualizer.add_datasample(name, images, sample, out_file=out_file, step=step, **self.options)
