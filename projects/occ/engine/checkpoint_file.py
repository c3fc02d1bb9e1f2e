"""Looks into a checkpoint file before torch loads it: is it whole, and does it hold tensors and plain data alone?

torch's weights-only loader runs no code, but it does not compare the check sums of the archive, takes callables of numpy once
they are registered, and builds tensors that are no weights. What passes here is a file that ``torch.save`` or mmengine write.
"""

import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from isal.isal_zlib import crc32  # reads memory as fast as it comes, zlib's at a sixth of that
from mmengine.logging import HistoryBuffer

from projects.occ.safe_pickle import (
    PickleDamagedError,
    PickleRefusedError,
    RestrictedUnpickler,
    StandIn,
    load_plain_pickle,
    numpy_stand_ins,
    scan_pickle,
    shown_name,
)

_ZIP_START = b'PK\x03\x04'
_ITEM_SIZES = dict(
    Double=8, Float=4, Half=2, BFloat16=2, Long=8, Int=4, Short=2, Char=1, Byte=1, Bool=1, ComplexDouble=16, ComplexFloat=8
)
_STATISTICS = ('min', 'max', 'current', 'mean')
_MAX_HISTORY = 10_000_000
_MAX_DIMS = 64
# tensors may share memory, and views of it may be expanded: their elements together must stay in bounds
_VIEWS, _ALLOWANCE = 4, 64 << 20
_CHECKERS, _LOCAL_HEADER = 4, 30
# what a damaged archive raises; the file itself has been opened before, so that OSError means a place that it does not have
_DAMAGE = (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, RuntimeError, struct.error, zlib.error, OSError)
_LEGACY_MAGIC, _LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001


class DamagedFileError(ValueError):
    """The file is cut short or some of its bytes are not what was written."""


class ReadHistory(HistoryBuffer):
    """Stands in for mmengine's log history in a checkpoint: takes numbers, and none of the functions that come with them."""

    def __new__(cls, *args: Any) -> 'ReadHistory':
        """Makes an empty one; histories are pickled without arguments."""
        if args:
            raise PickleRefusedError('it makes a HistoryBuffer in another way than mmengine does')
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Takes over two arrays of one length and the longest length."""
        if type(state) is not dict or not all(type(key) is str for key in state):
            raise PickleRefusedError('it gives a HistoryBuffer a state that mmengine does not write')
        arrays = [state.get(key) for key in ('_log_history', '_count_history')]
        length = state.get('max_length')
        if not all(isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in 'biuf' for array in arrays):
            raise PickleRefusedError('it holds a HistoryBuffer of something else than numbers')
        if len(arrays[0]) != len(arrays[1]) or type(length) is not int or not 0 < length <= _MAX_HISTORY:
            raise PickleRefusedError('it holds a HistoryBuffer whose numbers do not belong together')
        self.__dict__.update(max_length=length, _log_history=np.asarray(arrays[0]), _count_history=np.asarray(arrays[1]))
        self._set_default_statistics()

    def plain(self) -> HistoryBuffer:
        """The history as mmengine makes it."""
        return HistoryBuffer(*self.data, self.max_length)


def _history_statistic(owner: Any = None, name: Any = None) -> str:
    """Stands in for ``builtins.getattr``: names the four statistics of HistoryBuffer, reaches nothing."""
    if owner is not ReadHistory or type(name) is not str or name not in _STATISTICS:
        raise PickleRefusedError('it calls builtins.getattr')
    return name


def mmengine_stand_ins() -> dict[str, Any]:
    """Stand-ins by ``module.name`` for what mmengine's own checkpoints hold beside tensors and plain data."""
    return {
        'mmengine.logging.history_buffer.HistoryBuffer': ReadHistory,
        'builtins.getattr': StandIn(_history_statistic),
        '__builtin__.getattr': StandIn(_history_statistic),
    }


class _Mark:
    """Something that torch will make; nothing can be done with it here."""

    __slots__ = ('item_size', 'numel')

    def __init__(self, item_size: int = 0, numel: int = 0) -> None:
        self.item_size, self.numel = item_size, numel

    def __setstate__(self, state: Any) -> None:
        raise PickleRefusedError('it changes a tensor after it was made')


class _Ordered(dict):
    """Stands in for an OrderedDict, of which state dicts have an attribute ``_metadata``."""

    def __setstate__(self, state: Any) -> None:
        versions = state.get('_metadata', {}) if type(state) is dict and set(state) <= {'_metadata'} else None
        if not isinstance(versions, dict) or not all(
            type(key) is str
            and type(value) is dict
            and set(value) <= {'version'}
            and type(value.get('version')) in (int, type(None))
            for key, value in versions.items()
        ):
            raise PickleRefusedError('it gives an OrderedDict attributes that state dicts do not have')


