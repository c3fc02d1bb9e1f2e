"""Presets agree with the benchmarks and the functional part stays free of mm* packages."""

import subprocess
import sys
from dataclasses import replace

import pytest

from projects.occ.evaluation.presets import PRESETS, get_preset


@pytest.mark.parametrize(
    ('name', 'classes', 'free', 'mask', 'frames', 'shape', 'voxel', 'first', 'last'),
    [
        ('occ3d', 18, 17, 'camera', 6019, (200, 200, 16), 0.4, 'others', 'vegetation'),
        ('surroundocc', 17, 0, 'none', 6019, (200, 200, 16), 0.5, 'barrier', 'vegetation'),
        ('sscbench-kitti360', 19, 0, 'none', 2566, (256, 256, 32), 0.2, 'car', 'other-object'),
    ],
)
def test_published_protocols(name, classes, free, mask, frames, shape, voxel, first, last):
    preset = get_preset(name)
    grid = preset.grid
    assert (grid.num_classes, grid.free_index, grid.ignore_index) == (classes, free, 255)
    assert (preset.mask, preset.frames, grid.shape, grid.voxel_size) == (mask, frames, shape, (voxel,) * 3)
    assert grid.class_names[grid.semantic_classes[0]] == first
    assert grid.class_names[grid.semantic_classes[-1]] == last
    assert preset.check(grid) is True


def test_every_other_preset_is_refused():
    for name, preset in PRESETS.items():
        for other, another in PRESETS.items():
            if name != other:
                with pytest.raises(ValueError, match=f'preset .{name}. does not fit the grid'):
                    preset.check(another.grid)


def test_functional_part_loads_no_mm_package(repo_root):
    code = (
        'import sys\n'
        'import numpy as np\n'
        'from projects.occ.evaluation import presets, static_prior\n'
        'from projects.occ.evaluation.functional import ray_iou, summarize_confusion, voxel_confusion\n'
        'labels = np.random.default_rng(0).integers(0, 18, (20, 20, 8))\n'
        'grid = dict(point_cloud_range=(-4, -4, -1, 4, 4, 2.2), voxel_size=0.4, shape=(20, 20, 8), frame="ego",\n'
        '            free_index=17, class_names=presets.PRESETS["occ3d"].grid.class_names)\n'
        'assert summarize_confusion(voxel_confusion(labels, labels, 18), 17)["mIoU"] == 1\n'
        'assert ray_iou([labels], [labels], [np.zeros((1, 3))], grid)["RayIoU"] == 1\n'
        'print([m for m in sys.modules if m.split(".")[0] in ("mmengine", "mmcv", "mmdet", "mmdet3d")])'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=repo_root, capture_output=True, text=True)
    assert done.stdout.strip() == '[]', done.stdout + done.stderr


def test_the_package_gives_the_metric_on_first_use(repo_root):
    code = (
        'from projects.occ.evaluation import OccupancyMetric\n'
        'from mmdet3d.registry import METRICS\n'
        'print(METRICS.get("OccupancyMetric") is OccupancyMetric)'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=repo_root, capture_output=True, text=True)
    assert done.stdout.strip() == 'True', done.stdout + done.stderr


def test_width_of_the_gaussians_is_the_published_one_and_follows_the_voxels():
    published = {name: preset.gaussian_scale(preset.grid) for name, preset in PRESETS.items()}
    assert published == {'occ3d': 0.27, 'surroundocc': 0.25, 'sscbench-kitti360': 0.1}
    grid = PRESETS['occ3d'].grid
    coarse = replace(grid, voxel_size=0.8, shape=(100, 100, 8))
    assert PRESETS['occ3d'].gaussian_scale(coarse) == 0.54
