"""Key frames from the tables of a raw nuScenes download, read by the official devkit."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from mmengine.logging import print_log
from tqdm import tqdm

from projects.occ.datasets.nuscenes_occ_dataset import NUSCENES_CAMERAS
from projects.occ.structures.frame_record import BoxRecord, CameraRecord, FrameRecord, rigid

LIDAR = 'LIDAR_TOP'
DOC = 'docs/datasets.md, "From the raw downloads"'
# Category of the annotations -> detection class; others (strollers, debris, animals, ...) keep their long name.
DETECTION_NAMES = {
    'movable_object.barrier': 'barrier',
    'vehicle.bicycle': 'bicycle',
    'vehicle.bus.bendy': 'bus',
    'vehicle.bus.rigid': 'bus',
    'vehicle.car': 'car',
    'vehicle.construction': 'construction_vehicle',
    'vehicle.motorcycle': 'motorcycle',
    'human.pedestrian.adult': 'pedestrian',
    'human.pedestrian.child': 'pedestrian',
    'human.pedestrian.construction_worker': 'pedestrian',
    'human.pedestrian.police_officer': 'pedestrian',
    'movable_object.trafficcone': 'traffic_cone',
    'vehicle.trailer': 'trailer',
    'vehicle.truck': 'truck',
}
# tables of files that labels do not need
POINT_TABLES = ('lidarseg', 'panoptic')
SPLITS_FILE = 'splits.json'


def load_tables(root: str | Path, version: str):
    """Opens the tables ``<root>/<version>/*.json``.

    Args:
        root: The nuScenes folder.
        version: ``'v1.0-trainval'``, ``'v1.0-mini'`` or another folder of tables.

    Returns:
        The devkit's ``NuScenes``.

    Raises:
        FileNotFoundError: If there are no such tables, or a file that they need is missing.
        ValueError: If a table is damaged or incomplete.
    """
    # not needed by anything but preparation, and slow to import
    from nuscenes import NuScenes

    root = Path(root)
    if not (root / version).is_dir():
        found = sorted(folder.parent.name for folder in root.glob('*/sample.json'))
        raise FileNotFoundError(
            f"'{root / version}' does not exist, so there are no nuScenes tables; tables found below '{root}': "
            f'{", ".join(found) or "none"}. Unpack the metadata of nuscenes.org there, or give --nuscenes and --version ({DOC})'
        )
    try:
        # the devkit insists on all point classes that a table names, which labels do not need: it does not see those tables
        with TemporaryDirectory() as folder:
            view = Path(folder)
            (view / version).mkdir(parents=True)
            for path in (root / version).iterdir():
                if path.stem not in POINT_TABLES:
                    (view / version / path.name).symlink_to(path.resolve())
            if (root / 'maps').exists():
                (view / 'maps').symlink_to((root / 'maps').resolve())
            tables = NuScenes(version=version, dataroot=str(view), verbose=False)
        tables.dataroot = str(root)
        tables.lidarseg = _point_classes(root, version)
        tables.table_names += ['lidarseg'] if (root / version / 'lidarseg.json').is_file() else []
        return tables
    except FileNotFoundError as error:
        name = Path(str(error.filename)).name
        raise FileNotFoundError(
            f'nuScenes tables need the file {root / version / name}; unpack the metadata again ({DOC})'
        ) from None
    except ValueError as error:
        raise ValueError(f"a table in '{root / version}' is cut short ({error}); unpack the metadata again ({DOC})") from None
    except (AssertionError, KeyError, IndexError, TypeError, AttributeError) as error:
        # the devkit asserts that map pictures are there; a KeyError is a token of another table, the others come of tables
        # without rows or of something else than rows
        raise ValueError(
            f"the tables in '{root / version}' are incomplete ({type(error).__name__}: {error}); maps/ is part of them ({DOC})"
        ) from None


def _point_classes(root: Path, version: str) -> list[dict]:
    """Rows of the table ``lidarseg`` whose files are there."""
    path = root / version / 'lidarseg.json'
    if not path.is_file():
        return []
    there = {file.name for file in (root / 'lidarseg' / version).glob('*.bin')}
    rows = json.loads(path.read_text())
    found = [row for row in rows if Path(row['filename']).name in there]
    if len(found) < len(rows):
        print_log(
            f'{path}: {len(rows) - len(found)} of {len(rows)} files of point classes are not below {root / "lidarseg"}; labels '
            'do not need them, the annotation files name the others alone',
            logger='current',
            level=logging.WARNING,
        )
    return found


