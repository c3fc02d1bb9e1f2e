"""GIF and MP4 files from pictures; neither needs a program beside Python's packages."""

import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from scipy.spatial import cKDTree

from projects.occ.atomic_write import write_atomically

VIDEO_KINDS = ('gif', 'mp4')
CODEC = 'vp09'  # the best that pip's OpenCV can write into mp4; browsers, VLC and mpv play it
PALETTE_FRAMES = 8  # pictures that the colours of a GIF are taken from
EXACT_COLORS = 96  # of its 256 that are kept as they are


def write_video(path: str | os.PathLike, frames: Sequence[np.ndarray], fps: float) -> Path:
    """Writes pictures as ``.gif`` (endless, 256 colours) or ``.mp4`` (VP9); the file appears complete or not at all.

    Args:
        path: File to write; the suffix chooses the format.
        frames: Pictures (H, W, 3) uint8 RGB of one size. mp4 needs even numbers: an odd one gets a white line more.
        fps: Pictures per second. GIF counts in hundredths of a second, so that 30 become 33.3.

    Returns:
        The path.

    Raises:
        ValueError: If there is no picture, sizes differ, the suffix is unknown or ``fps`` is not positive.
        RuntimeError: If OpenCV was built without VP9.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix('.')
    if kind not in VIDEO_KINDS:
        raise ValueError(f'a video file must end in .gif or .mp4, got {path.name!r}')
    if fps <= 0:
        raise ValueError(f'a video needs a positive number of pictures per second, got {fps}')
    if not len(frames):
        raise ValueError(f'{path.name}: there are no pictures to make a video of')
    sizes = {frame.shape for frame in frames}
    if len(sizes) > 1:
        raise ValueError(f'{path.name}: all pictures of a video must have one size, got {sorted(sizes)}')
    if kind == 'gif':
        write_atomically(path, lambda file: _write_gif(file, frames, fps))
    else:
        content = _encode_mp4(frames, fps, path.name)
        write_atomically(path, lambda file: file.write(content))
    return path


def read_pngs(paths: Iterable[str | os.PathLike]) -> list[np.ndarray]:
    """Reads pictures (H, W, 3) uint8 RGB."""
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            pictures.append(np.asarray(image.convert('RGB')))
    return pictures


def _write_gif(file, frames: Sequence[np.ndarray], fps: float) -> None:
    # one palette for all pictures and no dithering: what does not change costs nothing, and colours do not flicker
    palette = _palette([frames[i] for i in np.unique(np.linspace(0, len(frames) - 1, PALETTE_FRAMES).astype(int))])
    nearest = cKDTree(palette.astype(np.float64))
    pictures = []
    for frame in frames:
        colors, index = np.unique(_packed(frame), return_inverse=True)
        chosen = nearest.query(_unpacked(colors).astype(np.float64))[1].astype(np.uint8)
        picture = Image.fromarray(chosen[index].reshape(frame.shape[:2]), mode='P')
        picture.putpalette(palette.tobytes())
        pictures.append(picture)
    milliseconds = max(10 * round(100 / fps), 20)
    pictures[0].save(
        file, format='GIF', save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, optimize=False, disposal=1
    )


def _palette(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Up to 256 colours (K, 3) uint8: the most frequent ones exactly (a legend stays true), and a choice of the others."""
    colors, counts = np.unique(_packed(np.concatenate(frames)), return_counts=True)
    order = np.argsort(-counts, kind='stable')
    exact, rest = colors[order[:EXACT_COLORS]], order[EXACT_COLORS:]
    if not len(rest):
        return _unpacked(exact)
    # by area, but a large one must not take all the places
    sample = np.repeat(_unpacked(colors[rest]), np.minimum(counts[rest], 50), axis=0)
    image = Image.fromarray(sample[None]).quantize(256 - EXACT_COLORS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    return np.concatenate([_unpacked(exact), np.array(image.getpalette(), dtype=np.uint8).reshape(-1, 3)])


def _packed(frame: np.ndarray) -> np.ndarray:
    """Colours (..., 3) uint8 as numbers (N,)."""
    red, green, blue = frame.reshape(-1, 3).astype(np.int64).T
    return red << 16 | green << 8 | blue


def _unpacked(colors: np.ndarray) -> np.ndarray:
    return np.stack([colors >> 16, colors >> 8 & 255, colors & 255], axis=-1).astype(np.uint8)


def _encode_mp4(frames: Sequence[np.ndarray], fps: float, name: str) -> bytes:
    height, width = frames[0].shape[:2]
    pad = ((0, height % 2), (0, width % 2), (0, 0))
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, 'video.mp4')
        size = (width + width % 2, height + height % 2)
        writer = cv2.VideoWriter(target, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*CODEC), float(fps), size)
        if not writer.isOpened():
            raise RuntimeError(
                f'{name}: the OpenCV of this environment cannot write VP9; install opencv-python-headless or use gif'
            )
        for frame in frames:
            writer.write(np.ascontiguousarray(np.pad(frame, pad, constant_values=255)[..., ::-1]))
        writer.release()
        return Path(target).read_bytes()
