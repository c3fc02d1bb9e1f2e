"""One HTML file per scene that shows its voxels in a browser: opened from disk, no server, no network.

The page (``scene_viewer.html``) holds every volume whole, so that classes can be switched off without leaving holes and errors
are judged by the same rule as in the pictures. Volumes are compressed one by one (zlib, base64) and unpacked when a frame is
shown; the page then makes triangles of the visible faces alone.
"""

import base64
import html
import io
import json
import os
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from projects.occ.atomic_write import write_atomically
from projects.occ.file_names import shown_text

from ..structures import OccDataSample, VoxelGrid
from .figure_layout import resize
from .palettes import ERROR_CLASSES, ERROR_PALETTE, IGNORED_COLOR
from .voxel_painter import VoxelPainter

_PLACES = re.compile('__TITLE__|__SCENE__|__RAY__')
TEMPLATE = Path(__file__).with_name('scene_viewer.html')
RAY_SCRIPT = Path(__file__).with_name('scene_ray.js')
# more is shown as this
MAX_OPACITY = 0.999
_DATA = re.compile(r'<script type="application/json" id="scene">(.*?)</script>', re.DOTALL)


@dataclass(frozen=True)
class ViewerCamera:
    """A camera of one frame.

    Attributes:
        name: Its name.
        ref2cam: (4, 4), reference frame -> camera (x right, y down, z forward), metres.
        cam2img: (3, 3) intrinsics, pixels.
        size: Width and height of the image that ``cam2img`` belongs to, pixels.
        image: (H, W, 3) uint8 RGB of any size with the same field of view, or None.
    """

    name: str
    ref2cam: np.ndarray
    cam2img: np.ndarray
    size: tuple[float, float]
    image: np.ndarray | None = None


@dataclass(frozen=True)
class ViewerFrame:
    """One frame of a scene; a volume that is not there is None.

    Attributes:
        name: Shown beside the slider.
        gt: (X, Y, Z) true class ids.
        pred: (X, Y, Z) predicted class ids.
        mask: (X, Y, Z) bool, voxels that errors are judged in.
        cameras: Viewpoints.
        opacity: (X, Y, Z) in [0, 1], predicted opacity of voxels that a ray crosses from side to side, for the picture of a
            ray; None: what is predicted occupied is opaque.
    """

    name: str
    gt: np.ndarray | None = None
    pred: np.ndarray | None = None
    mask: np.ndarray | None = None
    cameras: tuple[ViewerCamera, ...] = field(default=())
    opacity: np.ndarray | None = None


def sample_frame(sample: OccDataSample, name: str, images: list[np.ndarray] | None = None) -> ViewerFrame:
    """The frame of a data sample; ``images`` (H, W, 3) uint8 RGB are those of its cameras, in their order."""
    volumes = {key: sample.get(key) for key in ('gt_occ', 'pred_occ', 'mask_camera')}
    gt, pred, mask = (None if volume is None else volume.cpu().numpy() for volume in volumes.values())
    opacity = sample.get('pred_opacity')
    opacity = None if opacity is None else opacity.float().cpu().numpy()
    cameras = []
    for i, camera in enumerate(sample.get('cam_names', ())):
        size = tuple(float(v) for v in sample.ori_img_wh[i])
        cameras.append(ViewerCamera(camera, sample.ref2cam[i], sample.cam2img[i], size, None if images is None else images[i]))
    return ViewerFrame(name, gt, pred, None if mask is None else mask != 0, tuple(cameras), opacity)


