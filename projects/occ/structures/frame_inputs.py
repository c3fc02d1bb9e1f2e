"""What a pipeline of transforms starts from: the views of a key frame and, if asked for, of its neighbours.

A pipeline's dict has these keys; V views lie on one axis, those of the key frame first, in the order of the cameras. What a
source does not know is not there.

=================  =========================================================================================================
``token``          name of the key frame
``grid``           :class:`VoxelGrid`; ``grid.frame`` of the key frame is the reference frame (added by the data set)
``cam_names``      V names; those of a neighbour are the same again
``frame``          (V,) int64, offset of the view's frame: 0 the key frame, -1 the one before it, ...
``view_missing``   (V,) bool, there is no such neighbour and the key frame's view of this camera stands in for it
``img_paths``      V paths; not there if the images are given in memory (``img``)
``cam2img``        (V, 3, 3) float64, intrinsics of the *original* images, pixels
``cam2img_wh``     (V, 2) int64, width and height of the images that ``cam2img`` is for, 0 if the source does not say
``ref2cam``        (V, 4, 4) float64, reference frame -> camera at the moment of its image, metres: the motion of the vehicle
                   between LiDAR and camera and between the frames is in it
``ref2img``        (V, 4, 4) float64, reference frame -> (u d, v d, d, 1), pixels; every transform of the images moves it along
``cam2ego``        (N, 4, 4) float64, of the cameras of the key frame alone: their mounting on the vehicle
``scene_name``     '' if unknown
``frame_idx``      position of the key frame in its scene, -1 if unknown
``timestamp``      seconds, of the LiDAR
``label_masks``    masks that a label file must hold, None for those that it has (added by the data set)
``occ_path``       label of the key frame, '' if it is not known where it is
``lidar_path``     LiDAR file of the key frame
``lidar_frames``   for every frame with a LiDAR file, those standing in left out, a dict of ``frame`` (offset), ``token``,
                   ``lidar_path``, ``lidarseg_path`` (or ''), ``occ_path`` and ``lidar2ref`` (4, 4) float64, the points of the
                   file -> reference frame; and of its own N cameras ``cam_names``, ``img_paths``, ``cam2img`` (N, 3, 3) and
                   ``lidar2cam`` (N, 4, 4), the points -> camera at the moment of its image. A data set may list frames here
                   whose views are not there (``lidar_frames``)
``lidar2ego``      (4, 4) float64, of the key frame
``ego2global``     (4, 4) float64, of the key frame at LiDAR time
``depth_paths``    V paths of depth maps
=================  =========================================================================================================

Loading transforms add ``img``, ``img_wh``, ``ori_img_wh``, ``warp``, ``gt_occ``, ``mask_camera``, ``mask_lidar``, ``depth``;
their docstrings say what these are.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .frame_record import CameraRecord, FrameRecord

_PER_VIEW = ('cam_names', 'frame', 'view_missing', 'img_paths', 'cam2img', 'cam2img_wh', 'ref2cam', 'ref2img', 'depth_paths')


def frame_inputs(
    record: FrameRecord, frame: str, cam_names: Sequence[str] | None = None, compensated: bool = True
) -> dict[str, Any]:
    """The views of one key frame, without neighbours.

    Args:
        record: The frame.
        frame: Its reference frame, ``'ego'`` or ``'lidar'``.
        cam_names: Cameras and their order; None for all of the record.
        compensated: Only for the ego frame: whether ``ref2img`` takes the motion between LiDAR and camera into account, as
            ``ref2cam`` always does, or is made of the mounting ``cam2ego`` alone.

    Returns:
        The keys of the module's table but ``grid``.

    Raises:
        ValueError: If the frame lacks a camera, or what a matrix is made of; the message names both.
    """
    names = list(record.cameras if cam_names is None else cam_names)
    missing = [name for name in names if name not in record.cameras]
    if missing:
        raise ValueError(
            f"frame {record.token} has no camera '{missing[0]}'; present: {sorted(record.cameras)}. Set dataset.cam_names to "
            'the cameras of your vehicle'
        )
    cameras = [record.cameras[name] for name in names]
    inputs: dict[str, Any] = dict(
        token=record.token,
        scene_name=record.scene_name,
        frame_idx=record.frame_idx,
        cam_names=names,
        frame=np.zeros(len(names), dtype=np.int64),
        view_missing=np.zeros(len(names), dtype=bool),
        **camera_matrices(record, cameras, frame, compensated),
        occ_path=record.label_path,
    )
    if all(camera.img_path for camera in cameras):
        inputs['img_paths'] = [camera.img_path for camera in cameras]
    if all(camera.depth_path for camera in cameras):
        inputs['depth_paths'] = [camera.depth_path for camera in cameras]
    if all(camera.cam2ego is not None for camera in cameras):
        inputs['cam2ego'] = np.stack([camera.cam2ego for camera in cameras])
    for key in ('timestamp', 'lidar2ego', 'ego2global'):
        if getattr(record, key) is not None:
            inputs[key] = getattr(record, key)
    if record.lidar_path:
        inputs['lidar_path'] = record.lidar_path
        lidar2ref = record.lidar2ego if frame == 'ego' else np.eye(4)
        inputs['lidar_frames'] = [
            dict(
                frame=0,
                token=record.token,
                lidar_path=record.lidar_path,
                lidarseg_path=record.lidarseg_path,
                occ_path=record.label_path,
                lidar2ref=lidar2ref,
                cam_names=names,
                img_paths=[camera.img_path for camera in cameras],
                cam2img=inputs['cam2img'],
                lidar2cam=inputs['ref2cam'] @ lidar2ref,
            )
        ]
    return inputs


def camera_matrices(
    record: FrameRecord, cameras: Sequence[CameraRecord], frame: str, compensated: bool = True
) -> dict[str, np.ndarray]:
    """``cam2img``, ``cam2img_wh``, ``ref2cam`` and ``ref2img`` of images whose ``lidar2cam`` maps from the LiDAR of
    ``record``, see above."""
    cam2img = np.stack([camera.cam2img for camera in cameras])
    if frame == 'ego' and all(camera.ego2cam is not None for camera in cameras):
        ref2cam = np.stack([camera.ego2cam for camera in cameras])
    elif any(camera.lidar2cam is None for camera in cameras) or (frame == 'ego' and record.lidar2ego is None):
        raise ValueError(
            f'frame {record.token}: its cameras cannot be placed in the {frame} frame, the source does not say how'
        )
    else:
        lidar2cam = np.stack([camera.lidar2cam for camera in cameras])
        ref2cam = lidar2cam @ np.linalg.inv(record.lidar2ego) if frame == 'ego' else lidar2cam
    network_ref2cam = ref2cam
    if frame == 'ego' and not compensated:
        network_ref2cam = np.stack([_mounting(record, camera) for camera in cameras])
    sizes = np.array([camera.image_wh or (0, 0) for camera in cameras], dtype=np.int64)
    return dict(cam2img=cam2img, cam2img_wh=sizes, ref2cam=ref2cam, ref2img=_ref2img(cam2img, network_ref2cam))


def ref2global(record: FrameRecord, frame: str) -> np.ndarray | None:
    """(4, 4) reference frame -> global at LiDAR time, None if the source does not know it."""
    parts = [record.ego2global] if frame == 'ego' else [record.ego2global, record.lidar2ego]
    if any(part is None or not np.isfinite(part).all() for part in parts):
        return None
    return parts[0] if frame == 'ego' else parts[0] @ parts[1]


def in_reference_of(inputs: Mapping[str, Any], moved: np.ndarray) -> dict[str, Any]:
    """The views and LiDAR files of a frame, seen from the reference frame of another one.

    Args:
        inputs: What :func:`frame_inputs` gives of the frame.
        moved: (4, 4), reference frame of the other one -> reference frame of this one.
    """
    own2other = np.linalg.inv(moved)
    seen = dict(inputs, ref2cam=inputs['ref2cam'] @ moved, ref2img=inputs['ref2img'] @ moved)
    if 'lidar_frames' in inputs:
        seen['lidar_frames'] = [dict(scan, lidar2ref=own2other @ scan['lidar2ref']) for scan in inputs['lidar_frames']]
    return seen


def sweep_inputs(key: Mapping[str, Any], record: FrameRecord, offset: int, frame: str) -> dict[str, Any] | None:
    """The camera images ``offset`` steps from the key frame's, seen from the reference frame of the key frame.

    They have no LiDAR file of their own. ``ref2cam`` and ``ref2img`` are both exact.

    Args:
        key: What :func:`frame_inputs` gives of the key frame.
        record: The key frame.
        offset: Which sweep.
        frame: Reference frame, ``'ego'`` or ``'lidar'``.

    Returns:
        Per-view keys of the module's table. For a camera without such an image the key frame's stands in; None if no camera
        has one.
    """
    sweep = record.sweeps.get(offset, {})
    names = key['cam_names']
    known = [view for view, name in enumerate(names) if name in sweep]
    if not known:
        return None
    inputs = {name: key[name].copy() for name in ('cam2img', 'ref2cam', 'ref2img')}
    inputs['cam2img_wh'] = key['cam2img_wh'].copy()
    for name, matrices in camera_matrices(record, [sweep[names[view]] for view in known], frame).items():
        inputs[name][known] = matrices
    inputs.update(cam_names=names, view_missing=np.array([name not in sweep for name in names]))
    if 'img_paths' in key:
        inputs['img_paths'] = [sweep[name].img_path if name in sweep else path for name, path in zip(names, key['img_paths'])]
    return inputs


def join_frames(
    key: Mapping[str, Any],
    neighbours: Iterable[tuple[int, Mapping[str, Any] | None]],
    lidar_only: Iterable[tuple[int, Mapping[str, Any] | None]] = (),
) -> dict[str, Any]:
    """A key frame and its neighbours as one dict with all views on one axis.

    Args:
        key: What :func:`frame_inputs` gives of the key frame.
        neighbours: For each neighbour its offset and its inputs in the reference frame of the key frame, with the same
            cameras; or None, and the key frame's views stand in for it.
        lidar_only: The same of frames that add their LiDAR file alone; None adds nothing.
    """
    frames = [dict(key)]
    for offset, inputs in neighbours:
        standing_in = inputs is None
        inputs = dict(key if standing_in else inputs)
        count = len(inputs['cam_names'])
        inputs['frame'] = np.full(count, offset, dtype=np.int64)
        if standing_in:
            inputs['view_missing'] = np.ones(count, dtype=bool)
        inputs['lidar_frames'] = [] if standing_in else [dict(scan, frame=offset) for scan in inputs.get('lidar_frames', ())]
        frames.append(inputs)
    joined = dict(key)
    for name in _PER_VIEW:
        if all(name in inputs for inputs in frames):
            parts = [inputs[name] for inputs in frames]
            joined[name] = np.concatenate(parts) if isinstance(parts[0], np.ndarray) else sum(parts, start=[])
        else:
            joined.pop(name, None)
    if 'lidar_frames' in key:
        joined['lidar_frames'] = sum((inputs['lidar_frames'] for inputs in frames), start=[])
        for offset, inputs in lidar_only:
            joined['lidar_frames'] += [dict(scan, frame=offset) for scan in (inputs or {}).get('lidar_frames', ())]
    return joined


def _ref2img(cam2img: np.ndarray, ref2cam: np.ndarray) -> np.ndarray:
    ref2img = ref2cam.copy()
    ref2img[:, :3] = cam2img @ ref2cam[:, :3]
    return ref2img


def _mounting(record: FrameRecord, camera: CameraRecord) -> np.ndarray:
    if camera.cam2ego is None:
        name = next((name for name, other in record.cameras.items() if other is camera), camera.img_path)
        raise ValueError(
            f'frame {record.token} has no camera-to-ego matrix for {name}, which the projection without ego motion '
            'compensation is made of (SparseOcc-style files lack it); set dataset.ego_motion_compensation=True or use another '
            'annotation file'
        )
    return np.linalg.inv(camera.cam2ego)
