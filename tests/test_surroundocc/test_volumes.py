"""Sizes, centres and the order of the cells."""

import numpy as np
import pytest
import torch
from tiny_surroundocc import GRID

from projects.surroundocc.volumes import cell_centers, per_axis, to_queries, to_volume, volume_cells


def test_factors_per_axis():
    assert per_axis(2, 'scales') == (2, 2, 2)
    assert per_axis([4, 2, 1], 'scales') == (4, 2, 1)
    for bad in (0, 1.5, (2, 2), (2, 2, 0)):
        with pytest.raises(ValueError, match='every element of occ_head.strides must be one positive integer or three'):
            per_axis(bad, 'occ_head.strides')


def test_cells():
    assert volume_cells(GRID, (2, 4, 1), 'scales') == (8, 2, 4)
    with pytest.raises(ValueError, match=r'view_encoder.scales must divide grid.shape \(16, 8, 4\).*got \(8, 8, 8\)'):
        volume_cells(GRID, (8, 8, 8), 'view_encoder.scales')


def test_centres_are_those_of_the_grid_with_x_fastest():
    centers = to_volume(cell_centers(GRID, GRID.shape)[None], GRID.shape)[0]
    torch.testing.assert_close(centers.movedim(0, -1), GRID.centers())
    flat = cell_centers(GRID, (8, 4, 2))
    x, y, z = np.unravel_index(37, (8, 4, 2)[::-1])[::-1]
    torch.testing.assert_close(flat[37], torch.tensor([-8 + (x + 0.5) * 2, -4 + (y + 0.5) * 2, -1 + (z + 0.5) * 2]).float())


def test_queries_and_volume_are_inverse():
    queries = torch.arange(2 * 64 * 3.0).view(2, 64, 3)
    volume = to_volume(queries, (8, 4, 2))
    assert volume.shape == (2, 3, 8, 4, 2)
    assert torch.equal(volume[1, :, 5, 2, 1], queries[1, (1 * 4 + 2) * 8 + 5])
    assert torch.equal(to_queries(volume), queries)
