"""Writes frames in the on-disk layout of SSCBench-KITTI-360."""

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from projects.occ.atomic_write import write_atomically
from projects.occ.datasets.kitti360_labels import IGNORE, LABEL_SUFFIX, RAW_IDS, map_raw_labels
from projects.occ.datasets.kitti360_poses import write_poses
from projects.occ.datasets.sscbench_kitti360_dataset import CAMERA, SPLITS, sequence_name
from projects.occ.structures.frame_record import FrameRecord

from .config import KITTI360, SyntheticConfig
from .frame import Frame
from .sensors import kitti360_rig

IMAGES, LABELS, DEPTH, LIDAR = 'data_2d_raw', 'preprocess', 'depth', 'data_3d_raw'
CALIBRATION, POSES = 'calibration', 'poses'
FOLDERS = (IMAGES, LABELS, DEPTH, LIDAR, CALIBRATION, POSES)
_OUTLIER = 1
_STRIDE = 5
_NUMBERS_PER_SCENE = 1000
# The first raw id of each class, those of ignored voxels aside.
_RAW_ID = np.array([RAW_IDS[class_id][0] for class_id in range(len(RAW_IDS) - 1)], dtype='<u2')


def frame_name(config: SyntheticConfig, scene: int, frame: int) -> tuple[str, str]:
    """Drive and six digits of a frame: all training scenes are parts of the first drive of the training split, one after the
    other, and all validation scenes of that of the validation split."""
    train = scene < config.scenes_train
    drive = sequence_name(SPLITS['train' if train else 'val'][0])
    return drive, f'{(scene if train else scene - config.scenes_train) * _NUMBERS_PER_SCENE + frame * _STRIDE:06d}'


def write_kitti360_frame(root: Path, frame: Frame, config: SyntheticConfig, scene: int) -> None:
    """Writes image, exact depth map, LiDAR sweep, raw and converted label of a frame below ``root``.

    Args:
        root: Folder of the data set.
        frame: The frame.
        config: Its data set.
        scene: Number of its scene.
    """
    drive, name = frame_name(config, scene, frame.record.frame_idx)
    view = frame.views[CAMERA]
    _, encoded = cv2.imencode('.png', np.ascontiguousarray(view.image[..., ::-1]))
    _write(root / IMAGES / drive / CAMERA / 'data_rect' / f'{name}.png', encoded.tobytes())
    _write_array(root / DEPTH / drive / f'{name}.npy', np.maximum(view.depth, 0).astype(np.float32))
    points = frame.points[:, :4] * np.array([1, 1, 1, 1 / 255], dtype=np.float32)
    _write(root / LIDAR / drive / 'velodyne_points' / 'data' / f'{name}.bin', points.astype('<f4').tobytes())

    labels, observed = frame.labels[KITTI360], frame.mask_lidar[KITTI360]
    ignored = labels == IGNORE
    raw = _RAW_ID[np.where(ignored, 0, labels)]
    raw[ignored & observed] = _OUTLIER
    folder = root / IMAGES / drive / 'voxels'
    _write(folder / f'{name}.label', raw.tobytes())
    _write(folder / f'{name}.invalid', (~observed).astype(np.uint8).tobytes())
    index, inside = config.grids[KITTI360].point_to_index(points[:, :3])
    scanned = np.zeros(labels.shape, dtype=np.uint8)
    scanned[tuple(index[inside].T)] = 1
    _write(folder / f'{name}.bin', np.packbits(scanned).tobytes())
    converted = map_raw_labels(raw, ~observed, name)
    _write_array(root / LABELS / 'labels' / drive / f'{name}{LABEL_SUFFIX}', converted.astype(np.float32))


def write_kitti360_poses(root: Path, scenes: Sequence[Sequence[FrameRecord]], config: SyntheticConfig) -> None:
    """Writes ``poses/<drive>.npz``, the Velodyne's poses in the world.

    Args:
        root: Folder of the data set.
        scenes: Frames of every scene, in their order.
        config: Its data set.
    """
    drives: dict[str, dict[int, np.ndarray]] = {}
    for scene, records in enumerate(scenes):
        for record in records:
            drive, name = frame_name(config, scene, record.frame_idx)
            drives.setdefault(drive, {})[int(name)] = record.ego2global @ record.lidar2ego
    for drive, poses in drives.items():
        write_poses(root / POSES / f'{drive}.npz', poses)


def write_kitti360_calibration(root: Path, config: SyntheticConfig) -> None:
    """Writes ``calibration/perspective.txt`` and ``calib_cam_to_velo.txt`` as KITTI-360 has them, for the one camera."""
    rig = kitti360_rig(config)
    projection = np.zeros((3, 4))
    projection[:, :3] = rig.cameras[0].cam2img
    cam2velo = np.linalg.inv(rig.lidar2ego) @ rig.cameras[0].cam2ego
    rows = {'S_rect_00': config.image_size, 'R_rect_00': np.eye(3).ravel(), 'P_rect_00': projection.ravel()}
    text = ''.join(f'{name}: {_join(values)}\n' for name, values in rows.items())
    _write(root / CALIBRATION / 'perspective.txt', text.encode())
    _write(root / CALIBRATION / 'calib_cam_to_velo.txt', f'{_join(cam2velo[:3].ravel())}\n'.encode())


def _join(values) -> str:
    return ' '.join(f'{value:.12g}' for value in values)


def _write(path: Path, data: bytes) -> None:
    write_atomically(path, lambda file: file.write(data))


def _write_array(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    _write(path, buffer.getvalue())
