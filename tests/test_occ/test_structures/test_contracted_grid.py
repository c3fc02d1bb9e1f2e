"""Contraction both ways, vertices, look-ups and radii."""

import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from projects.occ.structures import ContractedGrid

RANGE = (-40.0, -40.0, -1.0, 40.0, 40.0, 5.4)
OFFICIAL = ContractedGrid(RANGE, (300, 300, 24))
STEPS = ((60, 4), (80, 8))


@pytest.fixture(scope='module')
def formulas(golden_dir):
    arrays = np.load(golden_dir / 'rendering_supervision_small.npz')
    return {key.split('/')[1]: torch.from_numpy(arrays[key]) for key in arrays.files if key.startswith('contract/')}


@pytest.fixture(scope='module')
def case(golden_dir):
    case = torch.load(golden_dir / 'gaussianocc_small.pt', weights_only=True)
    return {**case, 'config': json.loads(case['config_json'])}


def test_formula_case(formulas):
    grid = ContractedGrid(formulas['roi'].tolist(), (300, 300, 24), float(formulas['ratio']))
    assert_close(grid.contract(formulas['world']), formulas['contracted'], rtol=1e-9, atol=1e-12)
    assert_close(grid.expand(formulas['contracted']), formulas['world'], rtol=1e-9, atol=1e-9)
    x, y, z = formulas['grid_idx_xyz'].unbind(1)
    vertices = grid.centers(dtype=torch.float64)[x, y, z]
    assert_close(vertices, formulas['grid_world_xyz'], rtol=1e-9, atol=1e-9)
    assert_close(grid.gaussian_scales(vertices, 0.2, STEPS), formulas['gsv_scale'], rtol=1e-9, atol=0)


def test_vertices_of_the_parity_case(case):
    config = case['config']
    x0, x1, y0, y1, z0, z1 = config['real_size']
    grid = ContractedGrid((x0, y0, z0, x1, y1, z1), (config['X'], config['Y'], config['Z']), config['contracted_ratio'])
    vertices = grid.centers().permute(2, 1, 0, 3).reshape(-1, 3)  # z slowest there
    assert_close(vertices, case['taps']['vertices'], rtol=1e-5, atol=1e-4)
    scales = grid.gaussian_scales(vertices, config['gs'], ((1.5 * x1, 4), (config['max_depth'], 8)))
    assert_close(scales, case['taps']['scale'].abs(), rtol=1e-6, atol=0)


def test_published_positions_of_the_official_grid():
    centers = OFFICIAL.centers(dtype=torch.float64)
    x = [-2013.27, -1016.65, -518.32, -40.34, -39.93, -0.2007, 0.2007, 39.93, 40.34, 2013.27]
    z = [-122.06, -5.533, -0.930, 2.409, 5.330, 126.46]
    for axis, index, expected in ((0, [0, 1, 2, 49, 50, 149, 150, 249, 250, 299], x), (2, [0, 1, 4, 12, 19, 23], z)):
        column = centers.select(1, 150)[:, 12, 0] if axis == 0 else centers[150, 150, :, 2]
        assert_close(column[index], torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=6e-3)
    low, high = (torch.tensor(v, dtype=torch.float64) for v in (RANGE[:3], RANGE[3:]))
    assert ((centers >= low) & (centers <= high)).all(-1).sum() == 640_000
    far = centers.norm(dim=-1)
    assert ((far > 60) & (far <= 80)).sum() == 257_784
    assert (far > 80).sum() == 657_944


def test_both_ways_and_smooth_at_the_border():
    points = torch.tensor([[-500.0, 39.999999, 5.4], [40.0, 41.0, -1.0], [0.0, 900, 77]], dtype=torch.float64)
    assert_close(OFFICIAL.expand(OFFICIAL.contract(points)), points, rtol=1e-9, atol=1e-9)
    border = torch.tensor([40.0, 0.0, 5.4], dtype=torch.float64)
    step = 1e-6
    slopes = [(OFFICIAL.contract(border + sign * step) - OFFICIAL.contract(border)) * sign / step for sign in (-1, 1)]
    assert_close(slopes[0], slopes[1], rtol=1e-5, atol=0)
    assert torch.autograd.gradcheck(OFFICIAL.contract, points.requires_grad_())


def test_look_up_at_vertices_and_between():
    grid = ContractedGrid((-4, -3, -2, 4, 3, 2), (8, 6, 5), margin=(0.5, 0.5, 0.5))
    volume = torch.randn(2, 3, 8, 6, 5, dtype=torch.float64)
    inner = grid.centers(dtype=torch.float64)[1:-1, 1:-1, 1:-1]
    assert_close(grid.sample(volume, inner), volume[..., 1:-1, 1:-1, 1:-1], rtol=1e-9, atol=1e-9)
    x = grid.centers(dtype=torch.float64)
    half = (x[3, 2, 2] + x[4, 2, 2]) / 2  # inside the linear range
    assert_close(grid.sample(volume, half), (volume[:, :, 3, 2, 2] + volume[:, :, 4, 2, 2]) / 2, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match='volume'):
        grid.sample(volume[..., :4], half)


@pytest.mark.parametrize(
    'field, value',
    [
        ('point_cloud_range', (1, 0, 0, 0, 1, 1)),
        ('shape', (1, 4, 4)),
        ('ratio', 1.0),
        ('margin', (0.5, 0.5, 4.0)),
    ],
)
def test_numbers_that_cannot_be_meant(field, value):
    with pytest.raises(ValueError, match=f'contraction.{field}'):
        ContractedGrid.build({**dict(point_cloud_range=RANGE, shape=(8, 8, 8)), field: value})


def test_unknown_key():
    with pytest.raises(TypeError, match='contraction'):
        ContractedGrid.build(dict(point_cloud_range=RANGE, shape=(8, 8, 8), radius=3))
