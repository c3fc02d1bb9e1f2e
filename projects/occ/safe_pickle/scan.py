"""Walks through the instructions of a pickle before any of them is carried out."""

import mmap
import pickle
import pickletools
from dataclasses import dataclass
from functools import cache

import numba
import numpy as np

MAX_TUPLE_DEPTH = 64
MAX_INTEGER_BYTES = 64
# what the objects of a pickle may need in memory: info files need 3 to 8 times their size
EXPANSION, ALLOWANCE = 32, 256 << 20
# below this size Python walks in less time than numba needs to compile
_COMPILED_FROM = 64 << 10

# What an instruction does to the stack.
(
    _PUSH,
    _TUPLE_OF,
    _TUPLE,
    _COLLECT,
    _TAKE,
    _TAKE_TO_MARK,
    _CALL,
    _MARK,
    _POP,
    _POP_MARK,
    _DUP,
    _PUT,
    _MEMOIZE,
    _GET,
    _STOP,
    _NOTHING,
    _PERSID,
    _NEWOBJ,
) = range(18)
_REFUSED = 255
_ACTIONS = {
    _PUSH: (
        'BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT NONE NEWTRUE NEWFALSE SHORT_BINSTRING BINSTRING SHORT_BINBYTES BINBYTES '
        'BINBYTES8 BYTEARRAY8 SHORT_BINUNICODE BINUNICODE BINUNICODE8 EMPTY_LIST EMPTY_DICT EMPTY_SET EMPTY_TUPLE GLOBAL'
    ),
    _TUPLE_OF: 'TUPLE1 TUPLE2 TUPLE3',
    _TUPLE: 'TUPLE',
    _COLLECT: 'LIST DICT FROZENSET',
    _TAKE: 'APPEND SETITEM BUILD',
    _TAKE_TO_MARK: 'APPENDS SETITEMS ADDITEMS',
    _CALL: 'REDUCE STACK_GLOBAL',
    _MARK: 'MARK',
    _POP: 'POP',
    _POP_MARK: 'POP_MARK',
    _DUP: 'DUP',
    _PUT: 'BINPUT LONG_BINPUT',
    _MEMOIZE: 'MEMOIZE',
    _GET: 'BINGET LONG_BINGET',
    _STOP: 'STOP',
    _NOTHING: 'PROTO FRAME',
    _PERSID: 'BINPERSID',
    _NEWOBJ: 'NEWOBJ',
}
_COUNTS = dict(TUPLE1=1, TUPLE2=2, TUPLE3=3, APPEND=1, SETITEM=2, BUILD=1)
# bytes of CPython objects, each with its slot in a container
_SIZES = dict(
    BININT=40, BININT2=40, BINFLOAT=32, LONG1=48, LONG4=64, EMPTY_LIST=72, EMPTY_DICT=88, EMPTY_SET=232, SHORT_BINUNICODE=64,
    BINUNICODE=64, BINUNICODE8=64, SHORT_BINBYTES=48, BINBYTES=48, BINBYTES8=48, BYTEARRAY8=64, SHORT_BINSTRING=64,
    BINSTRING=64, TUPLE1=64, TUPLE2=72, TUPLE3=80, TUPLE=64, LIST=80, DICT=240, FROZENSET=240, SETITEM=96, REDUCE=160, BUILD=32,
    MEMOIZE=16, BINPUT=16, LONG_BINPUT=16, MARK=8, NEWOBJ=160, SETITEMS=48, ADDITEMS=32,
)  # fmt: skip
# how an argument is laid out, beside a fixed number of bytes
_TWO_LINES, _LENGTH1, _LENGTH4, _LENGTH8 = -1, -2, -3, -4

_OK, _CUT, _UNDERFLOW, _FORBIDDEN, _NO_MEMO, _BIG_MEMO, _DEEP, _FLOOD, _BIG_INTEGER = range(9)


class PickleRefusedError(pickle.UnpicklingError):
    """A pickle holds something that plain data never needs; the message says what."""


class PickleDamagedError(pickle.UnpicklingError):
    """The bytes are no whole pickle."""


@dataclass
class PickleScan:
    """What :func:`scan_pickle` found.

    Attributes:
        end: Position behind the pickle.
        names: ``module.name`` of its GLOBAL instructions, in order and without repetition.
    """

    end: int
    names: list[str]


