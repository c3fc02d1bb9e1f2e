"""What stands in for numpy's callables in the pickle of a stranger.

``numpy.ndarray`` and ``numpy.dtype`` themselves must not be handed out: the one makes object pointers of the bytes of a file,
the state of the other gives views that reach out of their memory. The stand-ins accept what numpy writes for arrays and scalars
of plain numbers and texts, and raise :class:`PickleRefusedError` at everything else.
"""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from .scan import PickleRefusedError

# U for text and S for bytes come with a length
_PLAIN_CODE = re.compile(r'(?:b1|[iu][1248]|f[248]|c8|c16|[US][1-9]\d{0,3})', re.ASCII)
_MAX_DIMS = 16
# an array without elements needs no memory, whatever its other dimensions are; its rows do
_MAX_EMPTY_DIM = 4096
_MAX_CODE_POINT = 0x10FFFF


class ReadArray(np.ndarray):
    """An array out of a pickle: all that an ndarray is, but it can only be filled once and with plain data."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> 'ReadArray':
        """Refuses; :func:`numpy_stand_ins` makes the instances."""
        raise PickleRefusedError('it calls numpy.ndarray, which could take any memory for an array')

    def __setstate__(self, state: Any) -> None:
        """Fills an array that ``_reconstruct`` made with (version, shape, dtype, whether Fortran order, bytes)."""
        if not (type(self) is ReadArray and self.shape == (0,) and self.dtype == np.int8 and self.base is None):
            raise PickleRefusedError('it changes an array that is complete')
        if type(state) is not tuple or len(state) != 5 or state[0] != 1 or type(state[3]) is not bool:
            raise PickleRefusedError('it gives an array a state that numpy does not write')
        _, shape, kind, fortran, raw = state
        dtype = _checked(shape, kind, raw)
        np.ndarray.__setstate__(self, (1, shape, dtype, fortran, raw))

    def __reduce_ex__(self, protocol: int) -> Any:
        """Writes the array as a plain one again."""
        return np.asarray(self).__reduce_ex__(protocol)


class ReadDType:
    """Stands in for a ``numpy.dtype`` until an array takes it."""

    __slots__ = ('dtype',)

    def __init__(self, code: Any = None, align: Any = False, copy: Any = True) -> None:
        if type(code) is not str or not _PLAIN_CODE.fullmatch(code) or align not in (False, 0) or copy not in (True, 1):
            what = repr(code)[:40] if isinstance(code, (str, type(None))) else type(code).__name__
            raise PickleRefusedError(f'it asks for the array type {what}, which is no plain number or text')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        """Accepts what numpy writes for plain types: no fields, sub-arrays, flags or foreign byte order."""
        size, alignment = (self.dtype.itemsize, self.dtype.alignment) if self.dtype.kind in 'US' else (-1, -1)
        if (
            type(state) is not tuple
            or len(state) != 8
            or any(type(value) not in (int, str, type(None)) for value in state)
            or state[0] != 3
            or state[1] not in ('<', '|', '=')
            or state[2:5] != (None, None, None)
            or state[5] not in (-1, size)
            or state[6] not in (-1, alignment)
            or state[7] not in (0, 8)
        ):
            raise PickleRefusedError('it gives an array type a state that plain numbers and texts do not have')


def _checked(shape: Any, kind: Any, raw: Any) -> np.dtype:
    """The type of an array whose bytes, shape and type belong together."""
    if type(kind) is not ReadDType or type(raw) not in (bytes, bytearray):
        raise PickleRefusedError('it makes an array of something else than bytes')
    dtype = kind.dtype
    if type(shape) is not tuple or len(shape) > _MAX_DIMS or any(type(n) is not int or n < 0 for n in shape):
        raise PickleRefusedError('it makes an array of an impossible shape')
    size = dtype.itemsize
    for n in shape:
        size *= n
    if size != len(raw) or (not size and max(shape) > _MAX_EMPTY_DIM):
        raise PickleRefusedError(f'it makes an array of another size than its {len(raw)} bytes')
    if dtype.kind == 'b' and raw.translate(None, b'\0\1'):
        raise PickleRefusedError('it makes truth values of something else than 0 and 1')
    if dtype.kind == 'U' and size:
        points = np.frombuffer(raw, dtype='<u4')
        if points.max() > _MAX_CODE_POINT or ((points >= 0xD800) & (points < 0xE000)).any():
            raise PickleRefusedError('it makes texts of numbers that are no characters')
    return dtype


class StandIn:
    """A name of a pickle that can be called, or serve as a mark, and nothing else."""

    __slots__ = ('_call',)

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, '_call', call)

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise PickleRefusedError('it changes what it names')

    def __setstate__(self, state: Any) -> None:
        raise PickleRefusedError('it changes what it names')


def numpy_stand_ins(budget: int) -> dict[str, Any]:
    """Stand-ins by the ``module.name`` that numpy 1 and 2 write.

    Args:
        budget: Bytes that arrays, texts and sets may take together. Every one of them stands in the file once, so that its size
            will do; a reader for many files takes ``sys.maxsize``.
    """
    left = [budget]

    def spend(amount: int) -> None:
        left[0] -= amount
        if left[0] < 0:
            raise PickleRefusedError('its objects need more memory than the file: it uses parts of it again and again')

    def reconstruct(kind: Any = None, shape: Any = None, code: Any = None) -> ReadArray:
        if kind is not mark and kind is not ReadArray or shape != (0,) or code not in (b'b', 'b'):
            raise PickleRefusedError('it makes an array in another way than numpy does')
        spend(1)
        return np.ndarray.__new__(ReadArray, (0,), np.int8)

    def scalar(kind: Any = None, raw: Any = None) -> np.generic:
        return np.frombuffer(raw, dtype=_checked((1,), kind, raw))[0]

    def from_buffer(raw: Any = None, kind: Any = None, shape: Any = None, order: Any = None, axes: Any = None) -> np.ndarray:
        dtype = _checked(shape, kind, raw)
        spend(len(raw))
        flat = np.frombuffer(bytearray(raw), dtype=dtype)
        if order in ('C', 'F'):
            return flat.reshape(shape, order=order)
        if order != 'K' or type(axes) is not tuple or sorted(axes) != list(range(len(shape))):
            raise PickleRefusedError('it orders an array in another way than numpy does')
        return flat.reshape(shape).transpose(axes)

    def encode(text: Any = None, encoding: Any = None) -> bytes:
        if type(text) is not str or encoding != 'latin1':
            raise PickleRefusedError('it encodes something else than the bytes of an array')
        spend(len(text))
        return text.encode('latin1')

    def collect(kind: type) -> Callable[..., Any]:
        def make(items: Any = ()) -> Any:
            if type(items) not in (list, tuple):
                raise PickleRefusedError(f'it makes a {kind.__name__} of something else than a list')
            spend(len(items))
            return kind(items)

        return make

    def no_bytes(*args: Any) -> bytes:
        if args:
            raise PickleRefusedError('it makes bytes of something else than bytes')
        return b''

    mark = StandIn(ReadArray)
    found = {
        'numpy.ndarray': mark,
        'numpy.dtype': StandIn(ReadDType),
        '_codecs.encode': StandIn(encode),
        # in old versions of Python a dict keeps no order
        'collections.OrderedDict': StandIn(collect(dict)),
    }
    for module in ('builtins', '__builtin__'):
        found |= {f'{module}.{kind.__name__}': StandIn(collect(kind)) for kind in (set, frozenset)}
        found[f'{module}.bytes'] = StandIn(no_bytes)
    for core in ('core', '_core'):
        found |= {
            f'numpy.{core}.multiarray._reconstruct': StandIn(reconstruct),
            f'numpy.{core}.multiarray.scalar': StandIn(scalar),
            f'numpy.{core}.numeric._frombuffer': StandIn(from_buffer),
        }
    return found
