"""Frames given by hand: images with their intrinsics and extrinsics, from Python or from a JSON file."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from projects.occ.file_arrays import load_arrays
from projects.occ.file_names import name_to_path
from projects.occ.structures.cameras import INVERTED, looks_inverted
from projects.occ.structures.frame_record import CameraRecord, FrameRecord

KEYS = ('token', 'scene', 'images', 'cam_names', 'cam2img', 'cam2ref', 'ref2cam', 'ref2global', 'depth')
# rotations written with four digits are accepted
ROTATION_TOLERANCE = 1e-3


@dataclass
class CameraFrame:
    """Images of N cameras at one moment.

    The reference frame is that of the voxel grid of the model: the ego vehicle for Occ3D, the LiDAR for SurroundOcc and
    SSCBench-KITTI-360 (docs/conventions.md).

    Attributes:
        images: N paths, or N arrays (H, W, 3) in 0..255, **BGR** as OpenCV and mmcv read them.
        cam2img: (N, 3, 3) float64, intrinsics of these images, pixels, pixel centres at +0.5.
        ref2cam: (N, 4, 4) float64, reference frame -> camera (x right, y down, z forward), metres.
        token: Name of the frame; output files are called after it.
        cam_names: N names.
        depth: N depth maps (H, W) float32, metres, 0 = none, for models that need them, or None.
        scene: Name of the drive; frames of one drive follow each other in time.
        ref2global: (4, 4) float64, reference frame -> a frame that stays where it is during the drive, metres, or None. Models
            that see earlier frames need it.
    """

    images: list
    cam2img: np.ndarray
    ref2cam: np.ndarray
    token: str
    cam_names: list[str]
    depth: list[np.ndarray] | None = None
    scene: str = ''
    ref2global: np.ndarray | None = None

    @property
    def from_files(self) -> bool:
        """Whether the images are paths."""
        return isinstance(self.images[0], str)

    def record(self, frame: str) -> FrameRecord:
        """The frame as data sets describe theirs; ``frame`` names the reference frame, ``'ego'`` or ``'lidar'``."""
        ref2cam = 'ego2cam' if frame == 'ego' else 'lidar2cam'
        cameras = {
            name: CameraRecord(image if self.from_files else '', cam2img.copy(), **{ref2cam: matrix.copy()})
            for name, image, cam2img, matrix in zip(self.cam_names, self.images, self.cam2img, self.ref2cam, strict=True)
        }
        return FrameRecord(self.token, cameras=cameras)

    @classmethod
    def parse(cls, frame: Mapping[str, Any], folder: str | os.PathLike = '', index: int = 0) -> 'CameraFrame':
        """Checks a frame given as a dict.

        Args:
            frame: ``images``, ``cam2img`` (N, 3, 3), either ``cam2ref`` (camera -> reference) or ``ref2cam`` (N, 4, 4), and
                optionally ``token``, ``cam_names``, ``depth`` (N arrays (H, W) or paths of ``.npy`` files), ``scene`` and
                ``ref2global`` (4, 4).
            folder: Relative paths start here.
            index: Position among the frames; names a frame without token.

        Raises:
            FileNotFoundError: If an image or a depth map does not exist.
            ValueError: If a key is missing or unknown, or numbers and shapes do not fit together.
        """
        name = frame.get('token') if isinstance(frame, Mapping) else None
        what = f'frame {index if name is None else name!r}'
        _check_keys(frame, what)
        if not isinstance(name, (str, int, type(None))):
            raise ValueError(f'{what:.100}: token must be a text, got {type(name).__name__}')
        token = f'frame_{index:06d}' if name is None else str(name)
        name_to_path(token)
        images = _list(frame['images'], f'{what}: images')
        count = len(images)
        cam2img = _matrices(frame['cam2img'], count, 3, f'{what}: cam2img')
        focal = cam2img[:, (0, 1), (0, 1)]
        if (focal <= 0).any() or (cam2img[:, 2] != (0, 0, 1)).any():
            raise ValueError(f'{what}: cam2img must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with positive fx, fy in pixels')
        key = 'cam2ref' if 'cam2ref' in frame else 'ref2cam'
        matrices = _rigid(_matrices(frame[key], count, 4, f'{what}: {key}'), f'{what}: {key}')
        ref2cam = np.linalg.inv(matrices) if key == 'cam2ref' else matrices
        if looks_inverted(ref2cam):
            other = 'ref2cam' if key == 'cam2ref' else 'cam2ref'
            raise ValueError(f'{what}: {key} {INVERTED}; these matrices belong under {other}')
        names = frame.get('cam_names')
        names = [f'camera_{i}' for i in range(count)] if names is None else _list(names, f'{what}: cam_names')
        if not all(isinstance(name, str) for name in names) or len(names) != count or len(set(names)) != count:
            raise ValueError(f'{what}: cam_names must be {count} different names, one per image, got {names}')
        depth = frame.get('depth')
        if depth is not None:
            depth = [_depth(item, folder, f'{what}: depth of {name}') for item, name in zip(_list(depth, what), names)]
            if len(depth) != count:
                raise ValueError(f'{what}: {count} images, but {len(depth)} depth maps')
        scene = frame.get('scene', '')
        if not isinstance(scene, str):
            raise ValueError(f'{what}: scene must be a text, got {type(scene).__name__}')
        pose = frame.get('ref2global')
        if pose is not None:
            pose = _rigid(_matrices([pose], 1, 4, f'{what}: ref2global'), f'{what}: ref2global')[0]
        return cls(
            images=_images(images, folder, what),
            cam2img=cam2img,
            ref2cam=ref2cam,
            token=token,
            cam_names=[str(name) for name in names],
            depth=depth,
            scene=scene,
            ref2global=pose,
        )


def read_frames(path: str | os.PathLike) -> list[CameraFrame]:
    """Reads frames from a JSON file: one frame, a list of frames, or ``{"frames": [...]}``.

    Args:
        path: The file; relative paths in it start at its folder.

    Returns:
        The frames, see :meth:`CameraFrame.parse`.

    Raises:
        FileNotFoundError: If the file, an image or a depth map does not exist.
        ValueError: If the file is no JSON, or a frame is not as it should be.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'input file {str(path)!r} does not exist')
    try:
        content = json.loads(path.read_text())
    except RecursionError:
        raise ValueError(f'{path}: not a JSON file of frames (it is nested too deeply)') from None
    except ValueError as error:  # no JSON, no text, numbers of thousands of digits
        raise ValueError(f'{path}: not a JSON file ({error})') from error
    if isinstance(content, Mapping) and 'frames' in content:
        if len(content) > 1:
            raise ValueError(f'{path}: beside "frames" there must be no other key, got {sorted(set(content) - {"frames"})}')
        content = content['frames']
    frames = content if isinstance(content, list) else [content]
    if not frames:
        raise ValueError(f'{path}: no frame')
    parsed = [CameraFrame.parse(frame, path.parent, i) for i, frame in enumerate(frames)]
    files = [name_to_path(frame.token) for frame in parsed]
    twice = sorted({str(file) for file in files if files.count(file) > 1})
    if twice:
        raise ValueError(f'{path}: several frames have the token {twice[0]!r}; output files are called after it')
    return parsed


