"""Batches of which one half has labels."""

import math
from collections.abc import Iterator

import torch
from mmdet3d.registry import DATA_SAMPLERS
from mmengine.dataset import ConcatDataset
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from .errors import OccError


@DATA_SAMPLERS.register_module()
class LabelledUnlabelledSampler(Sampler[int]):
    """Draws labelled and unlabelled samples in turn; every batch of even size then holds as many of both.

    An epoch goes once through the labelled samples; the unlabelled ones are shuffled anew and repeated as often as needed, or
    only as many of them used. All processes together draw what one would, pair by pair, and every epoch depends on seed and
    number alone, so that a resumed training goes on with the same samples.

    Args:
        dataset: ``ConcatDataset`` of two data sets: the labelled one, then the unlabelled one (with ``HideLabels``).
        seed: Of the order; None: one that all processes agree on.
        shuffle: Whether the orders are shuffled.

    Raises:
        OccError: If the data set is another one.
    """

    def __init__(self, dataset: ConcatDataset, seed: int | None = None, shuffle: bool = True) -> None:
        sizes = [len(part) for part in getattr(dataset, 'datasets', ())]
        if len(sizes) != 2 or not all(sizes):
            raise OccError(
                "LabelledUnlabelledSampler needs a dataset dict(type='ConcatDataset', datasets=[labelled, unlabelled]) of two "
                f'data sets with samples, got {type(dataset).__name__} of {sizes}'
            )
        self.labelled, self.unlabelled = sizes
        self.rank, self.world_size = get_dist_info()
        self.seed = sync_random_seed() if seed is None else seed
        self.shuffle = shuffle
        self.epoch = 0
        self.pairs = math.ceil(self.labelled / self.world_size)

    def __iter__(self) -> Iterator[int]:
        """Positions in the joint data set, of this process."""
        generator = torch.Generator()
        generator.manual_seed(self.seed + self.epoch)

        def order(count: int) -> torch.Tensor:
            return torch.randperm(count, generator=generator) if self.shuffle else torch.arange(count)

        total = self.pairs * self.world_size
        first = order(self.labelled)
        labelled = first.repeat(math.ceil(total / self.labelled))[:total]
        rounds = math.ceil(total / self.unlabelled)
        unlabelled = torch.cat([order(self.unlabelled) for _ in range(rounds)])[:total] + self.labelled
        pairs = torch.stack([labelled, unlabelled], dim=1)[self.rank :: self.world_size]
        return iter(pairs.flatten().tolist())

    def __len__(self) -> int:
        """Samples of this process in an epoch."""
        return 2 * self.pairs

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of an epoch."""
        self.epoch = epoch
