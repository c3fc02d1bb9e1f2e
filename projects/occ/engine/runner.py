"""mmengine's Runner, where it forgets that gradients may be accumulated and that a file may be of a stranger."""

from collections.abc import Mapping
from typing import Any

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from .errors import CheckpointError, OccError


@RUNNERS.register_module()
class OccRunner(Runner):
    """``Runner`` whose automatic learning rate counts the samples of an optimiser step, not those of an iteration.

    Resuming from a file whose training state cannot be taken over is one sentence.
    """

    def scale_lr(self, optim_wrapper: OptimWrapper, auto_scale_lr: Mapping | None = None) -> None:
        """Multiplies learning rates by (processes x batch size x ``accumulative_counts``) / ``base_batch_size``.

        Args:
            optim_wrapper: Built optimiser wrapper; of several optimisers, each may accumulate differently.
            auto_scale_lr: ``dict(enable, base_batch_size)``; None or ``enable=False``: nothing is changed.
        """
        if not (auto_scale_lr or {}).get('enable', False):
            return
        several = isinstance(optim_wrapper, OptimWrapperDict)
        for wrapper in optim_wrapper.values() if several else (optim_wrapper,):
            counts = wrapper._accumulative_counts
            if counts > 1:
                self.logger.info(f'{counts} iterations share a step of the optimiser (accumulative_counts) and its batch size')
            super().scale_lr(wrapper, {**auto_scale_lr, 'base_batch_size': auto_scale_lr['base_batch_size'] / counts})

    def resume(self, filename: str, *args: Any, **kwargs: Any) -> None:
        """Resumes as mmengine's Runner does.

        Raises:
            CheckpointError: If the checkpoint cannot be loaded, or its training state is not that of this config.
        """
        try:
            super().resume(filename, *args, **kwargs)
        except OccError:
            raise
        except (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f'cannot resume from {filename!r}: its training state cannot be taken over ({type(error).__name__}: {error}). '
                'Use an earlier checkpoint, or give the file as load_from, without --resume'
            ) from error
