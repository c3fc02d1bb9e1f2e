"""Where the query rays of RayIoU start: positions of the LiDAR over a scene (SparseOcc, loaders/ego_pose_dataset.py)."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ...structures import VoxelGrid

MAX_ORIGINS = 8
ORIGIN_MARGIN = 1.0  # metres; origins nearer to the border of the grid on x or y, or beyond it, are left out


def lidar_origins(lidar2ego: np.ndarray, ego2global: np.ndarray, frame: int, grid: VoxelGrid | Mapping[str, Any]) -> np.ndarray:
    """Query origins of one frame: where the LiDAR was in all frames of the scene, seen from this frame.

    Args:
        lidar2ego: (F, 4, 4) float64, all frames of the scene in time order.
        ego2global: (F, 4, 4) float64, at LiDAR time.
        frame: Position of the frame in the scene.
        grid: Voxel grid that the rays go through, or its config dict.

    Returns:
        (T, 3) float64, metres, in ``grid.frame``; at most 8, evenly spread over those more than 1 m inside the grid on x and y
        (of Occ3D: within 39 m), in time order.

    Raises:
        ValueError: If a pose is not finite.
    """
    grid = VoxelGrid.build(grid)
    lidar2ego, ego2global = (np.asarray(poses, dtype=np.float64) for poses in (lidar2ego, ego2global))
    if not (np.isfinite(lidar2ego).all() and np.isfinite(ego2global).all()):
        raise ValueError(
            'the poses of the scene are not finite; RayIoU needs lidar2ego and ego2global of every frame. Give a file of '
            'origins instead (--origins), or a data set with poses (of SSCBench-KITTI-360: dataset.poses)'
        )
    lidar2global = ego2global @ lidar2ego
    relative = np.linalg.inv(lidar2global[frame]) @ lidar2global
    # the original keeps these positions in float32
    origins = relative[:, :3, 3].astype(np.float32).astype(np.float64)
    origins[frame] = 0
    if grid.frame == 'ego':
        origins = origins @ lidar2ego[frame][:3, :3].T + lidar2ego[frame][:3, 3]
    lower, upper = np.array(grid.lower[:2]) + ORIGIN_MARGIN, np.array(grid.upper[:2]) - ORIGIN_MARGIN
    origins = origins[((origins[:, :2] > lower) & (origins[:, :2] < upper)).all(1)]
    if len(origins) > MAX_ORIGINS:
        origins = origins[np.round(np.linspace(0, len(origins) - 1, MAX_ORIGINS)).astype(np.int64)]
    return origins


def origins_by_token(frames: Iterable[Mapping[str, Any]], grid: VoxelGrid | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Query origins of every frame of complete scenes.

    Origins depend on all frames of a scene, so give all frames of the split even if only some are scored.

    Args:
        frames: Dicts with ``token``, ``scene_name``, ``lidar2ego`` (4, 4), ``ego2global`` (4, 4) and, if known, ``timestamp``;
            the items of a data set's ``get_data_info`` are such. Frames of a scene are sorted by time, or taken in the order
            given if one has no time.
        grid: Voxel grid that the rays go through, or its config dict.

    Returns:
        Token -> (T, 3) float64, metres, in ``grid.frame``, T = 0..8, in the order of ``frames``. A frame has none if the LiDAR
        never was inside the grid, as at the end of a drive if the grid begins in front of the car.

    Raises:
        ValueError: If a frame has no scene name, a token occurs twice, or poses are not finite.
    """
    frames, grid = list(frames), VoxelGrid.build(grid)
    scenes: dict[str, list[Mapping]] = {}
    for item in frames:
        if not item.get('scene_name'):
            raise ValueError(
                f'frame {item["token"]} has no scene_name, so the scene that its RayIoU origins come from is unknown; use an '
                'annotation file with scene names, or Occ3D labels in folders named after their scenes'
            )
        scenes.setdefault(item['scene_name'], []).append(item)
    origins: dict[str, np.ndarray] = {}
    for scene in scenes.values():
        if all(item.get('timestamp') is not None for item in scene):
            scene.sort(key=lambda item: item['timestamp'])
        lidar2ego, ego2global = (np.stack([item[key] for item in scene]) for key in ('lidar2ego', 'ego2global'))
        for index, item in enumerate(scene):
            if item['token'] in origins:
                raise ValueError(f'frame {item["token"]} occurs twice; RayIoU origins need every frame once')
            origins[item['token']] = lidar_origins(lidar2ego, ego2global, index, grid)
    return {item['token']: origins[item['token']] for item in frames}
