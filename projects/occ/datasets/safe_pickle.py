"""Loading annotation pickles without running code that somebody put into them."""

import io
import pickle
from typing import Any

from mmengine.fileio import get

# What numpy's own pickles name (numpy 1 and numpy 2 spell the module differently); none of these can run foreign code.
_ALLOWED = {
    ('_codecs', 'encode'),
    *((builtins, name) for builtins in ('builtins', '__builtin__') for name in ('set', 'frozenset')),
    ('collections', 'OrderedDict'),
    ('numpy', 'dtype'),
    ('numpy', 'ndarray'),
    *(
        (f'numpy.{core}.{module}', name)
        for core in ('core', '_core')
        for module, name in (('multiarray', '_reconstruct'), ('multiarray', 'scalar'), ('numeric', '_frombuffer'))
    ),
}


class _NumpyOnlyUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f'it names {module}.{name}')
        if module.startswith('numpy._core'):
            # written by numpy 2, read by numpy 1: the private module has no underscore there
            try:
                return super().find_class(module, name)
            except ModuleNotFoundError:
                module = module.replace('numpy._core', 'numpy.core')
        return super().find_class(module, name)


def load_numpy_pickle(path: str, backend_args: dict | None = None) -> Any:
    """Loads a pickle that may hold plain Python data and numpy arrays, and nothing else.

    Args:
        path: File path, or a URI that mmengine's file backends understand.
        backend_args: Arguments of the file backend.

    Returns:
        The unpickled object.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no pickle, is truncated, or names anything that is not numpy array reconstruction. Such a
            name can run code while loading, so nothing of it is imported or called.
    """
    data = get(path, backend_args=backend_args)
    try:
        return _NumpyOnlyUnpickler(io.BytesIO(data)).load()
    except pickle.UnpicklingError as error:
        if 'it names' in str(error):
            raise ValueError(
                f'{path}: refused to load this pickle because {error}. Annotation files may hold only plain Python data and '
                'numpy arrays; anything else could run code. Get the file from a source you trust '
                '(docs/datasets.md, "Annotation files").'
            ) from None
        raise ValueError(f'{path}: not a readable pickle ({error}); download or make the file again') from error
    except (EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f'{path}: not a readable pickle ({error}); download or make the file again') from error
