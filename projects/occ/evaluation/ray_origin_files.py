"""Query origins of RayIoU as a file, so that a test needs no poses: ``ray_origins_<split>.npz``."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from mmdet3d.registry import DATASETS

from projects.occ.atomic_write import write_atomically
from projects.occ.file_arrays import load_arrays

from ..structures import VoxelGrid
from .functional import origins_by_token

RayOrigins = str | os.PathLike | Mapping[str, Any]
KEYS = ('tokens', 'origins', 'offsets', 'frame')


def write_ray_origins(path: str | os.PathLike, origins: Mapping[str, np.ndarray], frame: str = 'ego') -> None:
    """Writes the origins of a split, atomically.

    The file is a compressed npz without pickled objects: ``tokens`` (N,) strings; ``origins`` (M, 3) float64, metres, all
    frames one after the other; ``offsets`` (N + 1,) int64, frame i has the rows ``offsets[i]:offsets[i + 1]``; ``frame``, the
    reference frame of the origins.

    Args:
        path: File to write.
        origins: Token -> (T, 3), as :func:`origins_by_token` gives them.
        frame: ``'ego'`` or ``'lidar'``.
    """
    counts = [len(points) for points in origins.values()]
    arrays = dict(
        tokens=np.array(list(origins), dtype=np.str_),
        origins=np.concatenate([np.zeros((0, 3)), *(np.asarray(points, dtype=np.float64) for points in origins.values())]),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        frame=np.array(frame),
    )
    write_atomically(path, lambda file: np.savez_compressed(file, **arrays))


def read_ray_origins(path: str | os.PathLike, frame: str = 'ego') -> dict[str, np.ndarray]:
    """Reads what :func:`write_ray_origins` wrote.

    Args:
        path: The file.
        frame: Reference frame that is needed.

    Returns:
        Token -> (T, 3) float64, metres.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such file, damaged, or in another reference frame.
    """
    path = os.fspath(path)
    remedy = 'docs/evaluation.md, "RayIoU", tells how to make it'
    arrays = load_arrays(path, 'RayIoU origins', remedy)
    if not set(KEYS) <= set(arrays):
        raise ValueError(f'{path}: not a file of RayIoU origins; expected the arrays {KEYS}, found {sorted(arrays)}; {remedy}')
    if str(arrays['frame']) != frame:
        raise ValueError(
            f'{path}: these origins are in the {arrays["frame"]} frame, but the voxel grid is in the {frame} frame; make them '
            'for this benchmark'
        )
    offsets, points = arrays['offsets'], arrays['origins']
    if len(offsets) != len(arrays['tokens']) + 1 or offsets[-1] != len(points):
        raise ValueError(f'{path}: tokens, origins and offsets do not fit together; make the file again')
    return {
        str(token): points[start:end] for token, start, end in zip(arrays['tokens'], offsets[:-1], offsets[1:], strict=True)
    }


def load_ray_origins(origins: RayOrigins, grid: VoxelGrid) -> Mapping[str, np.ndarray]:
    """Query origins from wherever a metric is told to take them.

    Args:
        origins: A file of :func:`write_ray_origins`; or the config of a data set (``dict(type=...)``) whose poses they are
            computed from, whole scenes at once, whatever ``subset`` or ``indices`` say; or a dict token -> (T, 3), metres, in
            ``grid.frame``.
        grid: Voxel grid that the rays go through.

    Returns:
        Token -> (T, 3), metres.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is damaged or in another reference frame.
    """
    if not isinstance(origins, Mapping):
        return read_ray_origins(origins, grid.frame)
    if 'type' not in origins:
        return origins
    # all frames, without a pipeline
    config = {key: value for key, value in origins.items() if key not in ('indices', 'subset')}
    dataset = DATASETS.build({**config, 'pipeline': [], 'test_mode': True})
    return origins_by_token((dataset.get_data_info(i) for i in range(len(dataset))), grid)