class _CheckpointNames:
    """Stand-ins for the names of one checkpoint.

    Args:
        size: Bytes of the file.
        record_size: Bytes of a storage by its key, None if there is no such storage; no function if the file does not say.
        text_budget: Bytes of the pickle.
    """

    def __init__(self, size: int, record_size: Callable[[str], int | None] | None, text_budget: int) -> None:
        self._left = _VIEWS * size + _ALLOWANCE
        self._size, self._record_size = size, record_size
        self._storages: dict[str, _Mark] = {}
        self._kinds = {f'torch.{name}Storage': _Mark(item) for name, item in _ITEM_SIZES.items()}
        self._kinds |= {f'torch.cuda.{name}Storage': _Mark(item) for name, item in _ITEM_SIZES.items()}
        values = {str(dtype): _Mark() for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}
        self.names: dict[str, Any] = {
            **numpy_stand_ins(text_budget),
            **mmengine_stand_ins(),
            **self._kinds,
            **values,
            'collections.OrderedDict': StandIn(self._ordered),
            'collections.Counter': StandIn(self._ordered),
            'builtins.complex': StandIn(self._complex),
            '__builtin__.complex': StandIn(self._complex),
            'torch.Size': StandIn(self._size_of),
            'torch.device': StandIn(self._device),
            'torch._utils._rebuild_tensor': StandIn(self._tensor),
            'torch._utils._rebuild_tensor_v2': StandIn(self._tensor),
            'torch._utils._rebuild_parameter': StandIn(self._parameter),
        }

    def storage(self, pid: Any) -> _Mark:
        """The storage that a persistent id means."""
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != 'storage' or pid[5:] not in ((), (None,)):
            raise PickleRefusedError('it refers to something else than a storage')
        _, kind, key, location, numel = pid[:5]
        if type(kind) is not _Mark or not kind.item_size or type(key) is not str or type(location) is not str:
            raise PickleRefusedError('it refers to a storage in another way than torch does')
        if type(numel) is not int or not 0 <= numel * kind.item_size <= self._size:
            raise PickleRefusedError(f'storage {key!r} is larger than the file')
        known = self._storages.setdefault(key, _Mark(kind.item_size, numel))
        if (known.item_size, known.numel) != (kind.item_size, numel):
            raise PickleRefusedError(f'it refers to storage {key!r} with two sizes')
        if self._record_size is not None and self._record_size(key) != numel * kind.item_size:
            raise PickleRefusedError(f'storage {key!r} does not have the size of its record')
        return known

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> _Mark:
        sizes = (type(size), type(stride), type(offset)) == (tuple, tuple, int)
        if type(storage) is not _Mark or not storage.item_size or not sizes or len(size) != len(stride) > _MAX_DIMS:
            raise PickleRefusedError('it makes a tensor in another way than torch does')
        if any(type(n) is not int or n < 0 for n in (offset, *size, *stride)) or len(size) > _MAX_DIMS:
            raise PickleRefusedError('it makes a tensor of an impossible shape')
        if rest and (type(rest[0]) is not bool or any(rest[1:])):
            raise PickleRefusedError('it gives a tensor hooks or attributes')
        numel, last = 1, offset
        for n, step in zip(size, stride):
            numel *= n
            last += (n - 1) * step
        if numel and last >= storage.numel:
            raise PickleRefusedError('it makes a tensor that is larger than its storage')
        self._left -= numel * storage.item_size
        if self._left < 0:
            raise PickleRefusedError('its tensors repeat the same memory again and again')
        return _Mark()

    @staticmethod
    def _parameter(data: Any, requires_grad: Any = True, hooks: Any = None) -> _Mark:
        if type(data) is not _Mark or type(requires_grad) is not bool or hooks:
            raise PickleRefusedError('it makes a parameter in another way than torch does')
        return _Mark()

    @staticmethod
    def _ordered(items: Any = ()) -> _Ordered:
        if type(items) not in (list, tuple, dict) or len(items) > 1_000_000:
            raise PickleRefusedError('it makes an OrderedDict of something else than a list')
        return _Ordered(items)

    @staticmethod
    def _complex(real: Any = 0, imaginary: Any = 0) -> complex:
        if type(real) not in (int, float) or type(imaginary) not in (int, float):
            raise PickleRefusedError('it makes a complex number of something else than two numbers')
        return complex(real, imaginary)

    @staticmethod
    def _size_of(items: Any = ()) -> tuple:
        if type(items) not in (list, tuple) or any(type(n) is not int for n in items) or len(items) > _MAX_DIMS:
            raise PickleRefusedError('it makes a torch.Size of something else than a shape')
        return tuple(items)

    @staticmethod
    def _device(kind: Any = None, index: Any = None) -> _Mark:
        if type(kind) is not str or type(index) not in (int, type(None)):
            raise PickleRefusedError('it makes a torch.device of something else than a name')
        return _Mark()