def scan_pickle(data: bytes | mmap.mmap, start: int = 0, objects: bool = False) -> PickleScan:
    """Checks that a pickle of protocol 2 to 5 can be unpickled without harm to the interpreter.

    Refused are instructions that plain data does not contain, tuples nested so deeply that hashing one would overflow the
    stack, memo positions and objects that need far more memory than the file, and stacks that run empty.

    Args:
        data: Bytes with a pickle, and perhaps more behind it.
        start: Where the pickle begins.
        objects: Also allow instances of classes and persistent ids, which checkpoints contain.

    Returns:
        The end and the names of the pickle.

    Raises:
        PickleRefusedError: If something in it is never needed by plain data.
        PickleDamagedError: If it is cut short, no pickle at all, or of protocol 0 or 1.
    """
    if data[start : start + 1] != b'\x80':
        raise PickleDamagedError('it does not start with a protocol number; pickles of protocol 2 to 5 are read')
    if len(data) - start >= _COMPILED_FROM:
        status, end, positions = _compiled()(np.frombuffer(data, dtype=np.uint8), start, *_tables(objects))
    else:
        # in Python bytes and lists are several times faster than arrays
        status, end, positions = _walk(data, start, *_lists(objects))
    if status in (_CUT, _UNDERFLOW, _NO_MEMO):
        reasons = {_CUT: 'it is cut short', _UNDERFLOW: 'its stack runs empty', _NO_MEMO: 'it reads what it never stored'}
        raise PickleDamagedError(f'{reasons[status]} at byte {end}')
    if status != _OK:
        name = _code_names().get(data[end], f'with the code {data[end]}') if status == _FORBIDDEN else ''
        reasons = {
            _FORBIDDEN: f'it contains the instruction {name} at byte {end}, which plain data never needs',
            _BIG_MEMO: f'it numbers its objects beyond the size of the file (byte {end})',
            _DEEP: f'it nests more than {MAX_TUPLE_DEPTH} tuples (byte {end})',
            _FLOOD: f'its objects would need more than {EXPANSION} times the memory of the file (byte {end})',
            _BIG_INTEGER: f'it holds an integer of more than {MAX_INTEGER_BYTES} bytes (byte {end})',
        }
        raise PickleRefusedError(reasons[status])
    names: dict[str, None] = {}
    for position in positions.tolist():
        module, name, _ = data[position + 1 : position + 4096].split(b'\n', 2)
        names[f'{module.decode("utf-8", "replace")}.{name.decode("utf-8", "replace")}'] = None
    return PickleScan(int(end), list(names))


@cache
def _code_names() -> dict[int, str]:
    return {ord(op.code): op.name for op in pickletools.opcodes}


