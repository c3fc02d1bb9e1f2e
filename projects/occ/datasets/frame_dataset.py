"""What the data sets of all benchmarks share: errors that name the frame, and an option to pass over damaged frames."""

import logging
from collections.abc import Sequence

import torch
from mmdet3d.registry import TRANSFORMS
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

# With more of them something else is wrong, e.g. a path in the config.
MAX_SKIPPED_SHARE = 0.1


class FrameDataset(BaseDataset):
    """Base of the occupancy data sets.

    An error while a frame is loaded names the frame. What the loading transforms raise for missing or damaged files
    (``OSError`` and ``ValueError`` with the file's name) is passed on as it is; anything else is wrapped.

    Args:
        pipeline: Transforms, or how to build them.
        skip_corrupt: Only for training: instead of stopping at a frame whose files are missing or damaged, train on another
            frame, drawn at random, in its place. Each such frame is logged as an error on every rank, once, with its file and
            with the number of frames skipped so far by all workers; ``num_skipped`` is that number. More than one frame and
            more than 10 % of the data set stop the training. Off by default.
        test_mode: As in mmengine.
        **kwargs: Arguments of mmengine's ``BaseDataset``.

    Raises:
        ValueError: If ``skip_corrupt`` is set for testing, where it would change the numbers.
    """

    def __init__(self, *args, pipeline: Sequence = (), skip_corrupt: bool = False, test_mode: bool = False, **kwargs) -> None:
        if skip_corrupt and test_mode:
            raise ValueError(
                'dataset.skip_corrupt is for training only: a metric over fewer frames is not comparable. Find the damaged '
                'files with tools/create_data.py ... --check and copy them again (docs/datasets.md, "Checking a data root")'
            )
        self.skip_corrupt = skip_corrupt
        # built here, so that the data set also works outside a Runner, which sets the default registry scope
        steps = [step if callable(step) else TRANSFORMS.build(step) for step in pipeline]
        super().__init__(*args, pipeline=steps, test_mode=test_mode, **kwargs)

    def full_init(self) -> None:
        """Loads the annotations, as in mmengine."""
        if self._fully_initialized:
            return
        super().full_init()
        # in shared memory, so that all workers of a rank count together
        self._skipped = torch.zeros(len(self), dtype=torch.uint8).share_memory_()

    @property
    def num_skipped(self) -> int:
        """Number of different frames that this rank has skipped so far."""
        return int(self._skipped.sum())

    def prepare_data(self, idx: int) -> dict | None:
        """Loads one frame.

        Returns:
            What the pipeline makes of it; None if it is damaged and ``skip_corrupt`` is set, which makes mmengine draw another.

        Raises:
            OSError, ValueError: If a file is missing or damaged.
            RuntimeError: If anything else goes wrong, or too many frames had to be skipped.
        """
        info = self.get_data_info(idx)
        # the pipeline may change info, so the name is taken before
        what = f'frame {info.get("token", idx)} (item {idx} of {getattr(self, "ann_file", "") or type(self).__name__})'
        try:
            return self.pipeline(info)
        except (OSError, ValueError) as error:
            if not self.skip_corrupt:
                raise
            self._note_skipped(idx, what, error)
            return None
        except Exception as error:
            raise RuntimeError(f'{what}: {type(error).__name__}: {error}') from error

    def _note_skipped(self, idx: int, what: str, error: Exception) -> None:
        if self._skipped[idx]:
            return
        self._skipped[idx] = 1
        count, total = self.num_skipped, len(self)
        # mmengine shows less than errors on the main rank only
        print_log(
            f'skip_corrupt: skipped {what}, {count} of {total} frames so far: {error}', logger='current', level=logging.ERROR
        )
        if count > max(1, MAX_SKIPPED_SHARE * total):
            raise RuntimeError(
                f'dataset.skip_corrupt skipped {count} of {total} frames, more than {MAX_SKIPPED_SHARE:.0%}, so this is not '
                'about single files; check the paths in the config, or the whole tree with tools/create_data.py ... --check. '
                f'The last one, {what}: {error}'
            ) from error
