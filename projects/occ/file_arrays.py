"""Bytes and numpy arrays of files. What is missing or damaged is an error that names the file and says what to do."""

import io
import os

import numpy as np
from mmengine.fileio import get


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


def load_arrays(path: str | os.PathLike, what: str, remedy: str, backend_args: dict | None = None) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file by name, or the one of an ``.npy`` file under the name ``''``. Nothing is unpickled.

    Args:
        path: The file.
        what: What the file is, named in errors.
        remedy: What to do if it is missing or damaged.
        backend_args: Arguments of mmengine's file backend.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, cut short, of another format, or would have to be unpickled.
    """
    data = read_bytes(path, what, remedy, backend_args)
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        arrays = {name: loaded[name] for name in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else {'': loaded}
        others = [name for name, array in arrays.items() if not isinstance(array, np.ndarray)]
        if others:
            raise ValueError(f'{others} are no arrays')
        return arrays
    except Exception as error:  # a damaged archive can raise nearly anything: zip, zlib, header, end-of-file and value errors
        raise ValueError(
            f"{what}: '{os.fspath(path)}' ({len(data)} bytes) is damaged or cut short ({error}); {remedy}"
        ) from error
