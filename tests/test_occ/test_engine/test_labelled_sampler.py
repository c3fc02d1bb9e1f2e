from collections import Counter
from unittest import mock

import pytest
from mmengine.dataset import ConcatDataset

from projects.occ.engine import LabelledUnlabelledSampler, OccError
from projects.occ.engine import labelled_sampler as module


class Joint:
    def __init__(self, *sizes):
        self.datasets = [range(size) for size in sizes]


def indices(sizes, rank=0, world=1, epoch=0, **settings):
    with mock.patch.object(module, 'get_dist_info', return_value=(rank, world)):
        sampler = LabelledUnlabelledSampler(Joint(*sizes), seed=3, **settings)
    sampler.set_epoch(epoch)
    drawn = list(sampler)
    assert len(drawn) == len(sampler)
    return drawn


@pytest.mark.parametrize('sizes', [(6, 4), (6, 6), (5, 11), (6, 1)])
def test_every_other_sample_is_labelled(sizes):
    drawn = indices(sizes)
    labelled, unlabelled = drawn[::2], drawn[1::2]
    assert sorted(labelled) == list(range(sizes[0])) and all(sizes[0] <= index < sum(sizes) for index in unlabelled)
    counts = Counter(unlabelled).values()
    assert len(counts) == min(sizes) and max(counts) - min(counts) <= 1
    assert indices(sizes) == drawn and (indices(sizes, epoch=1) != drawn)
    assert indices(sizes, shuffle=False)[::2] == list(range(sizes[0]))


def test_two_processes_draw_what_one_draws():
    one = indices((6, 4))
    ranks = [indices((6, 4), rank=rank, world=2) for rank in range(2)]
    pairs = [list(zip(drawn[::2], drawn[1::2])) for drawn in (one, *ranks)]
    assert [pair for step in zip(*pairs[1:]) for pair in step] == pairs[0]
    # what does not divide is filled up, equally long everywhere
    ranks = [indices((5, 4), rank=rank, world=2) for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == 6 and set(ranks[0][::2] + ranks[1][::2]) == set(range(5))


@pytest.mark.parametrize('sizes', [(3,), (3, 0), (1, 2, 3)])
def test_other_data_sets_are_refused(sizes):
    with pytest.raises(OccError, match=ConcatDataset.__name__):
        indices(sizes)
