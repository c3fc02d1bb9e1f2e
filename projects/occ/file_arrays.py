"""Bytes and numpy arrays of files. What is missing or damaged is an error that names the file and says what to do."""

import io
import math
import os
import zipfile
from collections.abc import Sequence
from typing import IO

import numpy as np
from mmengine.fileio import get

# of the arrays of one file together; labels need some MB, tables of projections some dozen
MAX_BYTES = 1 << 30
# rows of an array without elements
_MAX_EMPTY = 1 << 16


def read_bytes(path: str | os.PathLike, what: str, remedy: str, backend_args: dict | None = None) -> bytes:
    """Content of a file.

    Args:
        path: The file.
        what: What the file is, named in errors, e.g. ``'label of frame x'``.
        remedy: What to do if it is missing.
        backend_args: Arguments of mmengine's file backend.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    try:
        return get(path, backend_args=backend_args)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise FileNotFoundError(f"{what}: '{os.fspath(path)}' does not exist; {remedy}") from None
    except PermissionError:
        raise
    except (OSError, ValueError) as error:  # links in a circle, names that no disk takes
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise FileNotFoundError(f'{what}: {ascii(os.fspath(path))[:300]} cannot be read ({reason}); {remedy}') from error


def load_arrays(
    path: str | os.PathLike,
    what: str,
    remedy: str,
    backend_args: dict | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file by name, or the one of an ``.npy`` file under the name ``''``. Nothing is unpickled.

    What the file says about shape and type of an array is looked at before room is made for it.

    Args:
        path: The file.
        what: What the file is, named in errors.
        remedy: What to do if it is missing or damaged.
        backend_args: Arguments of mmengine's file backend.
        names: Read these arrays alone, where the file has one of them; others are not even unpacked.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, cut short, of another format, has to be unpickled, or needs more than ``MAX_BYTES``.
    """
    data = read_bytes(path, what, remedy, backend_args)
    try:
        file = io.BytesIO(data)
        if not data.startswith(b'PK'):
            return {'': _read_array(file, len(data), MAX_BYTES)}
        return _read_archive(file, names)
    except Exception as error:  # a damaged archive can raise nearly anything: zip, zlib, header, end-of-file and value errors
        reason = str(error) or type(error).__name__
        raise ValueError(
            f"{what}: '{os.fspath(path)}' ({len(data)} bytes) is damaged or cut short ({reason}); {remedy}"
        ) from error


def _read_archive(file: io.BytesIO, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    left = MAX_BYTES
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        known = [info.filename.removesuffix('.npy') for info in infos]
        if len(set(known)) != len(known) or not all(info.filename.endswith('.npy') for info in infos):
            raise ValueError(f'its members are not the arrays of an .npz: {known[:5]}')
        wanted = [name for name in known if names is None or name in names] or known
        for name, info in zip(known, infos):
            if name in wanted:
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f'{name} is packed in a way that numpy does not write')
                with archive.open(info) as member:
                    arrays[name] = _read_array(member, info.file_size, left)
                    if member.read(1):  # also compares the check sum
                        raise ValueError(f'{name} is longer than its array')
                left -= arrays[name].nbytes
    return arrays


def _read_array(file: IO[bytes], size: int, limit: int) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f'format {version} is none of plain arrays')
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.kind not in 'biufUS' or dtype.subdtype is not None or dtype.itemsize == 0:
        raise ValueError(f'it holds {str(dtype)[:60]}, expected numbers or texts')
    count = math.prod(shape)
    if any(type(n) is not int or n < 0 for n in shape) or count * dtype.itemsize > limit:
        raise ValueError(f'an array of shape {shape} and type {dtype} needs more than the limit of {MAX_BYTES >> 20} MiB')
    if not count and max(shape) > _MAX_EMPTY:
        raise ValueError(f'an array of shape {shape} holds nothing')
    if size < count * dtype.itemsize:
        raise ValueError(f'it has {size} bytes, too few for an array of shape {shape} and type {dtype}')
    raw = file.read(count * dtype.itemsize)
    if len(raw) != count * dtype.itemsize:
        raise EOFError(f'it ends after {len(raw)} of {count * dtype.itemsize} bytes')
    return np.frombuffer(bytearray(raw), dtype=dtype).reshape(shape, order='F' if fortran else 'C')
