"""The one internal description of a key frame that every source of frames is turned into."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from .cameras import INVERTED, looks_inverted

# 35 m/s for 60 ms, and a sharp turn: real frames of v1.0-mini reach 1.2 deg
MAX_EGO_MOTION_M = 2.0
MAX_EGO_MOTION_DEG = 3.0
# shares of the width and the height: nuScenes has at most 0.02 and 0.04, a rectified KITTI-360 image 0.02 and 0.13
MAX_OFF_CENTRE = 0.2
MAX_OFF_CENTRE_BOTH = 0.08


@dataclass
class CameraRecord:
    """One image and its camera; matrices are float64.

    Attributes:
        img_path: Path below the folder of the images (nuScenes: its root, e.g. ``samples/CAM_FRONT/x.jpg``), '' if the image
            is no file.
        cam2img: (3, 3) intrinsics, pixels.
        lidar2cam: (4, 4) LiDAR (LiDAR time of the key frame) -> camera (camera time), with the ego motion in between, or None
            if there is no LiDAR; then ``ego2cam`` is there.
        cam2ego: (4, 4) camera -> ego at camera time (a constant of the vehicle), or None if the source lacks it.
        ego2global: (4, 4) ego -> global at camera time, or None if the source lacks it.
        ego2cam: (4, 4) ego (LiDAR time) -> camera (camera time), only where there is no ``lidar2cam``.
        timestamp: Seconds, or None.
        sample_data_token: nuScenes token of the image, or ''.
        depth_path: Path of the image's depth map below the folder of the depth maps, or ''.
        image_wh: Width and height of the images that ``cam2img`` is for, pixels, or None if the source does not say.
    """

    img_path: str
    cam2img: np.ndarray
    lidar2cam: np.ndarray | None = None
    cam2ego: np.ndarray | None = None
    ego2global: np.ndarray | None = None
    ego2cam: np.ndarray | None = None
    timestamp: float | None = None
    sample_data_token: str = ''
    depth_path: str = ''
    image_wh: tuple[int, int] | None = None


@dataclass
class BoxRecord:
    """3D boxes of a key frame in the LiDAR frame, float64.

    Attributes:
        boxes: (K, 7) x, y, z of the box centre (not of its bottom), length, width, height in metres, yaw in radians
            (length along x at yaw 0, counter-clockwise seen from above).
        names: K nuScenes detection class names.
        num_lidar_pts: (K,) number of LiDAR points inside as the annotation says, or None.
        velocities: (K, 2) in the LiDAR frame, m/s, NaN where unknown; or None.
        instance_tokens: K names of the objects, the same in all frames of a scene; or None.
    """

    boxes: np.ndarray
    names: list[str]
    num_lidar_pts: np.ndarray | None = None
    velocities: np.ndarray | None = None
    instance_tokens: list[str] | None = None


@dataclass
class FrameRecord:
    """One key frame; matrices are float64, metres.

    What a source does not know is None, '' or -1; nothing is made up.

    Attributes:
        token: Name of the frame (nuScenes: sample token).
        timestamp: Seconds (LiDAR), or None.
        lidar_path: Path of the LiDAR file below the folder of the LiDAR files (nuScenes: its root), or ''.
        lidar2ego: (4, 4), or None.
        ego2global: (4, 4) at LiDAR time, or None.
        cameras: By camera name.
        sweeps: Camera images between the key frames: offset (-1 is the image before that of the key frame, 1 the one after it,
            ...) -> camera name -> image. Their ``lidar2cam`` maps from the LiDAR of *this* frame. Only if asked for when
            reading.
        scene_name, scene_token: '' if unknown.
        frame_idx: Position in the scene, -1 if unknown.
        prev, next: Tokens of the neighbours, '' at the ends of a scene or if unknown.
        label_path: Path of the label below the benchmark's folder of labels as the source names it, or '';
            :func:`occ3d_label_path` and :func:`surroundocc_label_path` know where the benchmarks have it.
        lidarseg_path: Point classes of the LiDAR file relative to the nuScenes root, '' if there are none or if unknown.
        sort_key: By which data sets sort the frames that they use, '' for the order of the file.
        boxes: Only if asked for when reading.
    """

    token: str
    timestamp: float | None = None
    lidar_path: str = ''
    lidar2ego: np.ndarray | None = None
    ego2global: np.ndarray | None = None
    cameras: dict[str, CameraRecord] = field(default_factory=dict)
    sweeps: dict[int, dict[str, CameraRecord]] = field(default_factory=dict)
    scene_name: str = ''
    scene_token: str = ''
    frame_idx: int = -1
    prev: str = ''
    next: str = ''
    label_path: str = ''
    lidarseg_path: str = ''
    sort_key: str = ''
    boxes: BoxRecord | None = None


def occ3d_label_path(record: FrameRecord) -> str:
    """Where Occ3D has a frame's label: ``<scene>/<token>/labels.npz`` below ``gts``, '' if the scene is unknown."""
    if record.label_path.endswith('labels.npz'):
        return record.label_path
    return f'{record.scene_name}/{record.token}/labels.npz' if record.scene_name else ''


def surroundocc_label_path(record: FrameRecord) -> str:
    """Where SurroundOcc has a frame's label: ``<LiDAR file name>.npy`` in one folder."""
    if record.label_path.endswith('.npy'):
        return record.label_path
    return record.lidar_path.replace('\\', '/').rsplit('/', 1)[-1] + '.npy'


