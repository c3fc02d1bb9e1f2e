"""Reads every annotation format in use for nuScenes occupancy into :class:`FrameRecord` s.

=====================  ===============================================================================================
name                   what tells it
=====================  ===============================================================================================
``occ-1.x``            our own: the next one plus scene names, frame numbers, label paths, per-camera ego poses, float64
``mmdet3d-v2``         ``metainfo`` + ``data_list``, file names without folders, 4x4 matrices as lists (float32-rounded)
``bevdet``             ``infos`` is a list, cameras have ``sensor2ego_*``: mmdetection3d 0.x, BEVDet, SurroundOcc's own
``sparseocc``          as ``bevdet`` but cameras have ``sensor2global_*`` instead, plus camera sweeps before the key frame
``gaussrender``        ``infos`` is a dict of scenes, ``metadata`` lists (scene token, index): GaussRender's SurroundOcc files
=====================  ===============================================================================================

Matrices stay float64. File paths become relative to the nuScenes root whatever folder they were written for. Camera sweeps
(the images between the key frames) are in ``occ-1.x`` files that were made with them, and in ``sparseocc``; neighbouring key
frames are found by ``prev`` and ``next`` or by scenes, see ``frame_neighbours.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from projects.occ.file_names import name_to_path
from projects.occ.structures.frame_record import LABEL_PATHS, CameraRecord, FrameRecord, rigid

from .info_boxes import boxes_from_instances, boxes_from_old_info, old_boxes_are_width_first
from .safe_pickle import load_numpy_pickle

DOC = 'docs/datasets.md, "Annotation files"'


@dataclass
class InfoFile:
    """Content of an annotation file.

    Attributes:
        format: Name of the format, see the module's table.
        records: Frames in the order of the file.
        metainfo: What the file says about itself (``version`` and the like).
    """

    format: str
    records: list[FrameRecord]
    metainfo: dict[str, Any] = field(default_factory=dict)


def read_info_file(
    path: str, with_boxes: bool = False, with_sweeps: bool = False, backend_args: dict | None = None
) -> InfoFile:
    """Reads an annotation pickle of any known format.

    Args:
        path: The pickle.
        with_boxes: Also read the 3D boxes where the format has them; camera models do not need them.
        with_sweeps: Also read the camera sweeps where the file has them.
        backend_args: Arguments of mmengine's file backend.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If it is unsafe, unreadable, of an unknown format, empty, or a frame lacks something.
    """
    content = load_numpy_pickle(path, backend_args)
    return parse_infos(content, origin=path, with_boxes=with_boxes, with_sweeps=with_sweeps)


def parse_infos(content: Any, origin: str = 'annotations', with_boxes: bool = False, with_sweeps: bool = False) -> InfoFile:
    """As :func:`read_info_file`, for content that is already in memory; ``origin`` names it in messages."""
    try:
        return _parse(content, origin, with_boxes, with_sweeps)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise ValueError(
            f'{origin}: not an annotation file of a known format ({type(error).__name__}: {error}); see {DOC}'
        ) from error


def _parse(content: Any, origin: str = 'annotations', with_boxes: bool = False, with_sweeps: bool = False) -> InfoFile:
    name = _detect_format(content, origin)
    if name == 'gaussrender':
        return _parse_gaussrender(content, origin)
    old = name in ('bevdet', 'sparseocc')
    frames, metainfo = (content['infos'], content.get('metadata')) if old else (content['data_list'], content['metainfo'])
    if len(frames) == 0:
        raise ValueError(f'{origin}: the file ({name} format) holds no frames')
    metainfo = dict(metainfo or {})
    width_first = old and with_boxes and old_boxes_are_width_first(frames)
    records = []
    for index, frame in enumerate(frames):
        with _FrameErrors(origin, name, index, frame):
            record = _parse_old_frame(frame) if old else _parse_v2_frame(frame, metainfo.get('version', ''))
            _check_names(record)
            if with_boxes and old:
                record.boxes = boxes_from_old_info(frame, width_first)
            elif with_boxes:
                record.boxes = boxes_from_instances(frame.get('instances', ()), metainfo.get('categories', {}))
            if with_sweeps:
                parse_sweeps = _parse_old_sweeps if old else _parse_v2_sweeps
                record.sweeps = parse_sweeps(frame, record)
            records.append(record)
    return InfoFile(name, records, metainfo)


def sensor_path(path: str, sensor: str) -> str:
    """Path relative to the nuScenes root.

    ``./data/nuscenes/samples/CAM_FRONT/x.jpg`` and the bare name ``x.jpg`` both become ``samples/CAM_FRONT/x.jpg``; a path
    without ``samples`` or ``sweeps`` in it stays as it is.
    """
    parts = [part for part in path.replace('\\', '/').split('/') if part not in ('', '.')]
    for start in range(len(parts) - 1, -1, -1):
        if parts[start] in ('samples', 'sweeps'):
            return '/'.join(parts[start:])
    if len(parts) == 1:
        return f'samples/{sensor}/{parts[0]}'
    return path


def _check_names(record: FrameRecord) -> None:
    """Files are called after tokens and scenes, which must not lead anywhere else."""
    for what, name in (('token', record.token), ('scene', record.scene_name or None)):
        if name is not None:
            if not isinstance(name, str):
                raise ValueError(f'the {what} must be a text, got {name!r:.40}')
            name_to_path(name, what)


class _FrameErrors:
    """Turns a missing key or a malformed matrix of one frame into one sentence that names the frame."""

    def __init__(self, origin: str, name: str, index: int, frame: Any) -> None:
        token = frame.get('token', '?') if isinstance(frame, Mapping) else '?'
        self.where = f'{origin} ({name} format), frame {index} (token {token})'

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, KeyError):
            raise ValueError(f'{self.where}: the key {error} is missing; see {DOC}') from error
        if isinstance(error, (ValueError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)):
            raise ValueError(f'{self.where}: {error}; see {DOC}') from error


def _detect_format(content: Any, origin: str) -> str:
    if isinstance(content, Mapping):
        if 'data_list' in content and isinstance(content.get('metainfo'), Mapping):
            version = str(content['metainfo'].get('info_version', ''))
            return version if version.startswith('occ-1') else 'mmdet3d-v2'
        infos = content.get('infos')
        if isinstance(infos, Mapping) and isinstance(content.get('metadata'), (list, tuple)):
            return 'gaussrender'
        if isinstance(infos, (list, tuple)):
            cams = next((info['cams'] for info in infos if isinstance(info, Mapping) and info.get('cams')), {})
            camera = next(iter(cams.values()), {})
            return 'sparseocc' if 'sensor2global_rotation' in camera and 'sensor2ego_rotation' not in camera else 'bevdet'
        found = f'a dict with the keys {sorted(map(str, content))[:8]}'
    else:
        found = f'a {type(content).__name__}'
    raise ValueError(
        f'{origin}: unknown annotation format: found {found}; expected a dict with metainfo + data_list (mmdetection3d 1.x or '
        'ours), with infos as a list (mmdetection3d 0.x, BEVDet, SparseOcc) or with infos per scene + metadata as a list '
        f'(GaussRender); see {DOC}'
    )


def _matrix(value: Any, rows: int, name: str) -> np.ndarray:
    matrix = np.asarray(value, dtype=np.float64)
    if matrix.shape != (rows, rows):
        raise ValueError(f'{name} must be a {rows}x{rows} matrix, got shape {matrix.shape}')
    return matrix


def _image_wh(image: Mapping) -> tuple[int, int] | None:
    width, height = image.get('width'), image.get('height')
    return (int(width), int(height)) if width and height else None


def _base_name(path: str) -> str:
    return path.replace('\\', '/').rsplit('/', 1)[-1]


def _occ3d_path(occ_path: Any, token: str) -> str:
    """``<scene>/<token>/labels.npz`` from the ``occ_path`` of BEVDet-style files, '' if it is something else."""
    if isinstance(occ_path, str):
        parts = [part for part in occ_path.replace('\\', '/').split('/') if part]
        if parts and parts[-1] == 'labels.npz':
            parts = parts[:-1]
        if len(parts) >= 2 and parts[-1] == token:
            return '/'.join([*parts[-2:], 'labels.npz'])
    return ''


def _with_label_path(record: FrameRecord, named: Sequence[str | None]) -> FrameRecord:
    """The record with the first of the named label paths that is not where a benchmark has it anyway."""
    usual = [path(record) for path in LABEL_PATHS.values()]
    record.label_path = next((path for path in named if path and path not in usual), '')
    return record


def _parse_v2_frame(info: Mapping, version: str) -> FrameRecord:
    cameras = {}
    for name, camera in info['images'].items():
        if 'lidar2cam' not in camera or 'cam2img' not in camera:
            continue  # mmdetection3d leaves entries of other data sets empty
        cameras[name] = CameraRecord(
            img_path=sensor_path(camera['img_path'], name),
            cam2img=_matrix(camera['cam2img'], 3, f'{name}.cam2img'),
            lidar2cam=_matrix(camera['lidar2cam'], 4, f'{name}.lidar2cam'),
            cam2ego=_matrix(camera['cam2ego'], 4, f'{name}.cam2ego') if 'cam2ego' in camera else None,
            ego2global=_matrix(camera['ego2global'], 4, f'{name}.ego2global') if 'ego2global' in camera else None,
            timestamp=camera.get('timestamp'),
            sample_data_token=camera.get('sample_data_token', ''),
            image_wh=_image_wh(camera),
        )
    scene_name, lidarseg = info.get('scene_name') or '', info.get('pts_semantic_mask_path')
    record = FrameRecord(
        token=info['token'],
        timestamp=float(info['timestamp']),
        lidar_path=sensor_path(info['lidar_points']['lidar_path'], 'LIDAR_TOP'),
        lidar2ego=_matrix(info['lidar_points']['lidar2ego'], 4, 'lidar2ego'),
        ego2global=_matrix(info['ego2global'], 4, 'ego2global'),
        cameras=cameras,
        scene_name=scene_name,
        scene_token=info.get('scene_token') or '',
        frame_idx=int(info.get('frame_idx', -1)),
        prev=info.get('prev') or '',
        next=info.get('next') or '',
        lidarseg_path=f'lidarseg/{version}/{_base_name(lidarseg)}' if lidarseg else '',
        sort_key=info.get('sort_key') or '',
    )
    occ3d_path = info.get('occ3d_path') or _occ3d_path(info.get('occ_path'), info['token'])
    return _with_label_path(record, (info.get('label_path'), occ3d_path, info.get('surroundocc_path')))


def _parse_v2_sweeps(info: Mapping, record: FrameRecord) -> dict[int, dict[str, CameraRecord]]:
    """Of our own files; what is not written is that of the key frame's image."""
    sweeps: dict[int, dict[str, CameraRecord]] = {}
    for name, images in info.get('camera_sweeps', {}).items():
        key = record.cameras[name]
        for offset, image in images.items():
            what = f'{name}.camera_sweeps[{offset}]'
            cam2ego = _matrix(image['cam2ego'], 4, f'{what}.cam2ego') if 'cam2ego' in image else key.cam2ego
            if 'lidar2cam' in image:
                ego2global, lidar2cam = None, _matrix(image['lidar2cam'], 4, f'{what}.lidar2cam')
            else:
                ego2global = _matrix(image['ego2global'], 4, f'{what}.ego2global')
                lidar2cam = np.linalg.inv(ego2global @ cam2ego) @ record.ego2global @ record.lidar2ego
            sweeps.setdefault(int(offset), {})[name] = CameraRecord(
                img_path=sensor_path(image['img_path'], name),
                cam2img=_matrix(image['cam2img'], 3, f'{what}.cam2img') if 'cam2img' in image else key.cam2img,
                lidar2cam=lidar2cam,
                cam2ego=cam2ego,
                ego2global=ego2global,
                timestamp=image.get('timestamp'),
                sample_data_token=image.get('sample_data_token', ''),
                image_wh=_image_wh(image) or key.image_wh,
            )
    return sweeps