@cache
def _tables(objects: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Action, count, argument layout and memory by opcode, each (256,)."""
    actions = np.full(256, _REFUSED, dtype=np.uint8)
    counts, layout, sizes = (np.zeros(256, dtype=np.int64) for _ in range(3))
    lengths = {pickletools.TAKEN_FROM_ARGUMENT1: _LENGTH1, pickletools.TAKEN_FROM_ARGUMENT4: _LENGTH4}
    lengths |= {pickletools.TAKEN_FROM_ARGUMENT4U: _LENGTH4, pickletools.TAKEN_FROM_ARGUMENT8U: _LENGTH8}
    lengths |= {pickletools.UP_TO_NEWLINE: _TWO_LINES}
    action_of = {name: action for action, names in _ACTIONS.items() for name in names.split()}
    for op in pickletools.opcodes:
        code = ord(op.code)
        if op.name in action_of and (objects or action_of[op.name] not in (_PERSID, _NEWOBJ)):
            actions[code] = action_of[op.name]
        counts[code] = _COUNTS.get(op.name, 0)
        sizes[code] = _SIZES.get(op.name, 8)
        size = 0 if op.arg is None else op.arg.n
        layout[code] = lengths.get(size, size)
    return actions, counts, layout, sizes


@cache
def _lists(objects: bool) -> tuple[list[int], ...]:
    return tuple(table.tolist() for table in _tables(objects))


@cache
def _compiled():
    try:
        return numba.njit(cache=True)(_walk)
    except RuntimeError:  # no folder for the cache can be written
        return numba.njit(_walk)


def _walk(data, start, actions, counts, layout, sizes):
    """Follows the stack of a pickle with the depth of nested tuples in place of the objects (in Python or compiled).

    Returns:
        Status, position where it ended, positions of the GLOBAL instructions.
    """
    end, pos = len(data), start
    # memo: 0 where nothing is stored, else depth + 1
    stack, memo = np.zeros(64, dtype=np.int16), np.zeros(64, dtype=np.int16)
    marks, found = np.zeros(64, dtype=np.int64), np.zeros(64, dtype=np.int64)
    top = stored = depth = names = 0
    fence = 0  # what lies below the last mark cannot be taken
    limit = ALLOWANCE + EXPANSION * (end - start)
    memory = 0
    while pos < end:
        at = pos
        code = data[pos]
        action = actions[code]
        if action == _REFUSED:
            return _FORBIDDEN, at, found[:names]
        pos += 1
        memory += sizes[code]
        argument, size = 0, layout[code]
        if size == _TWO_LINES:
            for _ in range(2):
                while pos < end and data[pos] != 10:
                    pos += 1
                pos += 1
            size = 0
            if pos > end or pos - at > 2048:
                return _CUT, at, found[:names]
            if names == len(found):
                grown_names = np.zeros(2 * names, dtype=np.int64)
                grown_names[:names] = found
                found = grown_names
            found[names] = at
            names += 1
        elif size < 0:
            width = 1 if size == _LENGTH1 else 4 if size == _LENGTH4 else 8
            if pos + width > end:
                return _CUT, at, found[:names]
            length = 0
            for i in range(width):
                if i < 6:
                    length |= int(data[pos + i]) << (8 * i)
                elif data[pos + i]:
                    return _CUT, at, found[:names]
            pos += width
            size = length
            if (code == 0x8A or code == 0x8B) and length > MAX_INTEGER_BYTES:
                return _BIG_INTEGER, at, found[:names]
            memory += length
        elif size <= 4:
            if pos + size > end:
                return _CUT, at, found[:names]
            for i in range(size):
                argument |= int(data[pos + i]) << (8 * i)
        pos += size
        if pos > end:
            return _CUT, at, found[:names]

        if top + 2 > len(stack):
            grown = np.zeros(2 * len(stack), dtype=np.int16)
            grown[:top] = stack[:top]
            stack = grown
        if action == _PUSH:
            stack[top] = 0
            top += 1
        elif action == _GET:
            if argument >= len(memo) or memo[argument] == 0:
                return _NO_MEMO, at, found[:names]
            stack[top] = memo[argument] - 1
            top += 1
        elif action == _PUT or action == _MEMOIZE:
            if top <= fence:
                return _UNDERFLOW, at, found[:names]
            where = argument if action == _PUT else stored
            if where > at - start:
                return _BIG_MEMO, at, found[:names]
            if where >= len(memo):
                grown = np.zeros(2 * where, dtype=np.int16)
                grown[: len(memo)] = memo
                memo = grown
            if memo[where] == 0:
                stored += 1
            memo[where] = stack[top - 1] + 1
        elif action == _TUPLE_OF or action == _TUPLE or action == _COLLECT:
            if action == _TUPLE_OF:
                first = top - counts[code]
                if first < fence:
                    return _UNDERFLOW, at, found[:names]
            elif depth == 0:
                return _UNDERFLOW, at, found[:names]
            else:
                depth -= 1
                first = marks[depth]
                fence = marks[depth - 1] if depth else 0
            nested = 0
            if action != _COLLECT:
                for i in range(first, top):
                    nested = max(nested, stack[i])
                nested += 1
            if nested > MAX_TUPLE_DEPTH:
                return _DEEP, at, found[:names]
            memory += 8 * (top - first)
            stack[first] = nested
            top = first + 1
        elif action == _TAKE:
            top -= counts[code]
            if top <= fence:
                return _UNDERFLOW, at, found[:names]
        elif action == _TAKE_TO_MARK:
            if depth == 0:
                return _UNDERFLOW, at, found[:names]
            depth -= 1
            memory += sizes[code] * (top - marks[depth])
            top = marks[depth]
            fence = marks[depth - 1] if depth else 0
            if top <= fence:
                return _UNDERFLOW, at, found[:names]
        elif action == _CALL or action == _NEWOBJ:
            top -= 1
            if top <= fence:
                return _UNDERFLOW, at, found[:names]
            stack[top - 1] = 0
        elif action == _PERSID:
            if top <= fence:
                return _UNDERFLOW, at, found[:names]
            stack[top - 1] = 0
        elif action == _MARK:
            if depth == len(marks):
                grown_marks = np.zeros(2 * depth, dtype=np.int64)
                grown_marks[:depth] = marks
                marks = grown_marks
            marks[depth] = top
            depth += 1
            fence = top
        elif action == _POP:
            if depth and marks[depth - 1] == top:
                depth -= 1
                fence = marks[depth - 1] if depth else 0
            elif top <= fence:
                return _UNDERFLOW, at, found[:names]
            else:
                top -= 1
        elif action == _POP_MARK:
            if depth == 0:
                return _UNDERFLOW, at, found[:names]
            depth -= 1
            top = marks[depth]
            fence = marks[depth - 1] if depth else 0
        elif action == _DUP:
            if top <= fence:
                return _UNDERFLOW, at, found[:names]
            stack[top] = stack[top - 1]
            top += 1
        elif action == _STOP:
            return (_OK if top > fence else _UNDERFLOW), pos, found[:names]
        if memory > limit:
            return _FLOOD, at, found[:names]
    return _CUT, end, found[:names]
