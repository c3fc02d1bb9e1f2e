"""The unpickler that knows nothing but stand-ins."""

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

from .scan import PickleDamagedError, PickleRefusedError, scan_pickle
from .stand_ins import numpy_stand_ins


class RestrictedUnpickler(pickle.Unpickler):
    """Unpickles what :func:`scan_pickle` let pass.

    Args:
        data: The pickle.
        names: Stand-ins by ``module.name``; every other name is refused.
        persistent_load: Gives objects for persistent ids; None refuses them.
    """

    def __init__(
        self, data: bytes, names: Mapping[str, Any], persistent_load: Callable[[Any], Any] | None = None, **options: Any
    ) -> None:
        super().__init__(io.BytesIO(data), **options)
        self._names = names
        self._persistent_load = persistent_load

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._names[f'{module}.{name}']
        except KeyError:
            raise PickleRefusedError(f'it names {shown_name(module)}.{shown_name(name)}') from None

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent_load is None:
            raise PickleRefusedError('it refers to objects outside of it')
        return self._persistent_load(pid)


def shown_name(name: str) -> str:
    """A name for a message; control characters of it must not reach a terminal."""
    return name[:100] if name.isprintable() else ascii(name[:100])


def load_plain_pickle(data: bytes) -> Any:
    """Unpickles plain data and numpy arrays (as :class:`ReadArray`).

    Raises:
        PickleRefusedError: If the pickle holds anything else, which could run code, crash the interpreter or flood its memory.
        PickleDamagedError: If it cannot be read.
    """
    scan_pickle(data)
    try:
        return RestrictedUnpickler(data, numpy_stand_ins(len(data))).load()
    except PickleRefusedError:
        raise
    except Exception as error:  # whatever the bytes of a file that is none make the unpickler do
        raise PickleDamagedError(str(error) or type(error).__name__) from error