def _parse_old_frame(info: Mapping) -> FrameRecord:
    lidar2ego = rigid(info['lidar2ego_rotation'], info['lidar2ego_translation'])
    ego2global = rigid(info['ego2global_rotation'], info['ego2global_translation'])
    cameras = {}
    for name, camera in info['cams'].items():
        cam2ego = cam_ego2global = None
        if 'sensor2ego_rotation' in camera:
            cam2ego = rigid(camera['sensor2ego_rotation'], camera['sensor2ego_translation'])
        if 'ego2global_rotation' in camera:
            cam_ego2global = rigid(camera['ego2global_rotation'], camera['ego2global_translation'])
        if 'sensor2lidar_rotation' in camera or cam2ego is None or cam_ego2global is None:
            cam2lidar = rigid(camera['sensor2lidar_rotation'], camera['sensor2lidar_translation'])
        else:
            cam2lidar = np.linalg.inv(ego2global @ lidar2ego) @ cam_ego2global @ cam2ego
        cameras[name] = CameraRecord(
            img_path=sensor_path(camera['data_path'], name),
            cam2img=_matrix(camera['cam_intrinsic'], 3, f'{name}.cam_intrinsic'),
            lidar2cam=np.linalg.inv(cam2lidar),
            cam2ego=cam2ego,
            ego2global=cam_ego2global,
            timestamp=camera['timestamp'] / 1e6 if 'timestamp' in camera else None,
            sample_data_token=camera.get('sample_data_token', ''),
            image_wh=_image_wh(camera),
        )
    occ3d_path = _occ3d_path(info.get('occ_path'), info['token'])
    record = FrameRecord(
        token=info['token'],
        timestamp=info['timestamp'] / 1e6,
        lidar_path=sensor_path(info['lidar_path'], 'LIDAR_TOP'),
        lidar2ego=lidar2ego,
        ego2global=ego2global,
        cameras=cameras,
        scene_name=info.get('scene_name') or occ3d_path.split('/')[0],
        scene_token=info.get('scene_token') or '',
        frame_idx=int(info.get('frame_idx', -1)),
        prev=info.get('prev') or '',
        next=info.get('next') or '',
    )
    return _with_label_path(record, (occ3d_path,))