def split_scenes(tables, labelled: bool = True) -> dict[str, list[str]]:
    """Scene names by split.

    The official splits: ``train`` and ``val``, for v1.0-mini ``mini_train`` and ``mini_val``. A file ``splits.json`` beside the
    tables (split -> list of scene names, as the devkit reads for splits of one's own) replaces them.

    Args:
        tables: The devkit's ``NuScenes``.
        labelled: Splits that have labels; False also knows v1.0-test.

    Raises:
        ValueError: If a version has no official splits with labels and no ``splits.json``, or that file is damaged.
    """
    from nuscenes.utils.splits import create_splits_scenes

    own = Path(tables.dataroot) / tables.version / SPLITS_FILE
    if own.is_file():
        return _read_splits(own)
    names = {'v1.0-trainval': ('train', 'val'), 'v1.0-mini': ('mini_train', 'mini_val')}.get(tables.version)
    if not labelled and tables.version == 'v1.0-test':
        names = ('test',)
    if names is None:
        raise ValueError(
            f"version '{tables.version}' has no official train and val scenes; write '{own}', a JSON object with a list of "
            f'scene names per split ({DOC})'
        )
    official = create_splits_scenes()
    return {split: official[split] for split in names}


def _read_splits(path: Path) -> dict[str, list[str]]:
    try:
        splits = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"'{path}' is cut short or no JSON ({error}); write it again, or remove it ({DOC})") from None
    named = isinstance(splits, dict) and all(isinstance(names, list) for names in splits.values())
    if not named or not all(isinstance(name, str) for names in splits.values() for name in names):
        raise ValueError(f"'{path}': expected a JSON object with a list of scene names per split, found {str(splits)[:80]}")
    return splits


def read_records(tables, scene_names: Iterable[str], camera_sweeps: int = 0) -> list[FrameRecord]:
    """Key frames of some scenes, in the order of the table ``sample`` (that of BEVDet's annotation files).

    Matrices are float64 products of the tables' quaternions and translations. Boxes are all annotations, with
    ``DETECTION_NAMES`` where there is one.

    Args:
        tables: The devkit's ``NuScenes``.
        scene_names: Scenes; those that the tables lack are left out.
        camera_sweeps: How many images before and after that of the key frame each camera's ``sweeps`` hold.

    Raises:
        ValueError: If a key frame lacks the LiDAR or a camera, or the tables lack a row that another one names.
    """
    try:
        return _read_records(tables, scene_names, camera_sweeps)
    except KeyError as error:
        raise ValueError(
            f"the tables in '{Path(tables.dataroot) / tables.version}' are incomplete: nothing has the token or key {error}, "
            f'which a row of theirs names; unpack the metadata again ({DOC})'
        ) from None


def _read_records(tables, scene_names: Iterable[str], camera_sweeps: int) -> list[FrameRecord]:
    wanted = set(scene_names)
    scenes = {scene['token']: scene for scene in tables.scene if scene['name'] in wanted}
    positions: dict[str, int] = {}
    for scene in scenes.values():
        token, position = scene['first_sample_token'], 0
        while token:
            positions[token] = position
            token, position = tables.get('sample', token)['next'], position + 1
    point_classes = {row['sample_data_token']: row['filename'] for row in getattr(tables, 'lidarseg', [])}
    samples = [sample for sample in tables.sample if sample['scene_token'] in scenes]
    records = []
    for sample in tqdm(samples, desc='reading tables', unit='frame', leave=False):
        scene, position = scenes[sample['scene_token']]['name'], positions.get(sample['token'], -1)
        record = _record(tables, sample, scene, position, point_classes)
        record.sweeps = _sweeps(tables, sample, record, camera_sweeps)
        records.append(record)
    return records