class SceneHtml:
    """Collects the frames of a scene, compressed, and writes the page.

    Args:
        painter: Knows grid and colours.
        title: Title of the page.
        image_width: Width of the camera images kept in the page, pixels; 0 leaves them out.
    """

    def __init__(self, painter: VoxelPainter, title: str, image_width: int = 320) -> None:
        self.painter = painter
        self.title = shown_text(title)
        self.image_width = image_width
        self._frames: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: ViewerFrame) -> None:
        """Adds a frame at the end.

        Raises:
            ValueError: If it has neither label nor prediction, or a volume does not fit the grid.
        """
        if frame.gt is None and frame.pred is None:
            raise ValueError(f'frame {frame.name!r} of the page has neither a label nor a prediction')
        shape = self.painter.grid.shape
        if frame.opacity is not None and np.shape(frame.opacity) != shape:
            raise ValueError(f'opacity of frame {frame.name!r} must have the grid shape {shape}, got {np.shape(frame.opacity)}')
        for origin, volume in (('label', frame.gt), ('prediction', frame.pred)):
            if volume is not None:
                self.painter.grid.check_labels(np.asarray(volume), f'{origin} of frame {frame.name!r}')
        packed = None if frame.mask is None else np.packbits(np.asarray(frame.mask, dtype=bool).ravel())
        self._frames.append(
            dict(
                name=shown_text(frame.name),
                gt=_encode(frame.gt),
                pred=_encode(frame.pred),
                mask=_encode(packed),
                density=_encode(self._levels(frame.opacity)),
                cameras=[self._camera(camera) for camera in frame.cameras],
            )
        )

    def _levels(self, opacity: np.ndarray | None) -> np.ndarray | None:
        """Optical depths of a voxel in 255 levels, (X, Y, Z) uint8."""
        if opacity is None:
            return None
        depth = -np.log1p(-np.clip(opacity, 0, MAX_OPACITY))
        return np.rint(255 * depth / -np.log1p(-MAX_OPACITY)).astype(np.uint8)

    def text(self) -> str:
        """The page.

        Raises:
            ValueError: If there is no frame.
        """
        if not self._frames:
            raise ValueError(f'the page {self.title!r} has no frame')
        # "</script>" and "<!--" inside a string would change where the block of data ends
        data = json.dumps(self._scene(), separators=(',', ':')).replace('<', '\\u003c')
        script = RAY_SCRIPT.read_text(encoding='utf-8')
        parts = dict(__TITLE__=html.escape(self.title), __SCENE__=data, __RAY__=script)
        # in one pass: a title may be called like a place
        return _PLACES.sub(lambda place: parts[place[0]], TEMPLATE.read_text(encoding='utf-8'))

    def write(self, path: str | os.PathLike) -> Path:
        """Writes the page; the file appears complete or not at all. Returns the path."""
        content = self.text().encode()
        write_atomically(path, lambda file: file.write(content))
        return Path(path)

    def _scene(self) -> dict[str, Any]:
        grid, colors = self.painter.grid, self.painter.colors
        classes = [dict(id=c, name=_words(grid.class_names[c]), color=colors[c].tolist()) for c in grid.semantic_classes]
        classes.append(dict(id=grid.ignore_index, name='ignored', color=list(IGNORED_COLOR), hidden=True))
        return dict(
            title=self.title,
            shape=grid.shape,
            lower=grid.lower,
            size=grid.voxel_size,
            frame=grid.frame,
            range=grid.point_cloud_range,
            names=grid.class_names,
            ahead=self.painter.ahead_axis,
            free=grid.free_index,
            ignore=grid.ignore_index,
            classes=classes,
            errors=[dict(id=i, name=n, color=c) for i, (n, c) in enumerate(zip(ERROR_CLASSES, ERROR_PALETTE, strict=True))],
            density_step=float(-np.log1p(-MAX_OPACITY) / 255 / max(grid.voxel_size)),  # per metre and level
            frames=self._frames,
        )

    def _camera(self, camera: ViewerCamera) -> dict[str, Any]:
        image = None
        if camera.image is not None and self.image_width:
            buffer = io.BytesIO()
            Image.fromarray(resize(camera.image, min(self.image_width, camera.image.shape[1]))).save(buffer, 'JPEG', quality=80)
            image = f'data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'
        matrix = np.asarray(camera.cam2img, dtype=np.float64)
        return dict(
            name=shown_text(camera.name),
            ref2cam=np.asarray(camera.ref2cam, dtype=np.float64)[:3].round(7).tolist(),
            K=[float(round(matrix[i], 4)) for i in ((0, 0), (1, 1), (0, 2), (1, 2))],
            size=[float(v) for v in camera.size],
            image=image,
        )


def read_scene_html(path: str | os.PathLike) -> tuple[VoxelGrid, list[ViewerFrame]]:
    """Reads the grid and the volumes back from a page (without its cameras), for example to evaluate them.

    Returns:
        The grid and the frames.

    Raises:
        ValueError: If the file is not such a page.
    """
    found = _DATA.search(Path(path).read_text(encoding='utf-8'))
    if found is None:
        raise ValueError(f'{os.fspath(path)!r} is not a page written by tools/visualize.py --html')
    scene = json.loads(found[1])
    fields = ('range', 'size', 'shape', 'frame', 'free', 'ignore', 'names')
    grid = VoxelGrid(*(scene[field] for field in fields), ahead='xy'[scene['ahead']])
    frames = []
    for frame in scene['frames']:
        mask = _decode(frame['mask'])
        if mask is not None:
            mask = np.unpackbits(mask)[: grid.num_voxels].reshape(grid.shape).astype(bool)
        gt, pred = (None if (flat := _decode(frame[key])) is None else flat.reshape(grid.shape) for key in ('gt', 'pred'))
        frames.append(ViewerFrame(frame['name'], gt, pred, mask))
    return grid, frames


def _encode(volume: np.ndarray | None) -> str | None:
    if volume is None:
        return None
    return base64.b64encode(zlib.compress(np.ascontiguousarray(volume, dtype=np.uint8).tobytes(), 9)).decode()


def _decode(text: str | None) -> np.ndarray | None:
    return None if text is None else np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=np.uint8)


def _words(name: str) -> str:
    return name.replace('_', ' ')
