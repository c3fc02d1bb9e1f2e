"""mmengine's Runner, where it forgets that gradients may be accumulated."""

from collections.abc import Mapping

from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import RUNNERS
from mmengine.runner import Runner


@RUNNERS.register_module()
class OccRunner(Runner):
    """``Runner`` whose automatic learning rate counts the samples of an optimiser step, not those of an iteration."""

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