def _check_keys(frame: Any, what: str) -> None:
    if not isinstance(frame, Mapping):
        raise ValueError(f'{what}: expected a dict with the keys {KEYS}, got {type(frame).__name__}')
    for key in frame:
        if key not in KEYS:
            close = get_close_matches(str(key), KEYS, 1)
            raise ValueError(
                f'{what}: unknown key {key!r}{f"; did you mean {close[0]!r}?" if close else f", known are {KEYS}"}'
            )
    missing = [key for key in ('images', 'cam2img') if key not in frame]
    if missing:
        raise ValueError(f'{what}: the key {missing[0]!r} is missing')
    if ('cam2ref' in frame) == ('ref2cam' in frame):
        raise ValueError(f'{what}: give either cam2ref (camera -> reference frame) or ref2cam, one of the two')


def _list(values: Any, what: str) -> list:
    if isinstance(values, (str, Mapping)) or not isinstance(values, (Sequence, np.ndarray)) or len(values) == 0:
        raise ValueError(f'{what} must be a list with one entry per camera')
    return list(values)


def _matrices(values: Any, count: int, size: int, what: str) -> np.ndarray:
    try:
        matrices = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise ValueError(f'{what} must be {count} matrices of {size} x {size} numbers') from None
    if matrices.ndim == 3 and matrices.shape[1:] == (size, size) and len(matrices) != count:
        raise ValueError(f'{what}: {count} images, but {len(matrices)} matrices; give one per camera in the same order')
    if matrices.shape != (count, size, size):
        raise ValueError(f'{what} must have the shape {(count, size, size)}, one matrix per image, got {matrices.shape}')
    if not np.isfinite(matrices).all():
        raise ValueError(f'{what} holds NaN or infinite numbers')
    return matrices


