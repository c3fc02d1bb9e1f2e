"""Fixed palettes and kinds of errors."""

import re

import numpy as np
import pytest

from projects.occ.structures.benchmarks import BENCHMARKS
from projects.occ.visualization.palettes import (
    ERROR_CLASSES,
    ERROR_FREE,
    ERROR_PALETTE,
    FREE_COLOR,
    IGNORED_COLOR,
    error_volume,
    palette_for,
)

NUSCENES = ('barrier', 'bicycle', 'bus', 'car', 'construction_vehicle', 'motorcycle', 'pedestrian', 'traffic_cone', 'trailer',
            'truck', 'driveable_surface', 'other_flat', 'sidewalk', 'terrain', 'manmade', 'vegetation')  # fmt: skip
KITTI = ('car', 'bicycle', 'motorcycle', 'truck', 'other-vehicle', 'person', 'road', 'parking', 'sidewalk', 'other-ground',
         'building', 'fence', 'vegetation', 'terrain', 'pole', 'traffic-sign', 'other-structure', 'other-object')  # fmt: skip


def test_nuscenes_colours_in_both_benchmarks():
    occ3d = palette_for(('others', *NUSCENES, 'free'), free_index=17)
    surround = palette_for(('empty', *NUSCENES), free_index=0)
    assert occ3d.dtype == np.uint8 and occ3d.shape == (18, 3)
    np.testing.assert_array_equal(occ3d[1:17], surround[1:])
    for c, rgb in {0: (0, 0, 0), 1: (255, 120, 50), 4: (0, 150, 245), 11: (255, 0, 255), 16: (0, 175, 0)}.items():
        assert tuple(occ3d[c]) == rgb
    assert tuple(occ3d[17]) == tuple(surround[0]) == FREE_COLOR


def test_kitti_colours():
    colors = palette_for(('empty', *KITTI), free_index=0)
    for c, rgb in {1: (100, 150, 245), 5: (0, 0, 255), 11: (255, 200, 0), 18: (50, 255, 255)}.items():
        assert tuple(colors[c]) == rgb


def test_spelling_of_names_does_not_matter():
    known = palette_for(('free', 'traffic_cone', 'other_flat'), 0)
    np.testing.assert_array_equal(known, palette_for(('void', 'Traffic-Cone', 'other flat'), 0))


@pytest.mark.parametrize('count', [2, 5, 40])
def test_unknown_classes_get_distinct_fixed_colours(count):
    names = ('free', *(f'thing {i}' for i in range(count)))
    colors = palette_for(names, 0)
    assert len({tuple(c) for c in colors}) == count + 1
    np.testing.assert_array_equal(colors, palette_for(names, 0))


def test_error_volume_tells_all_kinds():
    #             right  wrong  missed  extra  free  ignored  unmasked
    gt = np.array([1,     1,     1,      0,     0,    255,     1])  # fmt: skip
    pred = np.array([1,   2,     0,      2,     0,    1,       2])  # fmt: skip
    mask = np.array([1,   1,     1,      1,     1,    1,       0])  # fmt: skip
    errors = error_volume(pred, gt, free_index=0, ignore_index=255, mask=mask)
    np.testing.assert_array_equal(errors, [0, 1, 2, 3, ERROR_FREE, ERROR_FREE, ERROR_FREE])
    assert error_volume(pred, gt, 0, 255)[-1] == 1
    assert len(ERROR_CLASSES) == len(ERROR_PALETTE) == ERROR_FREE


def test_the_documented_colours_are_these(repo_root):
    text = (repo_root / 'docs' / 'visualization.md').read_text()
    rows = re.findall(r'^\| ([\w -]+) \| (\d+), (\d+), (\d+) \| `#(\w{6})` \|$', text, re.MULTILINE)
    documented = [(name, tuple(map(int, color))) for name, *color, _ in rows]
    errors = dict(zip(ERROR_CLASSES, ERROR_PALETTE))
    palettes = [BENCHMARKS[name].palette for name in ('occ3d', 'sscbench-kitti360')]
    expected = [*palettes[0].items(), *palettes[1].items(), *errors.items(), ('ignored', IGNORED_COLOR)]
    assert documented == expected
    assert all(bytes.fromhex(code) == bytes(color) for (_, color), (*_, code) in zip(documented, rows))
