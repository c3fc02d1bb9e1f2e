"""Writes annotation files in the project's own format, a superset of mmdetection3d's v2 info files."""

import os
import pickle
from collections.abc import Iterable
from typing import Any

import numpy as np

from projects.occ.atomic_write import write_atomically
from projects.occ.structures.frame_record import LABEL_PATHS, CameraRecord, FrameRecord

INFO_VERSION = 'occ-1.0'
# Detection categories in the order of mmdetection3d's nuScenes files.
CATEGORIES = (
    'car',
    'truck',
    'trailer',
    'bus',
    'construction_vehicle',
    'bicycle',
    'motorcycle',
    'pedestrian',
    'traffic_cone',
    'barrier',
)


def record_to_info(record: FrameRecord, sample_idx: int) -> dict[str, Any]:
    """One entry of ``data_list``: nested lists of Python floats, so that float64 survives and any numpy reads it."""
    images = {}
    for name, camera in record.cameras.items():
        images[name] = {
            'img_path': _path_in_file(camera.img_path, name),
            'cam2img': camera.cam2img.tolist(),
            'lidar2cam': camera.lidar2cam.tolist(),
            'sample_data_token': camera.sample_data_token,
            'timestamp': camera.timestamp,
        }
        for key in ('cam2ego', 'ego2global'):
            matrix = getattr(camera, key)
            if matrix is not None:
                images[name][key] = matrix.tolist()
        images[name].update(_size(camera))
    return {
        'sample_idx': sample_idx,
        'token': record.token,
        'timestamp': record.timestamp,
        'scene_name': record.scene_name,
        'scene_token': record.scene_token,
        'frame_idx': record.frame_idx,
        'prev': record.prev,
        'next': record.next,
        'ego2global': record.ego2global.tolist(),
        'images': images,
        'lidar_points': {
            'lidar_path': _path_in_file(record.lidar_path, 'LIDAR_TOP'),
            'num_pts_feats': 5,
            'lidar2ego': record.lidar2ego.tolist(),
        },
        'instances': _instances(record),
        **{f'{name}_path': path(record) for name, path in LABEL_PATHS.items()},
        **({'label_path': record.label_path} if record.label_path else {}),
        **({'camera_sweeps': _sweeps(record)} if record.sweeps else {}),
        # mmdetection3d has this key only where there are point classes
        **({'pts_semantic_mask_path': os.path.basename(record.lidarseg_path)} if record.lidarseg_path else {}),
        **({'sort_key': record.sort_key} if record.sort_key else {}),
    }


def _sweeps(record: FrameRecord) -> dict[str, dict[int, dict[str, Any]]]:
    """Camera name -> offset -> image; matrices that are those of the key frame's image are left out."""
    sweeps: dict[str, dict[int, dict[str, Any]]] = {}
    for offset, cameras in record.sweeps.items():
        for name, camera in cameras.items():
            sweeps.setdefault(name, {})[offset] = _sweep(camera, record.cameras[name])
    return sweeps


def _sweep(camera: CameraRecord, key: CameraRecord) -> dict[str, Any]:
    image: dict[str, Any] = {
        'img_path': camera.img_path,
        'timestamp': camera.timestamp,
        'sample_data_token': camera.sample_data_token,
    }
    if camera.image_wh != key.image_wh:
        image.update(_size(camera))
    if camera.ego2global is None or camera.cam2ego is None:
        image['lidar2cam'] = camera.lidar2cam.tolist()
    else:
        image['ego2global'] = camera.ego2global.tolist()
    for field in ('cam2img', 'cam2ego'):
        matrix, usual = getattr(camera, field), getattr(key, field)
        if matrix is not None and (usual is None or not np.array_equal(matrix, usual)):
            image[field] = matrix.tolist()
    return image


def _size(camera: CameraRecord) -> dict[str, int]:
    """As mmdetection3d's files of KITTI have it."""
    return {} if camera.image_wh is None else {'width': int(camera.image_wh[0]), 'height': int(camera.image_wh[1])}


def _path_in_file(path: str, sensor: str) -> str:
    """The name alone, as in mmdetection3d's files, of what lies in ``samples/<sensor>/``; else the whole path."""
    name = path.removeprefix(f'samples/{sensor}/')
    return path if '/' in name else name


def write_info_file(path: str, records: Iterable[FrameRecord], version: str, dataset: str = 'nuscenes') -> None:
    """Writes an annotation file that this project and mmdetection3d 1.x read.

    The file appears under its name only when it is complete.

    Args:
        path: The pickle to write; its folder is made.
        records: Frames. Paths of images and LiDAR files are read as they are, but for a name without a folder, which means
            ``samples/<sensor>/<name>``, and for what stands before a ``samples`` or ``sweeps``, which is cut off.
        version: nuScenes version, e.g. ``'v1.0-trainval'``.
        dataset: Name of the data set.
    """
    content = {
        'metainfo': {
            'categories': {name: index for index, name in enumerate(CATEGORIES)},
            'dataset': dataset,
            'version': version,
            'info_version': INFO_VERSION,
        },
        'data_list': [record_to_info(record, index) for index, record in enumerate(records)],
    }
    write_atomically(path, lambda file: pickle.dump(content, file, protocol=4))


def _instances(record: FrameRecord) -> list[dict[str, Any]]:
    if record.boxes is None:
        return []
    ids = {name: index for index, name in enumerate(CATEGORIES)}
    boxes = record.boxes
    counts: np.ndarray | None = boxes.num_lidar_pts
    instances = []
    for index, (box, name) in enumerate(zip(boxes.boxes, boxes.names)):
        label = ids.get(name, -1)
        instance = {
            'bbox_3d': box.tolist(),
            'bbox_label': label,
            'bbox_label_3d': label,
            'bbox_3d_isvalid': counts is None or bool(counts[index] > 0),
            'num_lidar_pts': -1 if counts is None else int(counts[index]),
        }
        if boxes.velocities is not None:
            instance['velocity'] = boxes.velocities[index].tolist()
        if boxes.instance_tokens is not None:
            instance['instance_token'] = boxes.instance_tokens[index]
        instances.append(instance)
    return instances
