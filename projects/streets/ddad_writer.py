"""Generates drives in the on-disk layout of DDAD: six cameras at 10 Hz, LiDAR clouds, own-car masks, class maps of images."""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from projects.occ.atomic_write import write_atomically
from projects.occ.datasets.dgp_scenes import DDAD_FILE, LIDAR, SPLIT_KEYS
from projects.occ.datasets.transforms.pseudo_labels import IGNORE

from .class_maps import painted_classes
from .config import SyntheticConfig
from .scene import scene_rng
from .sensors import Camera, View, draw_rig, render, scan
from .world import World

DDAD = 'ddad'
MASKS, CLASSES = 'mask', 'ddad_semantic'
# names of DDAD's cameras in the places of nuScenes' ones
_NAMES = {
    'CAM_FRONT': 'CAMERA_01',
    'CAM_FRONT_LEFT': 'CAMERA_05',
    'CAM_BACK_LEFT': 'CAMERA_07',
    'CAM_BACK': 'CAMERA_09',
    'CAM_BACK_RIGHT': 'CAMERA_08',
    'CAM_FRONT_RIGHT': 'CAMERA_06',
}
_FIRST_VAL_SCENE = 150
_STEP = 0.1  # seconds between frames
_CAMERA_OFFSET = -0.009  # all cameras at once, before the LiDAR
# streams of random numbers of a scene, apart from those of other formats
_RIG, _CAMERA, _LIDAR = 15, 16, 17


def scene_folder(config: SyntheticConfig, index: int) -> str:
    """Six digits of a scene: training ones from 000000, validation ones from 000150, as in DDAD."""
    train = index < config.scenes_train
    return f'{index if train else _FIRST_VAL_SCENE + index - config.scenes_train:06d}'


def write_ddad_file(root: Path, scenes: Mapping[str, Sequence[str]]) -> None:
    """Writes ``ddad.json``: split -> scene files as :func:`write_ddad_scene` returned them."""
    content = {
        'metadata': {'name': 'generated streets', 'version': '1', 'origin': 'INTERNAL'},
        'scene_splits': {SPLIT_KEYS[split]: {'filenames': list(names)} for split, names in scenes.items()},
    }
    _write_json(root / DDAD_FILE, content)


def write_ddad_scene(config: SyntheticConfig, index: int, root: Path, frame_done: Callable[[], Any]) -> str:
    """Generates one scene.

    Args:
        config: Image size, number of frames, light and seed; its label grid decides how far the world reaches.
        index: Number of the scene.
        root: Folder of ``ddad.json``; masks and class maps of images go to ``mask`` and ``ddad_semantic`` in it.
        frame_done: Called after every frame.

    Returns:
        The scene's file relative to the root.
    """
    world = World(config, index)
    rig = draw_rig(config, scene_rng(config, index, _RIG))
    order = {name: number for number, name in enumerate(_NAMES.values())}
    cameras = [replace(camera, name=_NAMES[camera.name], offset=_CAMERA_OFFSET) for camera in rig.cameras]
    cameras.sort(key=lambda camera: order[camera.name])
    name = scene_folder(config, index)
    folder = root / name
    masks = {camera.name: _own_car(config.image_size, camera) for camera in cameras}
    for camera, mask in masks.items():
        _write_image(root / MASKS / camera / name / 'mask.png', mask.astype(np.uint8) * 255)
    calibration = _calibration(cameras)
    key = _sha(json.dumps(calibration))
    _write_json(folder / 'calibration' / f'{key}.json', calibration)
    start = 1_600_000_000_000_000 + index * 3_600_000_000
    data, samples = [], []
    for frame in range(config.frames):
        time = frame * _STEP
        stamp = start + round(time * 1e6)
        shutter = stamp + round(_CAMERA_OFFSET * 1e6)
        entries = []
        for number, camera in enumerate(cameras):
            moment = max(time + camera.offset, 0.0)
            pose = world.ego_pose(moment)
            rng = scene_rng(config, index, _CAMERA, frame, number)
            view = render(world, camera, pose, world.objects_at(moment), rng)
            _write_view(root, name, camera.name, str(shutter), view, masks[camera.name], rng)
            to_world = world.scene.to_global @ pose @ camera.cam2ego
            image = {
                'filename': f'rgb/{camera.name}/{shutter}.png',
                'height': config.image_size[1],
                'width': config.image_size[0],
                'pose': _pose(to_world),
            }
            entries.append((camera.name, shutter, {'image': image}))
        pose = world.ego_pose(time)
        sweep = scan(world, pose @ rig.lidar2ego, world.objects_at(time), scene_rng(config, index, _LIDAR, frame))
        # in the vehicle's coordinates, as there
        points = sweep.points[:, :3].astype(np.float64) @ rig.lidar2ego[:3, :3].T + rig.lidar2ego[:3, 3]
        cloud = np.c_[points, sweep.points[:, 3]]
        _write_archive(folder / 'point_cloud' / LIDAR / f'{stamp}.npz', cloud)
        point_cloud = {
            'filename': f'point_cloud/{LIDAR}/{stamp}.npz',
            'point_format': ['X', 'Y', 'Z', 'INTENSITY'],
            'pose': _pose(world.scene.to_global @ pose),
        }
        entries.append((LIDAR, stamp, {'point_cloud': point_cloud}))
        keys = [_sha(f'{name}/{frame}/{sensor}') for sensor, _, _ in entries]
        for datum_key, (sensor, moment, datum) in zip(keys, entries):
            identity = {'name': sensor, 'timestamp': _date(moment), 'index': str(frame), 'log': ''}
            data.append({'key': datum_key, 'id': identity, 'datum': datum, 'next_key': '', 'prev_key': ''})
        identity = {'index': str(frame), 'log': '', 'name': '', 'timestamp': _date(stamp)}
        samples.append({'calibration_key': key, 'datum_keys': keys, 'id': identity, 'metadata': {}})
        frame_done()
    scene = {'name': name, 'description': 'generated street', 'log': '', 'data': data, 'samples': samples, 'metadata': {}}
    file = f'{name}/scene_{_sha(json.dumps(scene))}.json'
    _write_json(root / file, scene)
    return file