@contextmanager
def checked_file(path: str | os.PathLike) -> Iterator[None]:
    """Checks a checkpoint file around the block that loads it.

    What torch unpickles is checked before; the check sums of the records, which are read at the same time as torch reads them,
    are compared at the end, so that nothing leaves the block that is not whole.

    Raises:
        PickleRefusedError: If the file holds more than tensors and plain data, or tensors that could harm the process.
        DamagedFileError: If it is no checkpoint, or a record of it is damaged.
        OSError: If it cannot be read.
    """
    with open(path, 'rb') as file:
        zipped = file.read(len(_ZIP_START)) == _ZIP_START
        if not zipped:
            if not os.path.getsize(path):
                raise DamagedFileError('it is empty')
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _check_legacy(data)
    if not zipped:
        yield
        return
    with _open_archive(path) as (archive, pickled):
        size = os.path.getsize(path)
        try:
            data = archive.read(pickled)
        except _DAMAGE as error:
            raise DamagedFileError(f'its record {pickled.filename!r} cannot be read ({error})') from error
        folder = pickled.filename.removesuffix('data.pkl')
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        _check_pickle(data, _CheckpointNames(size, lambda key: sizes.get(f'{folder}data/{key}'), len(data)))
        with _mapped(path) as view, ThreadPoolExecutor(_CHECKERS) as pool:
            damaged = pool.map(lambda info: _is_damaged(view, info), archive.infolist())
            failure: Exception | None = None
            try:
                yield
            except Exception as error:  # a damaged record may be the reason
                failure = error
            for info, bad in zip(archive.infolist(), damaged):
                if bad:
                    raise DamagedFileError(f'its record {info.filename!r} does not have the check sum that it was written with')
        if failure is not None:
            raise failure


@contextmanager
def _mapped(path: str | os.PathLike) -> Iterator[memoryview]:
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        yield view


@contextmanager
def _open_archive(path: str | os.PathLike) -> Iterator[tuple[zipfile.ZipFile, zipfile.ZipInfo]]:
    """The archive, if every reader of zip files must see the same records in it, and the record of its pickle."""
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise DamagedFileError(f'its list of records cannot be read ({error}), so it is cut short') from error
    with archive:
        infos = archive.infolist()
        names = [info.filename for info in infos]
        folder = names[0].split('/')[0] if names else ''
        if archive.comment or len({name.lower() for name in names}) != len(names):
            raise PickleRefusedError('its archive holds a comment, or a record twice')
        if any(info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size for info in infos):
            raise PickleRefusedError('its archive is compressed, which torch.save never does')
        if any(info.flag_bits & 1 or not info.filename.startswith(f'{folder}/') for info in infos):
            raise PickleRefusedError('its archive holds records outside of its folder')
        if sum(info.file_size for info in infos) > os.path.getsize(path):
            raise PickleRefusedError('its records overlap')
        if f'{folder}/data.pkl' not in names or f'{folder}/constants.pkl' in names:
            raise PickleRefusedError('it is an archive of another kind (TorchScript, or no file of torch.save)')
        yield archive, archive.getinfo(f'{folder}/data.pkl')


def _is_damaged(data: memoryview, info: zipfile.ZipInfo) -> bool:
    header = bytes(data[info.header_offset : info.header_offset + _LOCAL_HEADER])
    if len(header) < _LOCAL_HEADER or not header.startswith(_ZIP_START):
        return True
    start = info.header_offset + _LOCAL_HEADER + sum(struct.unpack('<HH', header[26:]))
    with data[start : start + info.file_size] as record:
        return len(record) != info.file_size or crc32(record) != info.CRC


def _check_pickle(data: bytes, names: _CheckpointNames, start: int = 0, end: int | None = None) -> None:
    try:
        unknown = [name for name in scan_pickle(data, start, objects=True).names if name not in names.names]
        if unknown:
            raise PickleRefusedError(f'it names {", ".join(map(shown_name, unknown[:5]))}{", ..." if len(unknown) > 5 else ""}')
        RestrictedUnpickler(data[start:end], names.names, names.storage, encoding='utf-8').load()
    except PickleRefusedError:
        raise
    except Exception as error:  # whatever the bytes of a file that is none make the unpickler do
        raise DamagedFileError(f'its list of tensors cannot be read ({str(error) or type(error).__name__})') from error


def _check_legacy(data: mmap.mmap) -> None:
    """A file as torch wrote it before version 1.6: five pickles one after the other, then the storages."""
    start, parts = 0, []
    try:
        for _ in range(5):
            parts.append((start, scan_pickle(data, start, objects=True).end))
            start = parts[-1][1]
        magic, version = (load_plain_pickle(data[slice(*part)]) for part in parts[:2])
    except PickleDamagedError as error:
        raise DamagedFileError(f'it starts with {data[:16]!r}') from error
    if magic != _LEGACY_MAGIC or version != _LEGACY_VERSION:
        raise DamagedFileError(f'it starts with {data[:16]!r}')
    for part in (parts[2], parts[4]):
        load_plain_pickle(data[slice(*part)])
    _check_pickle(data, _CheckpointNames(len(data), None, len(data)), *parts[3])
