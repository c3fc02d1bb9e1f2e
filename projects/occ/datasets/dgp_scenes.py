"""Reads scenes in the JSON format of DGP, in which DDAD is published; needs nothing but the standard library and numpy."""

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from mmengine.fileio import get, join_path

from projects.occ.structures.frame_record import CameraRecord, FrameRecord, rigid

SPLIT_KEYS = dict(train='0', val='1', test='2')
LIDAR = 'LIDAR'
DDAD_FILE = 'ddad.json'
# Around the vehicle: front, front left, back left, back, back right, front right.
DDAD_CAMERAS = ('CAMERA_01', 'CAMERA_05', 'CAMERA_07', 'CAMERA_09', 'CAMERA_08', 'CAMERA_06')


def read_dgp_json(path: str, what: str, backend_args: dict | None = None) -> dict[str, Any]:
    """Contents of a JSON file that holds an object.

    Args:
        path: The file.
        what: What it is, for messages.
        backend_args: Arguments of mmengine's file backend.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged.
    """
    try:
        data = get(path, backend_args=backend_args)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileNotFoundError(
            f'{what} \'{path}\' does not exist; check dataset.data_root (docs/datasets.md, "DDAD")'
        ) from None
    try:
        content = json.loads(data)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{what} '{path}' ({len(data)} bytes) is damaged or cut short: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{what} '{path}' must hold an object of DGP, got {type(content).__name__}")
    return content


def scene_files(dataset: Mapping[str, Any], split: str, path: str) -> list[str]:
    """Scene files of a split, relative to the folder of the data set file, in its order.

    Args:
        dataset: Contents of the data set file, ``ddad.json``.
        split: ``'train'``, ``'val'`` or ``'test'``.
        path: The data set file, for messages.

    Raises:
        ValueError: If the file has no such split.
    """
    try:
        names = dataset['scene_splits'][SPLIT_KEYS[split]]['filenames']
    except (KeyError, TypeError):
        raise ValueError(
            f"'{path}' has no scenes of the split {split!r} (scene_splits.{SPLIT_KEYS.get(split)}.filenames); splits are "
            f'{tuple(SPLIT_KEYS)}'
        ) from None
    return [str(name) for name in names]


def stamp_seconds(stamp: str) -> float:
    """Seconds since 1970 of a file name: 16 digits count microseconds, 17 digits tenths of them."""
    return int(stamp) / 10 ** (len(stamp) - 10)


def _pose(entry: Mapping[str, Any]) -> np.ndarray:
    rotation, shift = entry['rotation'], entry['translation']
    matrix = rigid([rotation[key] for key in ('qw', 'qx', 'qy', 'qz')], [shift[key] for key in 'xyz'])
    if not np.isfinite(matrix).all():
        raise ValueError('a pose holds numbers that are not finite')
    return matrix