def _parse_old_sweeps(info: Mapping, record: FrameRecord) -> dict[int, dict[str, CameraRecord]]:
    """Of SparseOcc's files: images before the key frame, the latest first. The LiDAR sweeps of other files are left out."""
    sweeps = {}
    for position, sweep in enumerate(info.get('sweeps', ())):
        if not all(isinstance(image, Mapping) and 'sensor2global_rotation' in image for image in sweep.values()):
            return {}
        sweeps[-1 - position] = {
            name: CameraRecord(
                img_path=sensor_path(image['data_path'], name),
                cam2img=_matrix(image['cam_intrinsic'], 3, f'sweeps[{position}].{name}.cam_intrinsic'),
                lidar2cam=np.linalg.inv(rigid(image['sensor2global_rotation'], image['sensor2global_translation']))
                @ record.ego2global
                @ record.lidar2ego,
                timestamp=image['timestamp'] / 1e6 if 'timestamp' in image else None,
            )
            for name, image in sweep.items()
        }
    return sweeps


def _parse_gaussrender(content: Mapping, origin: str) -> InfoFile:
    items = list(content['metadata'])
    if not items:
        raise ValueError(f'{origin}: the file (gaussrender format) holds no frames')
    records = []
    for position, item in enumerate(items):
        if not isinstance(item, (list, tuple)) or len(item) != 2:
            raise ValueError(f'{origin} (gaussrender format): metadata[{position}] must be (scene token, index), got {item!r}')
        scene, index = item
        try:
            frame = content['infos'][scene][index]
        except (KeyError, IndexError, TypeError):
            raise ValueError(
                f'{origin} (gaussrender format): metadata[{position}] points to frame {index} of scene {scene}, which '
                'infos lacks'
            ) from None
        with _FrameErrors(origin, 'gaussrender', position, frame):
            record = _parse_gaussrender_frame(frame, scene)
            _check_names(record)
            # the index is padded, so that frame 10 comes after frame 9
            record.sort_key = f'{scene}{int(index):03d}'
            records.append(record)
    return InfoFile('gaussrender', records)


