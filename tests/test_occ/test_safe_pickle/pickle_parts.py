"""Pickles written instruction by instruction."""

import struct

START = b'\x80\x02'
EMPTY_TUPLE, MARK, TUPLE, REDUCE, BUILD, STOP, TUPLE1, TUPLE2, TUPLE3 = (
    b')',
    b'(',
    b't',
    b'R',
    b'b',
    b'.',
    b'\x85',
    b'\x86',
    b'\x87',
)


def name(module: str, attribute: str) -> bytes:
    return f'c{module}\n{attribute}\n'.encode()


def text(value: str) -> bytes:
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data


def number(value: int) -> bytes:
    return b'J' + struct.pack('<i', value)


def raw(value: bytes) -> bytes:
    """Bytes as Python 3 writes them in protocol 2."""
    return call(name('_codecs', 'encode'), text(value.decode('latin1')), text('latin1'))


def items(*values: bytes) -> bytes:
    return MARK + b''.join(values) + TUPLE


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + items(*arguments) + REDUCE


def dtype(code: str = 'f8', state: bytes | None = None) -> bytes:
    if state is None:
        state = items(number(3), text('<'), b'N', b'N', b'N', number(-1), number(-1), number(0))
    return call(name('numpy', 'dtype'), text(code), b'\x89', b'\x88') + state + BUILD


def array(shape: bytes, kind: bytes, data: bytes, fortran: bytes = b'\x89') -> bytes:
    empty = call(name('numpy.core.multiarray', '_reconstruct'), name('numpy', 'ndarray'), items(number(0)), raw(b'b'))
    return empty + items(number(1), shape, kind, fortran, data) + BUILD


def pickled(*parts: bytes) -> bytes:
    return START + b''.join(parts) + STOP