# The nuScenes benchmarks by their short names. Both have all frames, so one annotation file serves both.
LABEL_PATHS: dict[str, Callable[[FrameRecord], str]] = {'occ3d': occ3d_label_path, 'surroundocc': surroundocc_label_path}


def rigid(rotation: Sequence, translation: Sequence) -> np.ndarray:
    """4x4 float64 transform of a rotation and a translation.

    Args:
        rotation: (4,) quaternion w, x, y, z of any length but zero, or a (3, 3) matrix.
        translation: (3,) metres.

    Raises:
        ValueError: If the shapes are others, or the quaternion is zero.
    """
    matrix = np.eye(4)
    rotation = np.asarray(rotation, dtype=np.float64)
    translation = np.asarray(translation, dtype=np.float64)
    if translation.shape != (3,):
        raise ValueError(f'a translation must have 3 numbers, got shape {translation.shape}')
    if rotation.shape == (4,):
        norm = float(rotation @ rotation)
        if not norm > 0:
            raise ValueError(f'a rotation quaternion must not be zero, got {rotation.tolist()}')
        w, x, y, z = rotation.tolist()
        s = 2.0 / norm
        rotation = np.array(
            [
                [1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)],
                [s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)],
                [s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)],
            ]
        )
    elif rotation.shape != (3, 3):
        raise ValueError(f'a rotation must be a quaternion (4,) w, x, y, z or a (3, 3) matrix, got shape {rotation.shape}')
    matrix[:3, :3] = rotation
    matrix[:3, 3] = translation
    return matrix


def size_problem(cam2img: np.ndarray, image_wh: Sequence[int], expected_wh: Sequence[int] | None = None) -> str:
    """A sentence about an image whose size its intrinsics are not for, '' if there is nothing to say.

    Args:
        cam2img: (3, 3) intrinsics.
        image_wh: Width and height of the image, pixels.
        expected_wh: Those that the intrinsics are for. None or zeros if they are not known: then a principal point far from
            the middle tells that an image was resized, which moves it along both axes.
    """
    width, height = (int(n) for n in image_wh)
    if expected_wh is not None and min(expected_wh) > 0:
        if (width, height) == tuple(int(n) for n in expected_wh):
            return ''
        return (
            f'has {width} x {height} pixels, but its intrinsics are for {int(expected_wh[0])} x {int(expected_wh[1])}; '
            'resize images in the pipeline (ResizeCropFlipImages), not on disk, or scale the intrinsics with them'
        )
    off = cam2img[:2, 2] / (width, height) - 0.5
    if np.abs(off).max() > MAX_OFF_CENTRE or (np.abs(off).min() > MAX_OFF_CENTRE_BOTH and off[0] * off[1] > 0):
        return (
            f'has {width} x {height} pixels, and the principal point ({cam2img[0, 2]:g}, {cam2img[1, 2]:g}) of its intrinsics '
            'is far from the middle; if the images were resized on disk, scale the intrinsics with them'
        )
    return ''


def geometry_problems(record: FrameRecord) -> list[str]:
    """Sentences about matrices of a frame that cannot be right; empty if all is well.

    Checks that every matrix is finite and every rotation orthonormal, that intrinsics have positive focal lengths, and that
    LiDAR -> camera differs from the static mounting (ego -> camera) by no more than a vehicle moves between two sensors.
    """
    problems = []

    def check(name: str, matrix: np.ndarray | None) -> None:
        if matrix is None:
            return
        rotation = matrix[:3, :3]
        if not np.isfinite(matrix).all():
            problems.append(f'{name} holds non-finite numbers')
        elif np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-4 or np.linalg.det(rotation) < 0:
            problems.append(f'the rotation of {name} is not orthonormal')

    rig = [camera.ego2cam if camera.lidar2cam is None else camera.lidar2cam for camera in record.cameras.values()]
    if rig and all(matrix is not None for matrix in rig) and looks_inverted(np.stack(rig)):
        problems.append(f'lidar2cam {INVERTED}')
    check('lidar2ego', record.lidar2ego)
    check('ego2global', record.ego2global)
    for name, camera in record.cameras.items():
        check(f'{name}.lidar2cam', camera.lidar2cam)
        check(f'{name}.cam2ego', camera.cam2ego)
        check(f'{name}.ego2global', camera.ego2global)
        if not np.isfinite(camera.cam2img).all() or min(camera.cam2img[0, 0], camera.cam2img[1, 1]) <= 0:
            problems.append(f'{name}.cam2img has no positive finite focal lengths')
        if problems or any(matrix is None for matrix in (camera.cam2ego, camera.lidar2cam, record.lidar2ego)):
            continue
        motion = camera.cam2ego @ camera.lidar2cam @ np.linalg.inv(record.lidar2ego)
        shift = float(np.linalg.norm(motion[:3, 3]))
        angle = float(np.degrees(np.arccos(np.clip((np.trace(motion[:3, :3]) - 1) / 2, -1, 1))))
        if shift > MAX_EGO_MOTION_M or angle > MAX_EGO_MOTION_DEG:
            problems.append(
                f'{name}: lidar2cam and cam2ego disagree by {shift:.2f} m and {angle:.2f} deg, more than a vehicle moves '
                f'between two sensors (limits {MAX_EGO_MOTION_M} m, {MAX_EGO_MOTION_DEG} deg); is a matrix inverted?'
            )
    return problems
