"""Time per frame of the voxel metrics and of RayIoU at the size of Occ3D-nuScenes, on a made street; writes JSON.

python tests/benchmarks/bm_evaluation.py [--out docs/benchmarks/evaluation.json]
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numba  # noqa: E402
import numpy as np  # noqa: E402

from projects.occ.atomic_write import write_atomically  # noqa: E402
from projects.occ.evaluation.functional import count_rays, voxel_confusion  # noqa: E402
from projects.occ.structures import VoxelGrid  # noqa: E402
from projects.occ.structures.benchmark_classes import NUSCENES_CLASSES  # noqa: E402

NUM_VAL_FRAMES = 6019


def make_street(grid: VoxelGrid, seed: int) -> np.ndarray:
    """A label volume (X, Y, Z) uint8: ground with boxes of random classes on it."""
    rng = np.random.default_rng(seed)
    labels = np.full(grid.shape, grid.free_index, np.uint8)
    labels[:, :, :2] = 11
    for _ in range(120):
        x, y, length, width = rng.integers((0, 0, 3, 3), (190, 190, 14, 14))
        labels[x : x + length, y : y + width, 2 : rng.integers(4, 14)] = rng.integers(1, 17)
    labels[92:108, 92:108, 2:] = grid.free_index  # the car itself
    return labels


def seconds(call: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median and spread of the wall time of a call after one warm-up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return dict(median=statistics.median(times), best=min(times), worst=max(times))


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/benchmarks/evaluation.json')
    parser.add_argument('--repeats', type=int, default=15)
    args = parser.parse_args(argv)
    names = ('others', *NUSCENES_CLASSES, 'free')
    grid = VoxelGrid((-40, -40, -1, 40, 40, 5.4), 0.4, (200, 200, 16), 'ego', 17, class_names=names)
    gt, pred = make_street(grid, 0), make_street(grid, 1)
    mask = np.random.default_rng(2).random(grid.shape) < 0.1
    origins = np.stack([np.linspace(-20, 20, 8), np.zeros(8), np.full(8, 1.84)], axis=1)
    result = dict(
        voxel_confusion=seconds(lambda: voxel_confusion(pred, gt, 18), args.repeats),
        voxel_confusion_masked=seconds(lambda: voxel_confusion(pred, gt, 18, mask), args.repeats),
        ray_iou_8_origins=seconds(lambda: count_rays(pred, gt, origins, grid), args.repeats),
    )
    minutes = (result['voxel_confusion_masked']['median'] + result['ray_iou_8_origins']['median']) * NUM_VAL_FRAMES / 60
    machine = dict(
        cpu=platform.processor() or platform.machine(), threads=numba.get_num_threads(), python=platform.python_version()
    )
    report = dict(seconds_per_frame=result, minutes_for_6019_frames=minutes, machine=machine)
    write_atomically(args.out, lambda file: file.write((json.dumps(report, indent=2) + '\n').encode()))
    print(json.dumps(report, indent=2))
    return 0


if __name__ == '__main__':
    sys.exit(main())