def _record(tables, sample: dict, scene_name: str, position: int, point_classes: dict[str, str]) -> FrameRecord:
    missing = [sensor for sensor in (LIDAR, *NUSCENES_CAMERAS) if sensor not in sample['data']]
    if missing:
        raise ValueError(
            f'key frame {sample["token"]} of {scene_name} has no {", ".join(missing)} in the table sample_data; unpack the '
            f'metadata again ({DOC})'
        )
    lidar = tables.get('sample_data', sample['data'][LIDAR])
    lidar2ego, ego2global = _mounting(tables, lidar), _ego_pose(tables, lidar)
    lidar2global = ego2global @ lidar2ego
    cameras = {
        name: _camera(tables, tables.get('sample_data', sample['data'][name]), lidar2global) for name in NUSCENES_CAMERAS
    }
    return FrameRecord(
        token=sample['token'],
        timestamp=sample['timestamp'] / 1e6,
        lidar_path=lidar['filename'],
        lidar2ego=lidar2ego,
        ego2global=ego2global,
        cameras=cameras,
        scene_name=scene_name,
        scene_token=sample['scene_token'],
        frame_idx=position,
        prev=sample['prev'],
        next=sample['next'],
        lidarseg_path=point_classes.get(lidar['token'], ''),
        boxes=_boxes(tables, sample, np.linalg.inv(lidar2global)),
    )


def _camera(tables, data: dict, lidar2global: np.ndarray) -> CameraRecord:
    cam2ego, at_camera = _mounting(tables, data), _ego_pose(tables, data)
    calibration = tables.get('calibrated_sensor', data['calibrated_sensor_token'])
    return CameraRecord(
        img_path=data['filename'],
        cam2img=np.array(calibration['camera_intrinsic'], dtype=np.float64),
        lidar2cam=np.linalg.inv(at_camera @ cam2ego) @ lidar2global,
        cam2ego=cam2ego,
        ego2global=at_camera,
        timestamp=data['timestamp'] / 1e6,
        sample_data_token=data['token'],
        image_wh=(data['width'], data['height']) if data.get('width') and data.get('height') else None,
    )


def _sweeps(tables, sample: dict, record: FrameRecord, count: int) -> dict[int, dict[str, CameraRecord]]:
    """The ``count`` images of each camera before and after that of the key frame, as far as the scene goes."""
    sweeps: dict[int, dict[str, CameraRecord]] = {}
    lidar2global = record.ego2global @ record.lidar2ego
    for name in NUSCENES_CAMERAS:
        for direction, sign in (('prev', -1), ('next', 1)):
            data = tables.get('sample_data', sample['data'][name])
            for step in range(1, count + 1):
                if not data[direction]:
                    break
                data = tables.get('sample_data', data[direction])
                sweeps.setdefault(sign * step, {})[name] = _camera(tables, data, lidar2global)
    return sweeps


def _mounting(tables, data: dict) -> np.ndarray:
    calibration = tables.get('calibrated_sensor', data['calibrated_sensor_token'])
    return rigid(calibration['rotation'], calibration['translation'])


def _ego_pose(tables, data: dict) -> np.ndarray:
    pose = tables.get('ego_pose', data['ego_pose_token'])
    return rigid(pose['rotation'], pose['translation'])


def _boxes(tables, sample: dict, global2lidar: np.ndarray) -> BoxRecord:
    rows, names, counts, velocities, instances = [], [], [], [], []
    for token in sample['anns']:
        annotation = tables.get('sample_annotation', token)
        box2lidar = global2lidar @ rigid(annotation['rotation'], annotation['translation'])
        width, length, height = annotation['size']
        rows.append([*box2lidar[:3, 3], length, width, height, np.arctan2(box2lidar[1, 0], box2lidar[0, 0])])
        names.append(DETECTION_NAMES.get(annotation['category_name'], annotation['category_name']))
        counts.append(annotation['num_lidar_pts'])
        velocities.append((global2lidar[:3, :3] @ tables.box_velocity(token))[:2])
        instances.append(annotation['instance_token'])
    return BoxRecord(
        boxes=np.array(rows, dtype=np.float64).reshape(-1, 7),
        names=names,
        num_lidar_pts=np.array(counts, dtype=np.int64),
        velocities=np.array(velocities, dtype=np.float64).reshape(-1, 2),
        instance_tokens=instances,
    )
