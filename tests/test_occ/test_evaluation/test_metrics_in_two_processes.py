"""Every metric gives the same numbers in one process and in two, also when the frames do not divide evenly."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

GRID = dict(
    point_cloud_range=(-4, -4, -2, 4, 4, 2),
    voxel_size=1.0,
    shape=(8, 8, 4),
    frame='ego',
    free_index=2,
    class_names=('wall', 'floor', 'free'),
)
FRAMES = 5

WORKER = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np, torch
import torch.distributed as dist
from mmengine.evaluator import Evaluator
from projects.occ.evaluation import OccupancyMetric, RayIoUMetric, RayProfileMetric

folder, grid, kinds = sys.argv[2], json.loads(sys.argv[3]), sys.argv[4].split(',')
data = dict(np.load(f'{folder}/data.npz'))
size = len(data['gt'])
origins = {f'frame-{i}': data['origins'][i] for i in range(size)}
options = dict(collect_device='cpu', collect_dir=f'{folder}/tmp')
metrics = []
if 'voxels' in kinds:
    metrics.append(OccupancyMetric(grid, **options))
if 'rays' in kinds:
    metrics.append(RayIoUMetric(grid, origins, **options))
if 'profiles' in kinds:
    metrics.append(RayProfileMetric(grid, origins, **options))
if 'images' in kinds:
    from projects.gaussrender.image_metric import RenderedImageMetric

    metrics.append(RenderedImageMetric(grid, bev=dict(size=16), **options))
camera = dict(
    ref2cam=np.array([[[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 3.7], [0, 0, 0, 1]]], np.float32),
    cam2img=np.array([[[12, 0, 9.3], [0, 12, 7.4], [0, 0, 1]]], np.float32),
    ori_img_wh=np.array([[20, 14]], np.float32),
)


def score(indices, size):
    evaluator = Evaluator(metrics)
    for i in indices:
        gt, pred = (torch.from_numpy(data[key][i]) for key in ('gt', 'pred'))
        evaluator.process([dict(gt_occ=gt, pred_occ=pred, token=f'frame-{i}', **camera)])
    return evaluator.evaluate(size)


dist.init_process_group('gloo')
rank, world = dist.get_rank(), dist.get_world_size()
# like a distributed sampler: every second frame, padded by repeating the first ones
result = score([j % size for j in range(rank, size + size % world, world)], size)
dist.barrier()
dist.destroy_process_group()
if rank == 0:
    # once more alone, to compare with
    print(json.dumps([result, score(range(size), size)]))
"""


def test_equal(tmp_path, repo_root):
    rng = np.random.default_rng(1)
    gt, pred = rng.choice([0, 1, 2, 2, 2], (2, FRAMES, *GRID['shape'])).astype(np.uint8)
    pred[:, :3] = gt[:, :3]
    np.savez(tmp_path / 'data.npz', gt=gt, pred=pred, origins=rng.uniform(-1, 1, (FRAMES, 2, 3)))
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    kinds = ['voxels', 'rays', 'profiles', 'images']
    env = dict(os.environ, MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), WORLD_SIZE='2', OMP_NUM_THREADS='1')
    arguments = [sys.executable, '-c', WORKER, str(repo_root), str(tmp_path), json.dumps(GRID), ','.join(kinds)]
    workers = [
        subprocess.Popen(
            arguments, env=dict(env, RANK=str(rank), LOCAL_RANK='0'), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    outputs = [worker.communicate(timeout=180) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    two, one = json.loads(outputs[0][0].splitlines()[-1])
    assert two == one
    assert {'occ/mIoU', 'occ/RayIoU@1'} <= set(one) and 0 < one['occ/RayIoU'] < 1
    if 'images' in kinds:
        assert 0 < one['occ/img_mIoU'] < 1 and one['occ/depth_L1'] == pytest.approx(two['occ/depth_L1'], abs=0)
