"""Frames of noise in the shape that a config asks for, for measurements without a data set.

The images are noise, the labels a street of boxes, the cameras a ring; the pipeline of the config runs on them from behind its
loading steps, so that the model gets what it gets in a training or a test.
"""

import math
from typing import Any

import numpy as np

from projects.occ.structures import VoxelGrid

# number of cameras -> width and height of the photographs of such rigs: nuScenes, KITTI-360
PHOTOGRAPHS = {6: (1600, 900), 1: (1408, 376)}
# half a second at 14 km/h
METRES_BETWEEN_FRAMES = 2.0


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


def rig_of(cfg: Any, dataset: Any) -> tuple[int, tuple[int, int]]:
    """How many cameras the frames of a config have and the width and height of their photographs, pixels."""
    count = (cfg.model.get('view_encoder') or {}).get('num_cams') or len(dataset.get('cam_names') or ())
    count = count or (1 if 'KITTI' in dataset.type else 6)
    width, height = PHOTOGRAPHS.get(count, PHOTOGRAPHS[6])
    for step in dataset.pipeline:
        if step.type == 'ResizeCropFlipImages':
            # small configs read small photographs
            factor = step.final_wh[0] / width
            width, height = step.final_wh[0], max(round(factor * height), step.final_wh[1])
    return count, (width, height)


def made_up_frame(cfg: Any, seed: int = 0, split: str = 'train') -> dict:
    """One frame as a pipeline of a config packs it: ``inputs`` and ``data_samples``.

    Neighbouring frames (``dataset.frames``) are there too, the vehicle drives ahead.

    Args:
        cfg: Config.
        seed: Of noise and boxes.
        split: Whose pipeline: ``'train'``, ``'val'`` or ``'test'``; that of the training where the config has no such loader.

    Raises:
        ValueError: If the pipeline loads something that is not made up here.
    """
    from mmcv.transforms import Compose
    from mmdet3d.registry import TRANSFORMS

    rng = np.random.default_rng(seed)
    dataset = (cfg.get(f'{split}_dataloader') or cfg.train_dataloader).dataset
    grid = VoxelGrid.build(cfg.get('grid') or dataset.get('grid') or cfg.model.grid)
    count, (width, height) = rig_of(cfg, dataset)
    ego = grid.frame == 'ego'
    key2cam, cam2img = ring_of_cameras(count, (width, height), height=1.6 if ego else -0.2)
    offsets = list(dataset.get('frames') or (0,))
    moved = np.tile(np.eye(4), (len(offsets), 1, 1))
    moved[:, 0 if ego else 1, 3] = [-offset * METRES_BETWEEN_FRAMES for offset in offsets]
    ref2cam = (key2cam @ moved[:, None]).reshape(-1, 4, 4)
    cam2img = np.tile(cam2img, (len(offsets), 1, 1))
    ref2img = ref2cam.copy()
    ref2img[:, :3] = cam2img @ ref2cam[:, :3]
    views = len(ref2cam)
    frame = dict(
        grid=grid,
        img=[rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(views)],
        ref2cam=ref2cam,
        cam2img=cam2img,
        ref2img=ref2img,
        cam2ego=np.linalg.inv(key2cam),
        lidar2ego=np.eye(4),
        ego2global=np.eye(4),
        cam_names=[f'CAM_{index}' for index in range(count)] * len(offsets),
        img_paths=[''] * views,
        token='made-up',
        scene_name='made-up',
        frame_idx=0,
        timestamp=0.0,
        lidar_path='',
        sample_idx=0,
        frame=np.repeat(np.array(offsets, dtype=np.int64), count),
        view_missing=np.zeros(views, dtype=bool),
    )
    label = street(grid, ground=0.0 if ego else -1.7, rng=rng)
    loaders = dict(
        LoadDepthMaps=lambda: dict(
            depth=[depth_of_street(ref, K, (width, height), grid, label) for ref, K in zip(ref2cam, cam2img)]
        ),
        LoadDepthPixels=lambda: dict(depth_pixels=[np.zeros((0, 3), np.float32)] * count),
        LoadSelfOcclusionMasks=lambda: dict(image_masks=[np.ones((height, width), bool)] * count),
        LoadPseudoLabels=lambda: dict(
            pseudo_labels=[rng.choice(grid.semantic_classes, (height, width)).astype(np.int16) for _ in range(count)]
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
        elif step.type.startswith('Load') and step.type not in ('LoadMultiViewImages', 'LoadVoxelProjections'):
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
