"""A training loop that can stop and continue anywhere."""

from collections.abc import Iterator
from itertools import islice

from mmdet3d.registry import LOOPS
from mmengine.hooks import CheckpointHook
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader

from .errors import CheckpointError


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """Epoch-based training that resumes inside an epoch and may be limited by a number of iterations.

    A run resumed from a checkpoint of iteration n continues with the batch that would have come next; batches already seen are
    skipped in the sampler, without loading them.

    Args:
        runner: The Runner.
        dataloader: Data loader or its config, with a sampler of fixed length (``DefaultSampler``).
        max_epochs: Number of epochs; give this or ``max_iters``.
        max_iters: Number of iterations. ``val_begin`` and ``val_interval`` then count iterations too.
        val_begin: First epoch (iteration) after which validation may run.
        val_interval: Epochs (iterations) between validations; 1 with ``max_epochs``, 1000 with ``max_iters`` by default.
        **kwargs: Passed to ``EpochBasedTrainLoop`` (``dynamic_intervals`` has no effect with ``max_iters``).

    Raises:
        ValueError: If not exactly one of ``max_epochs`` and ``max_iters`` is given, or a number is below 1.
    """

    def __init__(
        self,
        runner,
        dataloader: DataLoader | dict,
        max_epochs: int | None = None,
        max_iters: int | None = None,
        val_begin: int = 1,
        val_interval: int | None = None,
        **kwargs,
    ) -> None:
        if (max_epochs is None) == (max_iters is None):
            raise ValueError(f'train_cfg needs either max_epochs or max_iters, got {max_epochs} and {max_iters}')
        self.by_iteration = max_iters is not None
        if val_interval is None:
            val_interval = 1000 if self.by_iteration else 1
        for name, value in dict(max_epochs=max_epochs, max_iters=max_iters, val_interval=val_interval).items():
            if value is not None and value < 1:
                raise ValueError(f'train_cfg.{name} must be at least 1, got {value}')
        super().__init__(runner, dataloader, 1 if self.by_iteration else max_epochs, val_begin, val_interval, **kwargs)
        if self.by_iteration:
            self._max_iters = int(max_iters)
            self._max_epochs = -(-self._max_iters // len(self.dataloader))

    def run(self):
        """Trains from where the Runner stands."""
        if not self.by_iteration:
            return super().run()
        if any(isinstance(hook, CheckpointHook) and hook.by_epoch for hook in self.runner.hooks):
            self.runner.logger.warning(
                'train_cfg.max_iters ends the training inside an epoch, of which default_hooks.checkpoint writes nothing; set '
                'default_hooks.checkpoint.by_epoch=False and its interval in iterations'
            )
        self.runner.call_hook('before_train')
        while self._iter < self._max_iters and not self.stop_training:
            self.run_epoch()
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_epoch(self) -> None:
        """Trains the rest of the running epoch.

        Raises:
            CheckpointError: If the run was resumed with another number of iterations per epoch.
        """
        length = len(self.dataloader)
        done = self._iter - self._epoch * length
        if not 0 <= done <= length:
            raise CheckpointError(
                f'cannot resume: iteration {self._iter} does not lie in epoch {self._epoch + 1} of {length} iterations. The '
                'checkpoint was written with another number of processes, batch size or dataset; use the same, or start a '
                'new training from its weights with load_from'
            )
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for index, batch in enumerate(self._remaining_batches(done), start=done):
            self.run_iter(index, batch)
            if self.by_iteration:
                self._validate_by_iteration()
                if self._iter >= self._max_iters or self.stop_training:
                    break
        if self._iter == (self._epoch + 1) * length:
            self.runner.call_hook('after_train_epoch')
            self._epoch += 1

    def _remaining_batches(self, done: int) -> Iterator:
        if not done:
            return iter(self.dataloader)
        full = self.dataloader
        batches = list(islice(full.batch_sampler, done, None))
        rest = DataLoader(
            full.dataset,
            batch_sampler=batches,
            num_workers=full.num_workers,
            collate_fn=full.collate_fn,
            pin_memory=full.pin_memory,
            timeout=full.timeout,
            worker_init_fn=full.worker_init_fn,
            multiprocessing_context=full.multiprocessing_context,
            prefetch_factor=full.prefetch_factor,
        )
        return iter(rest)

    def _validate_by_iteration(self) -> None:
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        if self.runner.val_loop is not None and self._iter >= self.val_begin and due:
            self.runner.val_loop.run()
            self.runner.model.train()
