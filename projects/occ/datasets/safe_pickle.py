"""Loading annotation pickles without running code that somebody put into them."""

from typing import Any

from mmengine.fileio import get

from projects.occ.safe_pickle import PickleDamagedError, PickleRefusedError, load_plain_pickle


def load_numpy_pickle(path: str, backend_args: dict | None = None) -> Any:
    """Loads a pickle that may hold plain Python data and numpy arrays, and nothing else.

    Args:
        path: File path, or a URI that mmengine's file backends understand.
        backend_args: Arguments of the file backend.

    Returns:
        The unpickled object.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no pickle, is truncated, or holds anything but plain data and arrays of it. Such a thing can
            run code while loading, so nothing of it is imported or called.
    """
    data = get(path, backend_args=backend_args)
    try:
        return load_plain_pickle(data)
    except PickleRefusedError as error:
        raise ValueError(
            f'{path}: refused to load this pickle because {error}. Annotation files may hold only plain Python data and '
            'numpy arrays; anything else could run code. Get the file from a source you trust '
            '(docs/datasets.md, "Annotation files")'
        ) from None
    except PickleDamagedError as error:
        raise ValueError(f'{path}: not a readable pickle ({error}); download or make the file again') from error
