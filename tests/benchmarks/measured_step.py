"""Measures training steps of a config on made-up frames of the right size, in a process of its own.

The images are noise, the labels a street of boxes, the cameras a ring; the pipeline of the config runs on them from behind its
loading steps, so that the model gets what it gets in a training. Used by the scripts beside this file.
"""

import argparse
import inspect
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from projects.occ.structures import VoxelGrid  # noqa: E402

# number of cameras -> width and height of the photographs of such rigs: nuScenes, KITTI-360
PHOTOGRAPHS = {6: (1600, 900), 1: (1408, 376)}
# half a second at 14 km/h
METRES_BETWEEN_FRAMES = 2.0
# parts that can recompute instead of keep, by the option with_cp; of the necks only that of Symphonies can
CHECKPOINTING = ('img_backbone', 'img_neck', 'view_encoder', 'occ_head', 'aggregator.gaussians')


def ring_of_cameras(count: int, image_wh: tuple[int, int], height: float) -> tuple[np.ndarray, np.ndarray]:
    """Cameras in the middle of the grid that look around; one alone looks along +x.

    Args:
        count: Number N of cameras.
        image_wh: Width and height, pixels.
        height: z of the cameras, metres.

    Returns:
        ``ref2cam`` (N, 4, 4), metres, and ``cam2img`` (N, 3, 3), pixels.
    """
    view = math.radians(min(103.0, 360 / count + 5))
    focal = image_wh[0] / 2 / math.tan(view / 2)
    ref2cam = np.zeros((count, 4, 4))
    for matrix, angle in zip(ref2cam, 2 * math.pi * np.arange(count) / count):
        c, s = math.cos(angle), math.sin(angle)
        matrix[:] = [[s, -c, 0, 0], [0, 0, -1, height], [c, s, 0, 0], [0, 0, 0, 1]]
    intrinsics = np.array([[focal, 0, image_wh[0] / 2], [0, focal, image_wh[1] / 2], [0, 0, 1]])
    return ref2cam, np.tile(intrinsics, (count, 1, 1))