def _calibration(content: Mapping[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Sensor -> intrinsics (3, 3) and sensor-to-vehicle matrix (4, 4)."""
    sensors = {}
    for name, inner, outer in zip(content['names'], content['intrinsics'], content['extrinsics'], strict=True):
        matrix = np.array(
            [[inner['fx'], inner['skew'], inner['cx']], [0, inner['fy'], inner['cy']], [0, 0, 1]], dtype=np.float64
        )
        sensors[name.upper()] = matrix, _pose(outer)
    return sensors


class SceneReader:
    """Frames of scenes.

    Args:
        root: Folder of the data set file; image and LiDAR paths of the frames are relative to it.
        cam_names: Cameras that every frame must have.
        backend_args: Arguments of mmengine's file backend.
    """

    def __init__(self, root: str, cam_names: Sequence[str], backend_args: dict | None = None) -> None:
        self.root = root
        self.cam_names = tuple(cam_names)
        self.backend_args = backend_args

    def read(self, scene_file: str) -> list[FrameRecord]:
        """Frames of one scene in the order of its samples.

        Args:
            scene_file: Path of the scene's JSON relative to the root.

        Returns:
            Frames whose tokens are ``<scene>_<number of the sample>``. The reference frame ``ego`` is the vehicle (x ahead, y
            left, z up) when the LiDAR was read; cameras have the motion since then in ``lidar2cam``.

        Raises:
            FileNotFoundError: If the scene or its calibration is missing.
            ValueError: If one of them is damaged or lacks something; the message names the scene, the sample and the sensor.
        """
        path = join_path(self.root, scene_file)
        scene = read_dgp_json(path, 'scene', self.backend_args)
        folder = PurePosixPath(scene_file).parent
        try:
            data = {entry['key']: entry for entry in scene['data']}
            samples = list(scene['samples'])
        except (KeyError, TypeError) as error:
            raise ValueError(f"scene '{path}' lacks {error}; expected data and samples of DGP") from error
        calibrations: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
        records = []
        for number, sample in enumerate(samples):
            what = f"scene '{path}', sample {number}"
            key = str(sample.get('calibration_key', ''))
            if key not in calibrations:
                calibrations[key] = self._read_calibration(folder, key, what)
            records.append(self._frame(sample, data, calibrations[key], folder, number, what))
        for before, after in zip(records, records[1:]):
            before.next, after.prev = after.token, before.token
        return records

    def _read_calibration(self, folder: PurePosixPath, key: str, what: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        path = join_path(self.root, str(folder / 'calibration' / f'{key}.json'))
        content = read_dgp_json(path, f'{what}: its calibration', self.backend_args)
        try:
            return _calibration(content)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{what}: its calibration '{path}' is damaged ({type(error).__name__}: {error})") from error

    def _frame(
        self,
        sample: Mapping[str, Any],
        data: Mapping[str, Any],
        sensors: Mapping[str, tuple[np.ndarray, np.ndarray]],
        folder: PurePosixPath,
        number: int,
        what: str,
    ) -> FrameRecord:
        entries = {}
        for key in sample.get('datum_keys', ()):
            if key not in data:
                raise ValueError(f'{what}: there is no datum {key!r}, which it names')
            entries[str(data[key]['id']['name']).upper()] = data[key]['datum']
        missing = [name for name in (LIDAR, *self.cam_names) if name not in entries or name not in sensors]
        if missing:
            where = 'its data' if missing[0] not in entries else 'its calibration'
            raise ValueError(f'{what}: {missing[0]} is missing in {where}; found {sorted(entries)}')
        try:
            cloud = entries[LIDAR]['point_cloud']
            lidar2world, lidar2ego = _pose(cloud['pose']), sensors[LIDAR][1]
            record = FrameRecord(
                token=f'{folder.name}_{number:06d}',
                timestamp=stamp_seconds(PurePosixPath(cloud['filename']).stem),
                lidar_path=str(folder / cloud['filename']),
                lidar2ego=lidar2ego,
                ego2global=lidar2world @ np.linalg.inv(lidar2ego),
                scene_name=folder.name,
                scene_token=folder.name,
                frame_idx=number,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f'{what}, {LIDAR}: {type(error).__name__}: {error}') from error
        for name in self.cam_names:
            try:
                record.cameras[name] = _camera(entries[name]['image'], sensors[name], folder, lidar2world)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f'{what}, {name}: {type(error).__name__}: {error}') from error
        return record


def _camera(
    image: Mapping[str, Any], sensor: tuple[np.ndarray, np.ndarray], folder: PurePosixPath, lidar2world: np.ndarray
) -> CameraRecord:
    cam2img, cam2ego = sensor
    if min(cam2img[0, 0], cam2img[1, 1]) <= 0 or cam2img[0, 1]:
        raise ValueError(f'a camera needs positive focal lengths and no skew, got {cam2img.tolist()}')
    cam2world = _pose(image['pose'])
    return CameraRecord(
        img_path=str(folder / image['filename']),
        cam2img=cam2img,
        lidar2cam=np.linalg.inv(cam2world) @ lidar2world,
        cam2ego=cam2ego,
        ego2global=cam2world @ np.linalg.inv(cam2ego),
        timestamp=stamp_seconds(PurePosixPath(image['filename']).stem),
    )
