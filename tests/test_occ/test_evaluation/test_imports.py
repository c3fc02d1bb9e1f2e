"""The functional part stays free of mm* packages."""

import subprocess
import sys


def test_functional_part_loads_no_mm_package(repo_root):
    code = (
        'import sys\n'
        'import numpy as np\n'
        'from projects.occ.evaluation import static_prior\n'
        'from projects.occ.structures.benchmarks import BENCHMARKS\n'
        'from projects.occ.evaluation.functional import ray_iou, summarize_confusion, voxel_confusion\n'
        'labels = np.random.default_rng(0).integers(0, 18, (20, 20, 8))\n'
        'grid = dict(point_cloud_range=(-4, -4, -1, 4, 4, 2.2), voxel_size=0.4, shape=(20, 20, 8), frame="ego",\n'
        '            free_index=17, class_names=BENCHMARKS["occ3d"].grid.class_names)\n'
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