def _rigid(matrices: np.ndarray, what: str) -> np.ndarray:
    rotation = matrices[:, :3, :3]
    error = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max((1, 2))
    bad = (error > ROTATION_TOLERANCE) | (np.linalg.det(rotation) < 0) | (matrices[:, 3] != (0, 0, 0, 1)).any(1)
    if bad.any():
        raise ValueError(
            f'{what}: matrix {int(bad.argmax())} is no rigid transform (rotation orthonormal, last row 0 0 0 1), so its '
            'inverse would mean nothing; give [[R, t], [0, 1]] with t in metres'
        )
    return matrices


def _images(images: list, folder: str | os.PathLike, what: str) -> list:
    paths = [isinstance(image, (str, os.PathLike)) for image in images]
    if all(paths):
        images = [str(Path(folder) / image) for image in images]
        for path in images:
            if not _is_file(path):
                raise FileNotFoundError(f'{what}: image {path!r:.300} does not exist')
        return images
    if any(paths):
        raise ValueError(f'{what}: images must be all paths or all arrays')
    if any(hasattr(image, 'convert') for image in images):
        raise ValueError(
            f'{what}: PIL images are RGB, BGR is expected: give numpy.asarray(image.convert("RGB"))[..., ::-1], or the path'
        )
    arrays = [_array(image, f'{what}: image {i}') for i, image in enumerate(images)]
    for i, array in enumerate(arrays):
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind not in 'uif':
            raise ValueError(f'{what}: image {i} must be an array (H, W, 3) in 0..255, BGR, got {array.dtype} {array.shape}')
    for array in arrays:
        _check_values(array, what)
    return [array if array.dtype == np.uint8 else array.astype(np.float32) for array in arrays]


def _check_values(image: np.ndarray, what: str) -> None:
    """Raises ValueError unless pixels are numbers in 0..255, and not those of a picture in 0..1 or of more than 8 bits."""
    if image.dtype == np.uint8 or image.size == 0:
        return
    low, high = (float(image.min()), float(image.max())) if image.dtype.kind in 'iuf' else (float('nan'), float('nan'))
    if not (0 <= low and high <= 255):
        raise ValueError(
            f'{what}: pixels must be numbers in 0..255, got {image.dtype} from {low:g} to {high:g}; scale images of more '
            'than 8 bits, and undo a normalisation'
        )
    if image.dtype.kind == 'f' and 0 < high <= 1:
        raise ValueError(f'{what}: pixels must be in 0..255, but {image.dtype} up to {high:g} looks like 0..1: multiply by 255')


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a name that no disk takes
        return False


def _array(values: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f'{what} is no array of numbers ({error})') from error


def _depth(item: Any, folder: str | os.PathLike, what: str) -> np.ndarray:
    if isinstance(item, (str, os.PathLike)):
        path = Path(folder) / item
        arrays = load_arrays(path, what, 'name an .npy file of metres (H, W)')
        item = arrays.get('', np.zeros(0))
    depth = _array(item, what)
    if depth.ndim != 2 or depth.dtype.kind not in 'uif' or not np.isfinite(depth).all() or (depth < 0).any():
        raise ValueError(f'{what} must be an array (H, W) of finite metres, 0 where unknown, got {depth.dtype} {depth.shape}')
    return depth.astype(np.float32)
