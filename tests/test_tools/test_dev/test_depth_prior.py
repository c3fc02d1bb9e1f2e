"""The predictors of depth that see no image."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tools.dev.depth_prior import CELLS, best_constant, predictors  # noqa: E402


def test_the_best_constant_has_the_smallest_relative_error():
    depth = np.random.default_rng(0).uniform(2, 40, 500)
    found = best_constant(depth)

    def error(value):
        return (np.abs(value - depth) / depth).mean()

    assert error(found) <= min(error(value) for value in np.linspace(2, 40, 400)) + 1e-3 and found < depth.mean()


def test_maps_know_where_depths_lie():
    near = np.array([[5.0, 79.0, 4.0], [6.0, 79.0, 6.0]])
    far = np.array([[5.0, 1.0, 30.0]])
    maps = predictors([[np.concatenate([near, far]), far]], np.array([[120, 80], [120, 80]]))
    assert all(value.shape == (2, *CELLS) for value in maps.values())
    assert maps['map mean'][0, -1, 0] == 5 and maps['map mean'][0, 0, 0] == 30
    assert maps['map mean'][0, 3, 5] == np.float32(40 / 3) and (maps['map best'][1] == 30).all()
    assert (maps['constant mean'] == 17.5).all()
