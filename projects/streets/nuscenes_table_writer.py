"""Writes the tables of a raw nuScenes release for frames that are already known, so that everything that reads tables can."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from projects.occ.atomic_write import write_atomically
from projects.occ.datasets.point_classes import RAW_NAMES
from projects.occ.structures.frame_record import FrameRecord
from projects.preparation.nuscenes_tables import DETECTION_NAMES, LIDAR, SPLITS_FILE

# Detection class -> one category that has it.
_CATEGORY = {name: category for category, name in reversed(DETECTION_NAMES.items())}


def write_nuscenes_tables(
    root: str | Path, splits: Mapping[str, Sequence[FrameRecord]], version: str, image_wh: tuple[int, int]
) -> None:
    """Writes ``<root>/<version>/*.json`` in the schema of nuScenes v1.0, with a ``splits.json`` for the devkit.

    The scenes' maps are one white pixel: the devkit wants the picture to exist. Objects without a name across frames become
    an object per frame. Attributes and RADAR points are left out.

    Args:
        root: Folder that holds ``samples``.
        splits: Split -> its frames, in time order within a scene, every camera with ``cam2ego`` and ``ego2global``.
        version: Name of the folder.
        image_wh: Width and height of the images, pixels.

    Raises:
        ValueError: If a frame lacks something that the tables hold.
    """
    root = Path(root)
    tables = _Tables(image_wh)
    scenes: dict[str, list[str]] = {}
    for split, records in splits.items():
        for record in records:
            tables.add_frame(record)
        scenes[split] = list(dict.fromkeys(record.scene_name for record in records))
    for name, rows in tables.finish().items():
        _write_json(root / version / f'{name}.json', rows)
    _write_json(root / version / SPLITS_FILE, scenes)
    pixel = cv2.imencode('.png', np.full((1, 1), 255, dtype=np.uint8))[1].tobytes()
    write_atomically(root / 'maps' / f'{tables.map_token}.png', lambda file: file.write(pixel))


class _Tables:
    """Collects the rows of all tables."""

    def __init__(self, image_wh: tuple[int, int]) -> None:
        self.image_wh = image_wh
        self.map_token = _token('map')
        self.rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.seen: set[str] = set()
        self.scenes: dict[str, dict[str, Any]] = {}
        self.last_annotation: dict[str, dict[str, Any]] = {}
        self.annotations_of: dict[str, list[str]] = defaultdict(list)

    def add_frame(self, record: FrameRecord) -> None:
        for key in ('token', 'scene_name', 'scene_token'):
            if not getattr(record, key):
                raise ValueError(f'frame {record.token}: tables need {key}, which the annotation file lacks')
        log = _token('log', record.scene_token)
        if self._new(record.scene_token):
            scene = dict(token=record.scene_token, log_token=log, nbr_samples=0, first_sample_token=record.token)
            scene.update(name=record.scene_name, description='')
            self.scenes[record.scene_token] = scene
            self.rows['scene'].append(scene)
            name = Path(record.lidar_path).name.split('__')[0]
            row = dict(token=log, logfile=name, vehicle='', date_captured='', location='')
            self.rows['log'].append(row)
        scene = self.scenes[record.scene_token]
        scene.update(nbr_samples=scene['nbr_samples'] + 1, last_sample_token=record.token)
        stamp = _microseconds(record.timestamp)
        sample = dict(token=record.token, timestamp=stamp, prev=record.prev, next=record.next, scene_token=record.scene_token)
        self.rows['sample'].append(sample)
        lidar = _token(record.token, LIDAR)
        self._add_data(record, LIDAR, lidar, record.lidar_path, stamp, record.lidar2ego, record.ego2global, None)
        if record.lidarseg_path:
            self.rows['lidarseg'].append(dict(token=lidar, sample_data_token=lidar, filename=record.lidarseg_path))
        for name, camera in record.cameras.items():
            if camera.cam2ego is None or camera.ego2global is None:
                raise ValueError(f'frame {record.token}: tables need cam2ego and ego2global of {name}')
            moment = stamp if camera.timestamp is None else _microseconds(camera.timestamp)
            token = camera.sample_data_token or _token(record.token, name)
            self._add_data(record, name, token, camera.img_path, moment, camera.cam2ego, camera.ego2global, camera.cam2img)
        self._add_boxes(record)

    def finish(self) -> dict[str, list[dict[str, Any]]]:
        """All tables; call once."""
        rows = self.rows
        for index, name in enumerate(RAW_NAMES):
            rows['category'].append(dict(token=_token('category', name), name=name, description='', index=index))
        rows['visibility'] = [dict(token=str(i), level=f'v{20 * i}', description='') for i in range(1, 5)]
        logs = [log['token'] for log in rows['log']]
        rows['map'] = [
            dict(token=self.map_token, log_tokens=logs, category='semantic_prior', filename=f'maps/{self.map_token}.png')
        ]
        for instance, tokens in self.annotations_of.items():
            category = _token('category', self.last_annotation[instance].pop('category'))
            ends = dict(first_annotation_token=tokens[0], last_annotation_token=tokens[-1])
            self.rows['instance'].append(dict(token=instance, category_token=category, nbr_annotations=len(tokens), **ends))
        for name in ('attribute', 'instance', 'sample_annotation'):
            rows.setdefault(name, [])
        return dict(rows)

    def _new(self, token: str) -> bool:
        new = token not in self.seen
        self.seen.add(token)
        return new

    def _add_data(
        self,
        record: FrameRecord,
        channel: str,
        token: str,
        path: str,
        stamp: int,
        sensor2ego: np.ndarray,
        ego2global: np.ndarray,
        cam2img: np.ndarray | None,
    ) -> None:
        sensor = _token('sensor', channel)
        modality = 'lidar' if cam2img is None else 'camera'
        if self._new(sensor):
            self.rows['sensor'].append(dict(token=sensor, channel=channel, modality=modality))
        calibration = _token('calibration', record.scene_token, channel)
        if self._new(calibration):
            intrinsic = [] if cam2img is None else cam2img.tolist()
            row = dict(token=calibration, sensor_token=sensor, **_pose(sensor2ego), camera_intrinsic=intrinsic)
            self.rows['calibrated_sensor'].append(row)
        self.rows['ego_pose'].append(dict(token=token, timestamp=stamp, **_pose(ego2global)))
        width, height = (0, 0) if cam2img is None else self.image_wh
        neighbours = {key: _token(getattr(record, key), channel) if getattr(record, key) else '' for key in ('prev', 'next')}
        self.rows['sample_data'].append(
            dict(
                token=token,
                sample_token=record.token,
                ego_pose_token=token,
                calibrated_sensor_token=calibration,
                timestamp=stamp,
                fileformat='pcd' if cam2img is None else 'jpg',
                is_key_frame=True,
                height=height,
                width=width,
                filename=path,
                **neighbours,
            )
        )

    def _add_boxes(self, record: FrameRecord) -> None:
        boxes = record.boxes
        if boxes is None:
            return
        lidar2global = record.ego2global @ record.lidar2ego
        for number, (box, name) in enumerate(zip(boxes.boxes, boxes.names)):
            known = boxes.instance_tokens
            instance = known[number] if known else _token('instance', record.token, number)
            box2lidar = np.eye(4)
            box2lidar[:3, :3] = Rotation.from_euler('z', box[6]).as_matrix()
            box2lidar[:3, 3] = box[:3]
            annotation = dict(
                token=_token('annotation', record.token, instance),
                sample_token=record.token,
                instance_token=instance,
                visibility_token='4',
                attribute_tokens=[],
                **_pose(lidar2global @ box2lidar),
                size=[box[4], box[3], box[5]],
                prev='',
                next='',
                num_lidar_pts=0 if boxes.num_lidar_pts is None else int(boxes.num_lidar_pts[number]),
                num_radar_pts=0,
            )
            before = self.last_annotation.get(instance)
            if before is not None:
                before.pop('category')
                before['next'], annotation['prev'] = annotation['token'], before['token']
            self.rows['sample_annotation'].append(annotation)
            self.last_annotation[instance] = annotation
            annotation['category'] = _CATEGORY.get(name, name)
            self.annotations_of[instance].append(annotation['token'])


def _token(*parts: object) -> str:
    return hashlib.md5('/'.join(map(str, parts)).encode()).hexdigest()


def _microseconds(seconds: float) -> int:
    return round(seconds * 1e6)


def _pose(matrix: np.ndarray) -> dict[str, list[float]]:
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat().tolist()
    return dict(rotation=[w, x, y, z], translation=matrix[:3, 3].tolist())


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, lambda file: file.write(json.dumps(content, indent=0).encode()))
