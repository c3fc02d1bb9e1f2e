"""Random numbers that depend on where training stands, not on how it got there."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet3d.registry import HOOKS
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import Dataset

from ..loops import ResumableTrainLoop

# streams of random numbers that must differ from each other
_EPOCH, _ITERATION, _SAMPLE = 0, 1, 2


def seed_everything(*parts: int) -> None:
    """Seeds the global generators of Python, numpy and torch (all devices) with a hash of non-negative integers."""
    words = np.random.SeedSequence(parts).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002 - upstream transforms draw from the global generator
    torch.manual_seed(int(words[2]) << 32 | int(words[3]))


class SeededFetch:
    """Fetches samples of a dataset, each with generators seeded by (seed, epoch, index).

    Random augmentation then depends on nothing else: not on the number of workers and ranks, nor on what was loaded before.

    Args:
        dataset: Dataset to fetch from.
        seed: Seed of the run.
        epoch: () int64 tensor in shared memory, through which worker processes learn the running epoch.
    """

    def __init__(self, dataset: Dataset, seed: int, epoch: torch.Tensor) -> None:
        self.dataset = dataset
        self.seed = seed
        self.epoch = epoch

    def __call__(self, indices: Sequence[int]) -> list:
        """Samples of a list of indices."""
        samples = []
        for index in indices:
            seed_everything(self.seed, _SAMPLE, int(self.epoch), int(index))
            samples.append(self.dataset[index])
        return samples


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Makes an interrupted and resumed training draw the random numbers of an uninterrupted one.

    Instead of carrying the states of generators through checkpoints, which cannot reach worker processes and depends on their
    number, every unit of work seeds them anew from the seed of the run (which mmengine keeps in the checkpoint): each iteration
    from (seed, iteration, rank), each loaded sample from (seed, epoch, index). Validation in between, other worker counts and
    the moment of the interruption then change nothing.

    Losses are equal bit by bit from the end of any epoch, and from any iteration with ``ResumableTrainLoop``. On a GPU this
    also needs ``randomness.deterministic=True``, as without resuming.
    """

    # before everything that may draw random numbers
    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def before_train(self, runner) -> None:
        """Prepares the dataset, before its workers start."""
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop):
            # its workers are running already and its data never begin a new epoch
            runner.logger.warning(
                'IterBasedTrainLoop cannot be resumed exactly; use '
                "train_cfg=dict(type='ResumableTrainLoop', max_iters=...) with sampler DefaultSampler"
            )
            return
        done = runner.iter - runner.epoch * len(runner.train_dataloader)
        if done and isinstance(loop, EpochBasedTrainLoop) and not isinstance(loop, ResumableTrainLoop):
            runner.logger.warning(
                f'the checkpoint was written inside epoch {runner.epoch + 1}, which now starts again from its first batch; '
                "train_cfg.type='ResumableTrainLoop' continues where it stopped"
            )
        dataset = runner.train_dataloader.dataset
        if not isinstance(getattr(dataset, '__getitems__', None), (SeededFetch, type(None))):
            runner.logger.warning(
                f'{type(dataset).__name__} fetches whole batches itself (__getitems__), so that its augmentation cannot be '
                'seeded for each sample: a resumed run augments differently'
            )
            return
        # torch's loaders ask the dataset for this method first
        dataset.__getitems__ = SeededFetch(dataset, _seed(runner), self._epoch)

    def before_train_epoch(self, runner) -> None:
        """Seeds what happens outside iterations, and tells the workers which epoch begins."""
        self._epoch.fill_(runner.epoch)
        seed_everything(_seed(runner), _EPOCH, runner.epoch, get_rank())

    def before_train_iter(self, runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seeds the forward pass (dropout, sampled cameras, ...)."""
        seed_everything(_seed(runner), _ITERATION, runner.iter, get_rank())


def _seed(runner) -> int:
    return int(runner.seed or 0)