def _parse_gaussrender_frame(frame: Mapping, scene: str) -> FrameRecord:
    def pose(record: Mapping) -> np.ndarray:
        return rigid(record['rotation'], record['translation'])

    lidar = frame['data']['LIDAR_TOP']
    lidar2ego, ego2global = pose(lidar['calib']), pose(lidar['pose'])
    cameras = {}
    for name, sensor in frame['data'].items():
        if not name.startswith('CAM'):
            continue
        cam2ego, cam_ego2global = pose(sensor['calib']), pose(sensor['pose'])
        cameras[name] = CameraRecord(
            img_path=sensor_path(sensor['filename'], name),
            cam2img=_matrix(sensor['calib']['camera_intrinsic'], 3, f'{name}.calib.camera_intrinsic'),
            lidar2cam=np.linalg.inv(cam_ego2global @ cam2ego) @ ego2global @ lidar2ego,
            cam2ego=cam2ego,
            ego2global=cam_ego2global,
            image_wh=_image_wh(sensor),
        )
    occ3d_path = _occ3d_path(frame.get('occ_path'), frame['token'])
    record = FrameRecord(
        token=frame['token'],
        timestamp=frame['timestamp'] / 1e6,
        lidar_path=sensor_path(lidar['filename'], 'LIDAR_TOP'),
        lidar2ego=lidar2ego,
        ego2global=ego2global,
        cameras=cameras,
        scene_token=frame.get('scene_token') or scene,
        scene_name=occ3d_path.split('/')[0],
    )
    return _with_label_path(record, (occ3d_path,))
