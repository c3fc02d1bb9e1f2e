"""Images of files, decoded whole and right or refused. Decoders alone paint lost parts grey and take any size."""

import contextlib
import io
import os
import struct
import tempfile
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator

import cv2
import mmcv
import numpy as np
from PIL import Image

# 8000 x 12500; decoded to three bytes a pixel
MAX_PIXELS = 100_000_000
_FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'TIFF')
_END_MARKS = ((b'\xff\xd8', b'\xff\xd9'), (b'\x89PNG', b'IEND'))
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error, zlib.error)
# what libjpeg writes to the standard error and then goes on
_CORRUPT = (b'Corrupt JPEG data', b'Premature end of JPEG file')
_HARMLESS = b'extraneous bytes before marker 0xd9'
_one_at_a_time = threading.Lock()


class ImageError(ValueError):
    """Bytes that are no image of the kinds that are read; the message says why."""


def image_size(data: bytes, deep: bool = False) -> tuple[int, int]:
    """Width and height of an image, from its header.

    Args:
        data: The bytes of the file.
        deep: Whether channels may have more than 8 bits.

    Raises:
        ImageError: If the bytes are no whole JPEG, PNG, WEBP, BMP or TIFF of 8 bits and at most ``MAX_PIXELS`` pixels.
    """
    if not data:
        raise ImageError('it is empty')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                size, mode = image.size, image.mode
    except Image.DecompressionBombError:
        raise ImageError(f'it has more than {MAX_PIXELS} pixels') from None
    except _DAMAGE as error:
        raise ImageError(f'it is no image of the kinds {", ".join(_FORMATS)}') from error
    if size[0] * size[1] > MAX_PIXELS:
        raise ImageError(f'it has {size[0]} x {size[1]} pixels, more than {MAX_PIXELS}')
    if not deep and (mode.startswith(('I', 'F')) or data.startswith(b'\x89PNG') and data[24:25] == b'\x10'):
        raise ImageError('it has more than 8 bits per channel, which decoders turn into different colours')
    for start, end in _END_MARKS:
        if data.startswith(start) and end not in data[-1024:]:
            raise ImageError('it is cut short (no end mark)')
    return size


def decode_image(data: bytes, backend: str = 'cv2') -> np.ndarray:
    """Decodes an image, without turning it as its EXIF data say.

    Args:
        data: The bytes of the file.
        backend: Decoder of mmcv, ``'cv2'`` or ``'pillow'``.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        ImageError: As :func:`image_size`, or if a part of it is damaged.
    """
    return _decoded(data, lambda: mmcv.imfrombytes(data, flag='color_ignore_orientation', backend=backend), backend)


def decode_values(data: bytes, grey: bool = False) -> np.ndarray:
    """Decodes an image of values, such as a mask or a map of classes, as they are stored or as (H, W) uint8 with ``grey``.

    Raises:
        ImageError: As :func:`decode_image`.
    """
    flag = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_UNCHANGED
    return _decoded(data, lambda: cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flag), deep=True)


def check_whole_image(data: bytes) -> tuple[int, int]:
    """Width and height of an image of which every part decodes; an eighth of the size is enough to see that, and faster.

    Raises:
        ImageError: As :func:`decode_image`.
    """
    size = image_size(data)
    _decoded(data, lambda: cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8))
    return size


def _decoded(data: bytes, decode: Callable[[], np.ndarray | None], backend: str = 'cv2', deep: bool = False) -> np.ndarray:
    image_size(data, deep)
    try:
        if data.startswith(b'\xff\xd8'):
            with _refusing_damage():
                if backend != 'cv2':  # whose libjpeg says nothing
                    cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_8)
                image = decode()
        else:
            image = decode()
    except ImageError:
        raise
    except (cv2.error, Image.DecompressionBombError, MemoryError, *_DAMAGE) as error:
        raise ImageError(f'it cannot be decoded ({type(error).__name__})') from error
    if image is None:
        raise ImageError('it cannot be decoded')
    return image


@contextlib.contextmanager
def _refusing_damage() -> Iterator[None]:
    """Listens to what libjpeg writes to the standard error of the process; everything else is handed on."""
    with _one_at_a_time, tempfile.TemporaryFile() as heard:
        try:
            outside = os.dup(2)
        except OSError:  # there is no standard error
            yield
            return
        os.dup2(heard.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(outside, 2)
            os.close(outside)
            heard.seek(0)
            lines = heard.read().splitlines(keepends=True)
            damage = [line for line in lines if line.startswith(_CORRUPT)]
            for line in lines:
                if line not in damage:
                    os.write(2, line)
        if any(_HARMLESS not in line for line in damage):
            raise ImageError(f'it is damaged ({damage[0].decode(errors="replace").strip()})')