def street(grid: VoxelGrid, ground: float, rng: np.random.Generator) -> np.ndarray:
    """A label volume (X, Y, Z) uint8: ground, walls, boxes of every class; a tenth of it is ignored."""
    labels = np.full(grid.shape, grid.free_index, np.uint8)
    classes = np.array(grid.semantic_classes)
    floor = int(np.clip((ground - grid.lower[2]) / grid.voxel_size[2], 0, grid.shape[2] - 2))
    labels[:, :, floor] = classes[len(classes) // 2]
    for _ in range(120):
        size = rng.uniform((1, 1, 1), (6, 6, 4))
        corner = rng.uniform(grid.lower, grid.upper)
        (x0, y0, _), _ = grid.point_to_index(corner)
        dx, dy, dz = np.maximum(1, size / grid.voxel_size).astype(int)
        labels[max(x0, 0) : x0 + dx, max(y0, 0) : y0 + dy, floor + 1 : floor + 1 + dz] = rng.choice(classes)
    near, _ = grid.point_to_index(np.array([[-4.0, -4.0, 0.0], [4.0, 4.0, 0.0]]))
    (x0, y0, _), (x1, y1, _) = np.maximum(near, 0)
    labels[x0:x1, y0:y1, floor + 1 :] = grid.free_index
    labels[rng.random(grid.shape) < 0.1] = grid.ignore_index
    return labels


def number_of_cameras(cfg: Any) -> int:
    """Of the rig that a config is for: what its view encoder says, else one for KITTI-360 and six for nuScenes."""
    said = (cfg.model.get('view_encoder') or {}).get('num_cams')
    return said or (1 if 'KITTI' in cfg.train_dataloader.dataset.type else 6)


def made_up_frame(cfg: Any, seed: int = 0) -> dict:
    """One frame as the training pipeline of a config packs it: ``inputs`` and ``data_samples``.

    Raises:
        ValueError: If the pipeline loads something that is not made up here.
    """
    from mmcv.transforms import Compose
    from mmdet3d.registry import TRANSFORMS

    rng = np.random.default_rng(seed)
    dataset = cfg.train_dataloader.dataset
    grid = VoxelGrid.build(cfg.model.grid)
    count = number_of_cameras(cfg)
    width, height = PHOTOGRAPHS.get(count, PHOTOGRAPHS[6])
    for step in dataset.pipeline:
        if step.type == 'ResizeCropFlipImages':
            # small configs read small photographs
            factor = step.final_wh[0] / width
            width, height = step.final_wh[0], max(round(factor * height), step.final_wh[1])
    ego = grid.frame == 'ego'
    ref2cam, cam2img = ring_of_cameras(count, (width, height), height=1.6 if ego else -0.2)
    offsets = np.repeat(dataset.get('frames') or [0], count)
    key2ego = np.eye(4)
    ref2cam, cam2img = np.tile(ref2cam, (len(offsets) // count, 1, 1)), np.tile(cam2img, (len(offsets) // count, 1, 1))
    for matrix, offset in zip(ref2cam, offsets):
        key2ego[0, 3] = -offset * METRES_BETWEEN_FRAMES
        matrix[:] = matrix @ key2ego
    ref2img = ref2cam.copy()
    ref2img[:, :3] = cam2img @ ref2cam[:, :3]
    count = len(offsets)
    sizes = np.tile(np.array([width, height], dtype=np.float64), (count, 1))
    frame = dict(
        grid=grid,
        ref2cam=ref2cam,
        cam2img=cam2img,
        ref2img=ref2img,
        img_wh=sizes,
        ori_img_wh=sizes.copy(),
        lidar2ego=np.eye(4),
        ego2global=np.eye(4),
        cam_names=[f'CAM_{index}' for index in range(count)],
        img_paths=[''] * count,
        token='made-up',
        scene_name='made-up',
        frame_idx=0,
        lidar_path='',
        sample_idx=0,
        frame=offsets,
        view_missing=np.zeros(count, dtype=bool),
        warp=np.tile(np.eye(3), (count, 1, 1)),
    )
    label = street(grid, ground=0.0 if ego else -1.7, rng=rng)
    loaders = dict(
        LoadMultiViewImages=lambda: dict(img=[rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in ref2cam]),
        LoadDepthMaps=lambda: dict(
            depth=[depth_of_street(ref, K, (width, height), grid, label) for ref, K in zip(ref2cam, cam2img)]
        ),
    )
    loaders['LoadDepthFromLidar'] = loaders['LoadDepthMaps']
    for name in ('LoadOccLabels', 'LoadSSCBenchLabels'):
        loaders[name] = lambda: dict(
            gt_occ=label, mask_camera=label != grid.ignore_index, mask_lidar=label != grid.ignore_index
        )
    steps = []
    for step in dataset.pipeline:
        if step.type in loaders:
            frame.update(loaders[step.type]())
        elif step.type.startswith('Load') and step.type != 'LoadVoxelProjections':
            raise ValueError(f'made_up_frame knows no stand-in for {step.type}; it knows {sorted(loaders)}')
        else:
            steps.append({**step, 'cache_dir': None} if 'cache_dir' in step else step)
    return Compose([TRANSFORMS.build(step) for step in steps])(frame)


def depth_of_street(
    ref2cam: np.ndarray, cam2img: np.ndarray, image_wh: tuple, grid: VoxelGrid, label: np.ndarray
) -> np.ndarray:
    """Depth map (H, W) float32 in metres of the occupied voxels, as from a dense LiDAR."""
    from projects.occ.datasets.transforms.depth import lidar_depth

    occupied = np.argwhere((label != grid.free_index) & (label != grid.ignore_index))
    return lidar_depth(grid.index_to_point(occupied), ref2cam, cam2img, image_wh)


def resident_bytes() -> int:
    """Memory that this process occupies now."""
    return int(Path('/proc/self/statm').read_text().split()[1]) * resource.getpagesize()


def run_steps(request: dict) -> dict:
    """Builds the model of a request and trains it for some steps, in this process; see :func:`measure`."""
    from mmdet3d.registry import MODELS
    from mmengine.config import Config
    from mmengine.dataset import pseudo_collate
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope

    from projects.occ.engine.config_options import apply_cfg_options
    from projects.occ.engine.optim_wrapper import enable_amp

    if request['memory_limit'] and request['device'] == 'cpu':
        size = int(request['memory_limit'] * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    torch.manual_seed(0)
    cfg = Config.fromfile(request['config'])
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    apply_cfg_options(cfg, request['options'], allow_new_keys=True)
    if request['checkpointing']:
        for part in CHECKPOINTING:
            block = cfg.model
            for name in part.split('.'):
                block = (block or {}).get(name)
            if block and (part != 'img_neck' or 'with_cp' in inspect.signature(MODELS.get(block.type)).parameters):
                block['with_cp'] = True
    if request['amp']:
        enable_amp(cfg)
    device = torch.device(request['device'])
    batch = pseudo_collate([made_up_frame(cfg, seed) for seed in range(request['batch_size'])])
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.to(device).train()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if device.type == 'cuda' else resident_bytes()
    seconds, logged = [], {}
    for _ in range(request['warmup'] + request['steps']):
        start = time.perf_counter()
        logged = model.train_step(batch, optimizer)
        if device.type == 'cuda':
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    if device.type == 'cuda':
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    losses = {name: value.item() for name, value in logged.items() if 'loss' in name}
    bad = [name for name, value in losses.items() if not math.isfinite(value)]
    if bad:
        raise ValueError(f'losses are not finite: {bad}')
    return dict(
        seconds=seconds[request['warmup'] :],
        seconds_warmup=seconds[: request['warmup']],
        peak_gib=peak / 2**30,
        before_gib=before / 2**30,
        threads=torch.get_num_threads(),
        losses=losses,
        trainable_parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        images=list(batch['inputs']['img'][0].shape),
        grid=list(VoxelGrid.build(cfg.model.grid).shape),
    )


def measure(
    config: str,
    options: dict[str, Any] | None = None,
    device: str = 'cpu',
    steps: int = 1,
    warmup: int = 0,
    batch_size: int = 1,
    amp: bool = False,
    checkpointing: bool = False,
    memory_limit: float | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Trains the model of a config for a few steps in a process of its own.

    Args:
        config: Config file.
        options: Overrides, dotted key to value.
        device: ``'cpu'`` or ``'cuda'``.
        steps: Steps that are timed.
        warmup: Steps before them.
        batch_size: Frames per step.
        amp: Mixed precision as ``tools/train.py --amp`` sets it.
        checkpointing: Recompute activations in backbone, view encoder, head and opacity decoder.
        memory_limit: GiB of memory the process may allocate (CPU only); more than that ends it instead of the machine.
        threads: Of torch; None leaves its default.

    Returns:
        The request and ``seconds`` (list, one per timed step: forward, losses, backward, optimiser), ``peak_gib`` and, of it,
        ``before_gib`` (CPU: resident memory of the whole process at most, and before the first step; GPU: allocated by torch),
        ``losses``, ``trainable_parameters``, ``images``, ``grid``; ``threads`` are those really used. Or ``error``, one line,
        if it failed.
    """
    request = dict(
        config=str(config),
        options=options or {},
        device=device,
        steps=steps,
        warmup=warmup,
        batch_size=batch_size,
        amp=amp,
        checkpointing=checkpointing,
        memory_limit=memory_limit,
        threads=threads,
    )
    limit = {} if threads is None else {key: str(threads) for key in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')}
    done = subprocess.run(
        [sys.executable, __file__, json.dumps(request)], cwd=ROOT, env={**os.environ, **limit}, capture_output=True, text=True
    )
    if done.returncode == 0:
        return {**request, **json.loads(done.stdout.splitlines()[-1])}
    last = (done.stderr.strip().splitlines() or ['no output'])[-1]
    if memory_limit and ('MemoryError' in last or "can't allocate memory" in last):
        last = f'needs more than the {memory_limit:g} GiB that --memory-limit allows'
    killed = f'killed by signal {-done.returncode}: ' if done.returncode < 0 else ''
    return {**request, 'error': killed + last[:300]}


def parse_options(pairs: list[str]) -> dict[str, Any]:
    """``key=value`` of a command line as mmengine reads it."""
    from projects.occ.engine.command_line import CfgOptionsAction

    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptionsAction, default={})
    return parser.parse_args(['--cfg-options', *pairs] if pairs else []).cfg_options


if __name__ == '__main__':
    print(json.dumps(run_steps(json.loads(sys.argv[1]))))
