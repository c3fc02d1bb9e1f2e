"""Time and memory of the metrics at the size of Occ3D-nuScenes, on made streets; writes JSON.

python tests/benchmarks/bm_evaluation.py [--out docs/benchmarks/evaluation.json] [--skip-images]

Voxel metrics, RayIoU (on a GPU too, if there is one), OccupancyMetric and RayIoUMetric as a test run feeds them, the image
metrics of one frame with six cameras, and how memory grows with the number of frames.
"""

import argparse
import json
import math
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
import torch  # noqa: E402

from projects.occ.atomic_write import write_atomically  # noqa: E402
from projects.occ.evaluation import OccupancyMetric, RayIoUMetric  # noqa: E402
from projects.occ.evaluation.functional import count_rays, voxel_confusion  # noqa: E402
from projects.occ.structures import VoxelGrid  # noqa: E402
from projects.occ.structures.benchmarks import get_benchmark  # noqa: E402

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


def resident_mb() -> float:
    """Memory of this process, MB."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * 4096 / 1e6


def six_cameras() -> dict[str, np.ndarray]:
    """Cameras around the car like those of nuScenes: 1600 x 900 pixels, 1.5 m above the ground."""
    ref2cam, cam2img = [], []
    for degrees in (0, -55, 55, 180, 110, -110):
        angle = math.radians(degrees)
        forward, left = np.array([math.cos(angle), math.sin(angle), 0]), np.array([-math.sin(angle), math.cos(angle), 0])
        rotation = np.stack([-left, [0, 0, -1], forward])
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation, -rotation @ (1.5 * forward + [0, 0, 1.5])
        ref2cam.append(matrix)
        cam2img.append([[1260, 0, 800], [0, 1260, 450], [0, 0, 1]])
    sizes = np.tile([[1600.0, 900.0]], (6, 1))
    return dict(ref2cam=np.array(ref2cam, np.float32), cam2img=np.array(cam2img, np.float32), ori_img_wh=sizes)


def memory_growth(metrics: list, sample: dict, frames: int) -> dict[str, float]:
    """Resident memory before and after more frames have been counted, MB."""
    for _ in range(10):
        for metric in metrics:
            metric.process({}, [sample])
    before = resident_mb()
    for _ in range(frames):
        for metric in metrics:
            metric.process({}, [sample])
    grown = resident_mb() - before
    return dict(frames=frames, grown_mb=grown, grown_kb_per_frame=1e3 * grown / frames)


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/benchmarks/evaluation.json')
    parser.add_argument('--repeats', type=int, default=15)
    parser.add_argument('--memory-frames', type=int, default=200)
    parser.add_argument('--skip-images', action='store_true', help='leave the image metrics out')
    args = parser.parse_args(argv)
    grid = get_benchmark('occ3d').grid
    gt, pred = make_street(grid, 0), make_street(grid, 1)
    mask = np.random.default_rng(2).random(grid.shape) < 0.1
    origins = np.stack([np.linspace(-20, 20, 8), np.zeros(8), np.full(8, 1.84)], axis=1)
    sample = dict(
        token='frame',
        gt_occ=torch.from_numpy(gt),
        pred_occ=torch.from_numpy(pred),
        mask_camera=torch.from_numpy(mask),
        **six_cameras(),
    )
    voxels = OccupancyMetric(grid, preset='occ3d')
    rays = RayIoUMetric(grid, {'frame': origins}, preset='occ3d')
    result = dict(
        voxel_confusion=seconds(lambda: voxel_confusion(pred, gt, 18), args.repeats),
        voxel_confusion_masked=seconds(lambda: voxel_confusion(pred, gt, 18, mask), args.repeats),
        occupancy_metric=seconds(lambda: voxels.process({}, [sample]), args.repeats),
        ray_iou_8_origins=seconds(lambda: count_rays(pred, gt, origins, grid), args.repeats),
        ray_iou_metric=seconds(lambda: rays.process({}, [sample]), args.repeats),
    )
    if torch.cuda.is_available():
        on_gpu = {key: sample[key].cuda() for key in ('pred_occ', 'gt_occ')}
        result['ray_iou_8_origins_cuda'] = seconds(
            lambda: count_rays(on_gpu['pred_occ'], on_gpu['gt_occ'], origins, grid), args.repeats
        )
    overhead = result['occupancy_metric']['median'] + result['ray_iou_metric']['median']
    totals = {
        'voxel_metrics': result['occupancy_metric']['median'],
        'ray_iou': result['ray_iou_metric']['median'],
        'voxel_metrics_and_ray_iou': overhead,
    }
    if not args.skip_images:
        from projects.gaussrender.image_metric import RenderedImageMetric

        images = RenderedImageMetric(grid, gaussian_scale=0.27)
        result['image_metrics_6_cameras_1600x900'] = seconds(lambda: images.process({}, [sample]), 2)
        totals['image_metrics'] = result['image_metrics_6_cameras_1600x900']['median']
    report = dict(
        seconds_per_frame=result,
        minutes_for_6019_frames={name: value * NUM_VAL_FRAMES / 60 for name, value in totals.items()},
        memory=memory_growth([voxels, rays], sample, args.memory_frames),
        machine=dict(
            cpu=platform.processor() or platform.machine(),
            threads=numba.get_num_threads(),
            torch_threads=torch.get_num_threads(),
            gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            python=platform.python_version(),
        ),
    )
    write_atomically(args.out, lambda file: file.write((json.dumps(report, indent=2) + '\n').encode()))
    print(json.dumps(report, indent=2))
    return 0


if __name__ == '__main__':
    sys.exit(main())
