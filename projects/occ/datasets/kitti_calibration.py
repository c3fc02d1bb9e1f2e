"""Calibration files and frame numbers of KITTI-360 and of the KITTI odometry benchmark."""

from dataclasses import dataclass

import numpy as np
from mmengine.fileio import get_text, join_path

_HOW = 'docs/datasets.md, "SSCBench-KITTI-360"'


@dataclass(frozen=True)
class VelodyneCamera:
    """The one camera of a frame.

    Attributes:
        image_wh: Width and height of its rectified images, pixels.
        cam2img: (3, 3), intrinsics, pixels.
        ref2cam: (4, 4), Velodyne -> camera (x right, y down, z forward), metres.
    """

    image_wh: tuple[int, int]
    cam2img: np.ndarray
    ref2cam: np.ndarray

    def matrices(self) -> dict[str, np.ndarray]:
        """``cam2img`` (1, 3, 3), ``ref2cam`` and ``ref2img`` (1, 4, 4) float64; the reference is the Velodyne."""
        ref2img = self.ref2cam.copy()
        ref2img[:3] = self.cam2img @ self.ref2cam[:3]
        return dict(cam2img=self.cam2img[None].copy(), ref2cam=self.ref2cam[None].copy(), ref2img=ref2img[None])


def read_kitti360_calibration(folder: str, backend_args: dict | None = None) -> VelodyneCamera:
    """Calibration of ``image_00`` from KITTI-360's own files ``perspective.txt`` and ``calib_cam_to_velo.txt``.

    The rectifying rotation is applied: Velodyne -> unrectified camera (inverse of ``calib_cam_to_velo``) -> ``R_rect_00``.

    Args:
        folder: With the two files.
        backend_args: Arguments of mmengine's file backend.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a row is missing or has another number of values.
    """
    path = join_path(folder, 'perspective.txt')
    rows = _rows(path, dict(P_rect_00=12, R_rect_00=9, S_rect_00=2), backend_args)
    cam2velo_path = join_path(folder, 'calib_cam_to_velo.txt')
    cam2velo = np.eye(4)
    cam2velo[:3] = _numbers(_text(cam2velo_path, backend_args), 12, f"'{cam2velo_path}'").reshape(3, 4)
    rectify = np.eye(4)
    rectify[:3, :3] = rows['R_rect_00'].reshape(3, 3)
    width, height = rows['S_rect_00']
    cam2img = rows['P_rect_00'].reshape(3, 4)[:, :3]
    return VelodyneCamera((int(width), int(height)), cam2img, rectify @ np.linalg.inv(cam2velo))


def read_frame_map(path: str, backend_args: dict | None = None) -> dict[tuple[str, str], str]:
    """Which frame of KITTI-360 a frame of SSCBench is, from ``kitti_360_match.txt``.

    Args:
        path: Text file, one row ``<sequence> <ten digits>.png <six digits>.png`` per frame; rows of other kinds are skipped.
        backend_args: Arguments of mmengine's file backend.

    Returns:
        (sequence, six digits of SSCBench) -> ten digits of KITTI-360.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it has no such row.
    """
    frames = {}
    for line in _text(path, backend_args).splitlines():
        words = line.split()
        if len(words) == 3 and words[0].endswith('_sync'):
            frames[words[0], words[2].removesuffix('.png')] = words[1].removesuffix('.png')
    if not frames:
        raise ValueError(
            f"'{path}' has no row '<sequence> <KITTI-360 frame>.png <SSCBench frame>.png'; give dataset.frame_map the file "
            f'kitti_360_match.txt ({_HOW})'
        )
    return frames


def _text(path: str, backend_args: dict | None) -> str:
    try:
        return get_text(path, backend_args=backend_args)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileNotFoundError(f"'{path}' does not exist; copy it from KITTI-360's release ({_HOW})") from None


def _rows(path: str, lengths: dict[str, int], backend_args: dict | None) -> dict[str, np.ndarray]:
    """The rows ``<name>: numbers`` that ``lengths`` names."""
    lines = dict(line.split(':', 1) for line in _text(path, backend_args).splitlines() if ':' in line)
    missing = [name for name in lengths if name not in lines]
    if missing:
        raise ValueError(f"'{path}' lacks the rows {missing}; it is no calibration file of KITTI, or cut short ({_HOW})")
    return {name: _numbers(lines[name], count, f"'{path}', row {name}") for name, count in lengths.items()}


def _numbers(text: str, count: int, what: str) -> np.ndarray:
    try:
        values = np.array(text.split(), dtype=np.float64)
    except ValueError as error:
        raise ValueError(f'{what}: expected {count} numbers ({error}); copy the file again from the release ({_HOW})') from None
    if len(values) != count:
        raise ValueError(
            f'{what}: expected {count} numbers, found {len(values)}; copy the file again from the release ({_HOW})'
        )
    return values
