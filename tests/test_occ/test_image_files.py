import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from projects.occ.image_files import MAX_PIXELS, ImageError, check_whole_image, decode_image, decode_values, image_size

RNG = np.random.default_rng(0)
PICTURE = cv2.GaussianBlur(RNG.integers(0, 256, (240, 320, 3), dtype=np.uint8), (0, 0), 3)


def encoded(suffix, image=PICTURE):
    return cv2.imencode(suffix, image)[1].tobytes()


def png(width, height, depth=8):
    """A PNG whose header asks for a size, with hardly any data."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = struct.pack('>IIBBBBB', width, height, depth, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.bmp', '.webp', '.tiff'])
def test_whole_images_are_decoded(suffix, backend):
    data = encoded(suffix)
    assert image_size(data) == check_whole_image(data) == (320, 240)
    image = decode_image(data, backend)
    assert image.dtype == np.uint8 and image.shape == PICTURE.shape
    assert np.abs(image.astype(int) - PICTURE).mean() < 4  # BGR in BGR out


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_damage_in_the_middle_of_a_jpeg_is_seen(backend, capfd):
    data = encoded('.jpg')
    middle = len(data) // 2
    damaged = [
        data[:middle] + bytes(400) + data[middle + 400 :],
        data[:middle] + data[middle + 500 :],
        data[:middle] + b'\xff' * 400 + data[middle + 400 :],
    ]
    for bad in damaged:
        assert bad.endswith(b'\xff\xd9')
        for read in (lambda d: decode_image(d, backend), check_whole_image):
            with pytest.raises(ImageError, match='damaged|cannot be decoded'):
                read(bad)
    assert 'Corrupt' not in capfd.readouterr().err
    os.write(2, b'still heard')
    assert capfd.readouterr().err == 'still heard'


@pytest.mark.parametrize('read', [image_size, decode_image, check_whole_image, decode_values])
def test_what_is_no_image_is_one_error(read):
    jpeg, picture = encoded('.jpg'), encoded('.png')
    attempts = [b'', b'text', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', jpeg[:200], jpeg[:-300], picture[: len(picture) // 2]]
    attempts += [b'GIF89a' + bytes(50), b'BM' + bytes(80), b'II*\0' + bytes(60), b'RIFF\x10\0\0\0WEBPVP8 ' + bytes(40)]
    # as large as an image says that it is
    attempts += [png(30_000, 30_000), png(2**31 - 1, 2**31 - 1), png(10_001, MAX_PIXELS // 10_000), png(0, 0)]
    for data in attempts:
        with pytest.raises(ImageError):
            read(data)


def test_mutated_images_are_read_or_refused():
    for suffix in ('.jpg', '.png', '.bmp', '.webp', '.tiff'):
        data = encoded(suffix, PICTURE[:40, :60])
        for _ in range(150):
            bad = bytearray(data)
            for _ in range(int(RNG.integers(1, 4))):
                bad[int(RNG.integers(0, len(bad) if RNG.random() < 0.5 else 60))] = int(RNG.integers(0, 256))
            for backend in ('cv2', 'pillow'):
                try:
                    assert decode_image(bytes(bad), backend).dtype == np.uint8
                except ImageError:
                    pass


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_deep_channels_are_refused_for_pictures_and_kept_for_values(backend, tmp_path):
    deep = RNG.integers(0, 60000, (8, 8)).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / 'deep.png')
    data = (tmp_path / 'deep.png').read_bytes()
    with pytest.raises(ImageError, match='8 bits'):
        decode_image(data, backend)
    with pytest.raises(ImageError, match='8 bits'):
        decode_image(encoded('.png', np.dstack([deep] * 3)), backend)
    assert np.array_equal(decode_values(data), deep)
