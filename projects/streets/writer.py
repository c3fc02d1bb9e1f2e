"""Writes frames and info files in the on-disk layout of nuScenes and of the two occupancy benchmarks."""

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from projects.occ.atomic_write import write_atomically
from projects.occ.datasets.point_classes import LIDARSEG_ID
from projects.occ.structures.frame_record import FrameRecord, occ3d_label_path, surroundocc_label_path
from projects.preparation.info_writer import CATEGORIES, INFO_VERSION, record_to_info
from projects.preparation.label_files import write_occ3d_label, write_surroundocc_label

from .config import VERSION, SyntheticConfig, grid_dict
from .frame import Frame

NUSCENES = 'nuscenes'
OCC3D = 'occ3d_nuscenes'
SURROUNDOCC = 'surroundocc_nuscenes'
IMAGE_CLASSES = 'nuscenes_semantic'


def write_frame(root: Path, frame: Frame, config: SyntheticConfig) -> None:
    """Writes images, LiDAR sweep and labels of one key frame below ``root``."""
    record = frame.record
    images = [(camera.img_path, frame.views[name].image) for name, camera in record.cameras.items()]
    images += [
        (camera.img_path, frame.sweep_images[offset][name])
        for offset, cameras in record.sweeps.items()
        for name, camera in cameras.items()
    ]
    for img_path, image in images:
        quality = [cv2.IMWRITE_JPEG_QUALITY, config.camera.jpeg_quality]
        _, encoded = cv2.imencode('.jpg', np.ascontiguousarray(image[..., ::-1]), quality)
        write_atomically(root / NUSCENES / img_path, lambda file, data=encoded: file.write(data.tobytes()))
    for name, classes in frame.painted.items():
        path = root / IMAGE_CLASSES / f'{Path(record.cameras[name].img_path).with_suffix("")}_mask.bin'
        write_atomically(path, lambda file, data=classes: file.write(data.tobytes()))
    write_atomically(root / NUSCENES / record.lidar_path, lambda file: file.write(frame.points.astype('<f4').tobytes()))
    raw_classes = LIDARSEG_ID[frame.point_classes].tobytes()
    write_atomically(root / NUSCENES / record.lidarseg_path, lambda file: file.write(raw_classes))
    for name, labels in frame.labels.items():
        if name == 'occ3d':
            path = root / OCC3D / 'gts' / occ3d_label_path(record)
            write_occ3d_label(str(path), labels, frame.mask_lidar[name], frame.mask_camera[name])
        else:
            write_surroundocc_label(
                str(root / SURROUNDOCC / 'samples' / surroundocc_label_path(record)), labels, config.grids[name]
            )


def info_of(frame: Frame) -> dict[str, Any]:
    """Entry of ``data_list`` for a frame; ``sample_idx`` is set when the file is written."""
    return record_to_info(frame.record, -1)


def write_infos(path: Path, infos: list[dict[str, Any]], config: SyntheticConfig) -> None:
    """Writes an info pickle; its ``metainfo['grids']`` holds the grid of every label format as a config writes it."""
    content = {
        'metainfo': {
            'categories': {name: index for index, name in enumerate(CATEGORIES)},
            'dataset': 'nuscenes',
            'version': VERSION,
            'info_version': INFO_VERSION,
            'preset': config.preset,
            'grids': {name: grid_dict(grid) for name, grid in config.grids.items()},
            'image_size': list(config.image_size),
        },
        'data_list': [{**info, 'sample_idx': index} for index, info in enumerate(infos)],
    }
    write_atomically(path, lambda file: pickle.dump(content, file, protocol=4))


def _quaternion(matrix: np.ndarray) -> list[float]:
    """Unit quaternion (w, x, y, z) of a rotation matrix."""
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat()
    return [float(w), float(x), float(y), float(z)]


def _pose(matrix: np.ndarray) -> dict[str, list[float]]:
    return {'rotation': _quaternion(matrix), 'translation': matrix[:3, 3].tolist()}