def _own_car(size: tuple[int, int], camera: Camera) -> np.ndarray:
    """(H, W) bool, part of the vehicle at the lower edge of the image: higher the more the camera looks along it."""
    width, height = size
    along = abs(float(camera.cam2ego[0, 2]))
    u, v = np.meshgrid((np.arange(width) + 0.5) / width - 0.5, (np.arange(height) + 0.5) / height)
    return v > 1 - (0.04 + 0.08 * along) * (1 - (u / 0.6) ** 2).clip(0)


def _write_view(root: Path, scene: str, camera: str, image: str, view: View, car: np.ndarray, rng: np.random.Generator) -> None:
    picture = np.where(car[..., None], (0.3 * view.image + [20, 24, 30]).astype(np.uint8), view.image)
    _write_image(root / scene / 'rgb' / camera / f'{image}.png', np.ascontiguousarray(picture[..., ::-1]))
    stored = np.where(car, np.int8(IGNORE), painted_classes(view.class_map, rng))
    path = root / CLASSES / scene / camera / f'{image}_mask.bin'
    write_atomically(path, lambda file: file.write(stored.tobytes()))


def _calibration(cameras: list[Camera]) -> dict[str, list[Any]]:
    rows = [(LIDAR, np.zeros((3, 3)), np.eye(4)), *((camera.name, camera.cam2img, camera.cam2ego) for camera in cameras)]
    keys = dict(fx=(0, 0), fy=(1, 1), cx=(0, 2), cy=(1, 2), skew=(0, 1))
    return {
        'names': [name for name, _, _ in rows],
        'intrinsics': [{key: float(matrix[place]) for key, place in keys.items()} for _, matrix, _ in rows],
        'extrinsics': [_pose(matrix) for _, _, matrix in rows],
    }


def _pose(matrix: np.ndarray) -> dict[str, dict[str, float]]:
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat().tolist()
    return {
        'rotation': {'qw': w, 'qx': x, 'qy': y, 'qz': z},
        'translation': dict(zip('xyz', matrix[:3, 3].tolist())),
    }


def _date(stamp: int) -> str:
    return datetime.fromtimestamp(stamp / 1e6, timezone.utc).strftime('%Y-%m-%dT%H:%M:%S.%fZ')


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, lambda file: file.write((json.dumps(content, indent=1) + '\n').encode()))


def _write_image(path: Path, image: np.ndarray) -> None:
    _, encoded = cv2.imencode('.png', image)
    write_atomically(path, lambda file: file.write(encoded.tobytes()))


def _write_archive(path: Path, points: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, data=points)
    write_atomically(path, lambda file: file.write(buffer.getvalue()))
