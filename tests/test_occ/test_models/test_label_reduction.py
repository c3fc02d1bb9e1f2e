"""Tests of the label reductions, the sparse one against a plain loop over the occupied voxels."""

import numpy as np
import pytest
import torch

from projects.occ.models.label_reduction import REDUCTIONS, reduce_labels, reduce_volume
from projects.occ.structures import VoxelGrid

SHAPE = (8, 4, 4)


def make_grid(free=0):
    return VoxelGrid([0, 0, 0, 8, 4, 4], 1.0, SHAPE, 'lidar', free, class_names=['a', 'b', 'c', 'd'])


def random_labels(free, seed=0):
    rng = np.random.RandomState(seed)
    labels = rng.randint(0, 4, (2, *SHAPE))
    labels[rng.rand(2, *SHAPE) < 0.7] = free
    labels[rng.rand(2, *SHAPE) < 0.1] = 255
    return torch.from_numpy(labels)


def scatter_last(labels, shape, free):
    """Original rule: write the listed (not free) voxels one after the other."""
    coarse = np.full((len(labels), *shape), free)
    factors = np.array(SHAPE) // shape
    for b, volume in enumerate(labels.numpy()):
        for index in np.argwhere(volume != free):
            coarse[(b, *(index // factors))] = volume[tuple(index)]
    return torch.from_numpy(coarse)


def test_strided_takes_the_last_child():
    volume = torch.arange(4 * 4 * 2).reshape(1, 4, 4, 2)
    coarse = reduce_volume(volume, (2, 2, 1))
    assert coarse.shape == (1, 2, 2, 1)
    assert coarse[0, 0, 1, 0] == volume[0, 1, 3, 1]
    with pytest.raises(ValueError, match='must divide the full grid'):
        reduce_volume(volume, (3, 2, 1))


@pytest.mark.parametrize('free', [0, 3])
@pytest.mark.parametrize('shape', [(4, 2, 2), (2, 1, 1), (8, 4, 4)])
def test_sparse_last_is_the_sequential_scatter(free, shape):
    labels = random_labels(free)
    expected = scatter_last(labels, shape, free)
    assert torch.equal(reduce_labels(labels, shape, make_grid(free), 'sparse_last'), expected)
    if shape == (4, 2, 2):
        assert (expected == 255).any() and (expected == free).any()


def test_sparse_last_known_prefers_voxels_with_a_class():
    labels = random_labels(0)
    grid = make_grid()
    coarse = reduce_labels(labels, (4, 2, 2), grid, 'sparse_last_known')
    known = scatter_last(labels.masked_fill(labels == 255, 0), (4, 2, 2), 0)
    anything = scatter_last(labels, (4, 2, 2), 0)
    assert torch.equal(coarse, torch.where(known != 0, known, anything))
    assert not torch.equal(coarse, anything)


def test_majority_counts_votes():
    labels = random_labels(0)
    coarse = reduce_labels(labels, (2, 1, 1), make_grid(), 'majority')
    for index in np.ndindex(2, 2, 1, 1):
        b, x, _, _ = index
        block = labels[b, 4 * x : 4 * x + 4].flatten()
        votes = torch.bincount(block[block != 255], minlength=4)
        assert coarse[index] == votes.argmax()
    assert reduce_labels(torch.full((1, *SHAPE), 255), (2, 1, 1), make_grid(), 'majority').eq(255).all()


def pool_block(values, free):
    """SSCBench's pooling of one block: the most frequent value but free and ignored, else free, else ignored."""
    values, counts = np.unique(values, return_counts=True)
    occupied = (values != free) & (values != 255)
    if occupied.any():
        return values[occupied][np.argmax(counts[occupied])]
    return free if (values == free).any() else 255


@pytest.mark.parametrize('free', [0, 3])
@pytest.mark.parametrize('shape', [(4, 2, 2), (2, 1, 1), (8, 4, 4)])
def test_majority_occupied_is_the_pooling_of_sscbench(free, shape):
    labels = random_labels(free)
    labels[0, :4], labels[0, 1, 0, 0], labels[1, 4:] = 255, free, 255
    coarse = reduce_labels(labels, shape, make_grid(free), 'majority_occupied')
    (a, b, c) = (fine // size for fine, size in zip(SHAPE, shape))
    for batch, x, y, z in np.ndindex(2, *shape):
        block = labels[batch, a * x : a * x + a, b * y : b * y + b, c * z : c * z + c].numpy()
        assert coarse[batch, x, y, z] == pool_block(block, free)
    assert {255, free} < set(coarse.unique().tolist())


def test_majority_occupied_of_hand_counted_blocks():
    blocks = {1: [0, 0, 0, 0, 0, 0, 0, 1], 2: [2, 2, 1, 0, 0, 0, 255, 255], 0: [255] * 7 + [0], 255: [255] * 8}
    blocks[3] = [3, 3, 255, 255, 255, 0, 0, 0]
    grid = VoxelGrid([0, 0, 0, 2, 2, 2], 1.0, (2, 2, 2), 'lidar', 0, class_names=['a', 'b', 'c', 'd'])
    for expected, values in blocks.items():
        assert reduce_labels(torch.tensor(values).view(1, 2, 2, 2), (1, 1, 1), grid, 'majority_occupied').item() == expected
    draw = torch.tensor([3, 3, 1, 1, 0, 0, 0, 255]).view(1, 2, 2, 2)
    assert reduce_labels(draw, (1, 1, 1), grid, 'majority_occupied').item() == 1
    assert reduce_labels(draw, (1, 1, 1), grid, 'majority').item() == 0


@pytest.mark.parametrize('rule', REDUCTIONS)
def test_masked_voxels_take_no_part(rule):
    labels = random_labels(0)
    mask = torch.from_numpy(np.random.RandomState(1).rand(2, *SHAPE) < 0.5)
    mask[0, :2, :2, :2] = False
    changed = torch.where(mask, labels, torch.randint(1, 4, labels.shape))
    grid = make_grid()
    coarse = reduce_labels(labels, (4, 2, 2), grid, rule, mask)
    assert torch.equal(coarse, reduce_labels(changed, (4, 2, 2), grid, rule, mask))
    assert coarse[0, 0, 0, 0] == 255
    everything = reduce_labels(labels, (4, 2, 2), grid, rule, torch.ones_like(mask))
    assert torch.equal(everything, reduce_labels(labels, (4, 2, 2), grid, rule))


@pytest.mark.parametrize('rule', REDUCTIONS)
def test_full_resolution_is_unchanged(rule):
    labels = random_labels(3).to(torch.uint8)
    reduced = reduce_labels(labels, SHAPE, make_grid(3), rule)
    assert reduced.dtype == torch.int64 and torch.equal(reduced, labels.long())


def test_unknown_rule():
    with pytest.raises(ValueError, match="must be one of .*majority.* got 'mode'"):
        reduce_labels(random_labels(0), (4, 2, 2), make_grid(), 'mode')


def test_parity_with_surroundocc_and_gaussrender(golden_dir):
    case = torch.load(golden_dir / 'surroundocc_small.pt', weights_only=True)
    labels = case['inputs']['gt_dense']
    shape = tuple(labels.shape[1:])
    grid = VoxelGrid([0, 0, 0, *shape], 1.0, shape, 'lidar', 0, class_names=[f'c{i}' for i in range(17)])
    index = case['gaussrender_voxel']['sample']
    for theirs, strided in zip(case['gt_levels'], case['gaussrender_voxel']['gt_levels']):
        size = theirs.shape[1:]
        assert torch.equal(reduce_labels(labels, size, grid, 'sparse_last'), theirs.long())
        assert torch.equal(reduce_labels(labels[index : index + 1], size, grid, 'strided'), strided.long())