def gaussrender_infos(frames: list[FrameRecord]) -> dict[str, Any]:
    """The pickle style of GaussRender's SurroundOcc files: frames by scene, and (scene token, index) of the key frames."""
    infos: dict[str, list] = {}
    metadata = []
    for record in frames:
        sensors = {
            'LIDAR_TOP': {
                'filename': record.lidar_path,
                'calib': {**_pose(record.lidar2ego), 'camera_intrinsic': []},
                'pose': _pose(record.ego2global),
            }
        }
        for name, camera in record.cameras.items():
            sensors[name] = {
                'filename': camera.img_path,
                'calib': {**_pose(camera.cam2ego), 'camera_intrinsic': camera.cam2img.tolist()},
                'pose': _pose(camera.ego2global),
            }
        scene = infos.setdefault(record.scene_token, [])
        metadata.append((record.scene_token, len(scene)))
        scene.append(
            {
                'token': record.token,
                'scene_token': record.scene_token,
                'timestamp': round(record.timestamp * 1e6),
                'occ_path': f'./data/{SURROUNDOCC}/samples/{surroundocc_label_path(record)}',
                'data': sensors,
            }
        )
    return {'infos': infos, 'metadata': metadata}


def bevdet_infos(frames: list[Frame]) -> dict[str, Any]:
    """The pickle style of BEVDet and RenderOcc, used with Occ3D."""
    infos = []
    for frame in frames:
        record, boxes = frame.record, frame.record.boxes
        lidar2ego, ego2global = _pose(record.lidar2ego), _pose(record.ego2global)
        cams = {}
        for name, camera in record.cameras.items():
            cam2ego, at_camera = _pose(camera.cam2ego), _pose(camera.ego2global)
            cam2lidar = np.linalg.inv(camera.lidar2cam)
            cams[name] = {
                'data_path': f'./data/{NUSCENES}/{camera.img_path}',
                'type': name,
                'sample_data_token': camera.sample_data_token,
                'timestamp': round(camera.timestamp * 1e6),
                'sensor2ego_translation': cam2ego['translation'],
                'sensor2ego_rotation': cam2ego['rotation'],
                'ego2global_translation': at_camera['translation'],
                'ego2global_rotation': at_camera['rotation'],
                'sensor2lidar_rotation': cam2lidar[:3, :3],
                'sensor2lidar_translation': cam2lidar[:3, 3],
                'cam_intrinsic': camera.cam2img,
            }
        categories = [CATEGORIES.index(name) for name in boxes.names]
        infos.append(
            {
                'token': record.token,
                'scene_name': record.scene_name,
                'scene_token': record.scene_token,
                'frame_idx': record.frame_idx,
                'timestamp': round(record.timestamp * 1e6),
                'lidar_path': f'./data/{NUSCENES}/{record.lidar_path}',
                'occ_path': f'./data/{NUSCENES}/gts/{record.scene_name}/{record.token}',
                'lidar2ego_translation': lidar2ego['translation'],
                'lidar2ego_rotation': lidar2ego['rotation'],
                'ego2global_translation': ego2global['translation'],
                'ego2global_rotation': ego2global['rotation'],
                'cams': cams,
                'sweeps': [],
                'gt_boxes': boxes.boxes,
                'gt_names': np.array(boxes.names),
                'gt_velocity': frame.record.boxes.velocities,
                'num_lidar_pts': boxes.num_lidar_pts,
                'num_radar_pts': np.zeros_like(boxes.num_lidar_pts),
                'valid_flag': boxes.num_lidar_pts > 0,
                'ann_infos': (_ego_boxes(frame), categories),
            }
        )
    return {'infos': infos, 'metadata': {'version': VERSION}}


def _ego_boxes(frame: Frame) -> list[list[float]]:
    """Boxes in the ego frame: x, y, z, l, w, h, yaw, vx, vy."""
    rotation, translation = frame.record.lidar2ego[:3, :3], frame.record.lidar2ego[:3, 3]
    yaw = np.arctan2(rotation[1, 0], rotation[0, 0])
    rows = []
    for box, velocity in zip(frame.record.boxes.boxes, frame.record.boxes.velocities):
        centre = rotation @ box[:3] + translation
        rows.append([*centre.tolist(), *box[3:6].tolist(), float(box[6] + yaw), *(rotation[:2, :2] @ velocity).tolist()])
    return rows


def write_pickle(path: Path, content: Any) -> None:
    """Writes a pickle that appears only when complete."""
    write_atomically(path, lambda file: pickle.dump(content, file, protocol=4))
