"""Poses of KITTI-360 for the frames of SSCBench: ``<sequence>.npz`` with ``frames`` (F,) and ``velo2world`` (F, 4, 4)."""

import gzip
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from projects.occ.atomic_write import write_atomically
from projects.occ.file_arrays import load_arrays

_HOW = 'docs/datasets.md, "SSCBench-KITTI-360"'


def read_kitti360_poses(kitti360: str | os.PathLike, sequence: str) -> dict[int, np.ndarray]:
    """Poses of the Velodyne from KITTI-360's own files.

    ``data_poses/<sequence>/poses.txt`` (IMU -> world; perhaps ``.gz``), ``calibration/calib_cam_to_pose.txt`` (camera -> IMU)
    and ``calibration/calib_cam_to_velo.txt`` are chained. Not every frame of KITTI-360 has a pose.

    Args:
        kitti360: Folder of KITTI-360.
        sequence: E.g. ``2013_05_28_drive_0000_sync``.

    Returns:
        Frame number of KITTI-360 -> (4, 4) float64, Velodyne -> world, metres.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file has rows of another kind.
    """
    root = Path(kitti360)
    rows = dict(
        line.split(':', 1) for line in _lines(root / 'calibration' / 'calib_cam_to_pose.txt') if line.startswith('image_')
    )
    if 'image_00' not in rows:
        raise ValueError(f"'{root / 'calibration' / 'calib_cam_to_pose.txt'}' lacks the row image_00; copy it again ({_HOW})")
    cam2imu = _affine(rows['image_00'].split(), 'calib_cam_to_pose.txt, image_00')
    path = root / 'calibration' / 'calib_cam_to_velo.txt'
    velo2imu = cam2imu @ np.linalg.inv(_affine(' '.join(_lines(path)).split(), f"'{path}'"))
    path = root / 'data_poses' / sequence / 'poses.txt'
    poses = {}
    for number, line in enumerate(_lines(path), start=1):
        words = line.split()
        if words:
            poses[int(float(words[0]))] = _affine(words[1:], f"'{path}', line {number}") @ velo2imu
    return poses


def write_poses(path: str | os.PathLike, poses: Mapping[int, np.ndarray]) -> None:
    """Writes poses (4, 4) by frame number of SSCBench, atomically."""
    frames = np.array(sorted(poses), dtype=np.int64)
    matrices = np.array([poses[frame] for frame in frames.tolist()], dtype=np.float64).reshape(-1, 4, 4)
    write_atomically(path, lambda file: np.savez_compressed(file, frames=frames, velo2world=matrices))


def read_poses(path: str | os.PathLike) -> dict[int, np.ndarray]:
    """Reads what :func:`write_poses` wrote.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or another file.
    """
    remedy = f'make it with tools/create_data.py sscbench-kitti360 --kitti360 ({_HOW})'
    arrays = load_arrays(path, 'poses of a drive', remedy)
    try:
        return dict(zip(arrays['frames'].tolist(), arrays['velo2world'], strict=True))
    except (KeyError, ValueError) as error:
        raise ValueError(f"'{path}' is no file of poses ({error}); {remedy}") from error


def _lines(path: Path) -> list[str]:
    packed = path.with_name(f'{path.name}.gz')
    if path.is_file():
        return path.read_text().splitlines()
    if packed.is_file():
        return gzip.decompress(packed.read_bytes()).decode().splitlines()
    raise FileNotFoundError(f"'{path}' does not exist; copy it from KITTI-360's release ({_HOW})")


def _affine(words: list[str], what: str) -> np.ndarray:
    try:
        values = np.array(words, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f'{what}: expected 12 numbers ({error}); copy the file again ({_HOW})') from None
    if len(values) != 12:
        raise ValueError(f'{what}: expected 12 numbers, found {len(values)}; copy the file again ({_HOW})')
    matrix = np.eye(4)
    matrix[:3] = values.reshape(3, 4)
    return matrix
