import pickle

import numpy as np
import pytest
from pickle_parts import BUILD, REDUCE, array, call, dtype, items, name, number, pickled, raw, text

from projects.occ.safe_pickle import PickleDamagedError, PickleRefusedError, ReadArray, load_plain_pickle

EIGHT = raw(b'AAAAAAAA')
ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.array(['car', 'Straße']),
    np.array([b'ab', b'c']),
    np.array([True, False]),
    np.zeros((0, 7), np.float32),
    np.array(3.5),
    np.arange(5000, dtype=np.uint8),
    np.array([1 + 2j], np.complex64),
    np.arange(24.0).reshape(2, 3, 4)[:, ::2],
]
SCALARS = [np.float64(2.5), np.float32(1), np.int64(-3), np.uint8(7), np.bool_(True), np.str_('ab'), np.bytes_(b'ab')]


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
@pytest.mark.parametrize('core', [b'numpy.core.', b'numpy._core.'])
def test_what_numpy_writes_is_read(protocol, core):
    data = pickle.dumps([*ARRAYS, *SCALARS], protocol)
    if protocol < 4:  # later ones tell the length of the name
        data = data.replace(b'numpy.core.', core).replace(b'numpy._core.', core)
    loaded = load_plain_pickle(data)
    for read, written in zip(loaded, [*ARRAYS, *SCALARS], strict=True):
        assert read.dtype == written.dtype and read.shape == written.shape and np.array_equal(read, written)
        assert isinstance(read, np.ndarray) == isinstance(written, np.ndarray)
    assert loaded[1].flags.f_contiguous
    loaded[0][0, 0] = 9.0  # as writeable as any


def test_a_read_array_is_written_as_any_other():
    read = load_plain_pickle(pickle.dumps(np.arange(3), 2))
    assert isinstance(read, ReadArray) and type(np.asarray(read)) is np.ndarray
    for protocol in (2, 5):
        again = pickle.loads(pickle.dumps(read, protocol))
        assert type(again) is np.ndarray and again.tolist() == [0, 1, 2]


def state(*parts: bytes) -> bytes:
    return items(*parts)


PLAIN = (number(3), text('<'), b'N', b'N', b'N', number(-1), number(-1), number(0))
ONE = (items(number(1)), dtype('f8', state(*PLAIN)), EIGHT)
REFUSED = {
    'object array of bytes, the crash of 90 bytes': call(
        name('__builtin__', 'set'), call(name('numpy', 'ndarray'), items(number(1)), text('O'), EIGHT)
    ),
    'ndarray with a buffer': call(name('numpy', 'ndarray'), items(number(1)), text('f8'), EIGHT),
    'object dtype': array(items(number(1)), dtype('O'), b'(Nl'),
    'void dtype': array(items(number(1)), dtype('V8'), EIGHT),
    'date dtype': array(items(number(1)), dtype('M8'), EIGHT),
    'fields by text': array(items(number(1)), dtype('i4,i4'), EIGHT),
    'long text': array(items(number(0)), dtype('U99999'), raw(b'')),
    'texts without length': array(items(number(1 << 30)), dtype('U0'), raw(b'')),
    'flags': array(items(number(1)), dtype('f8', state(*PLAIN[:7], number(63))), EIGHT),
    'sub-array': array(items(number(1)), dtype('f8', state(*PLAIN[:2], items(number(1), number(9)), *PLAIN[3:])), EIGHT),
    'fields': array(items(number(1)), dtype('f8', state(*PLAIN[:3], items(text('a')), b'}', *PLAIN[5:])), EIGHT),
    'size': array(items(number(1)), dtype('f8', state(*PLAIN[:5], number(1 << 20), *PLAIN[6:])), EIGHT),
    'foreign byte order': array(items(number(1)), dtype('f8', state(number(3), text('>'), *PLAIN[2:])), EIGHT),
    'metadata': array(items(number(1)), dtype('f8', state(number(4), *PLAIN[1:], b'}')), EIGHT),
    'too many elements': array(items(number(1000)), dtype(), EIGHT),
    'two negative lengths': array(items(number(-1), number(-1)), dtype(), EIGHT),
    'overflowing lengths': array(items(*[number(1 << 16)] * 4, number(0)), dtype(), raw(b'')),
    'rows without elements': array(items(number(1 << 30), number(0)), dtype(), raw(b'')),
    'shape that is a list': array(b'](K\x01e', dtype(), EIGHT),
    'shape of truth values': array(items(b'\x88'), dtype(), EIGHT),
    'data that is text': array(items(number(1)), dtype(), text('AAAAAAAA')),
    'dtype that is text': array(items(number(1)), text('O'), EIGHT),
    'truth values of 2': array(items(number(8)), dtype('b1'), EIGHT),
    'no character': array(items(number(2)), dtype('U1', state(*PLAIN[:5], number(4), number(4), number(8))), EIGHT),
    'filled twice': array(*ONE) + items(number(1), ONE[0], dtype(), b'\x89', EIGHT) + BUILD,
    'reconstruct of another shape': call(
        name('numpy.core.multiarray', '_reconstruct'), name('numpy', 'ndarray'), items(number(1 << 30)), raw(b'b')
    ),
    'reconstruct of a set': call(
        name('numpy.core.multiarray', '_reconstruct'), name('__builtin__', 'set'), items(number(0)), raw(b'b')
    ),
    'scalar of an object': call(name('numpy.core.multiarray', 'scalar'), dtype('O'), EIGHT),
    'scalar of too few bytes': call(name('numpy.core.multiarray', 'scalar'), dtype('c16'), EIGHT),
    'frombuffer of an object': call(
        name('numpy.core.numeric', '_frombuffer'), EIGHT, dtype('O'), items(number(1)), text('C')
    ),
    'frombuffer with wild axes': call(
        name('numpy._core.numeric', '_frombuffer'), EIGHT, dtype(), items(number(1)), text('K'), items(number(7))
    ),
    'encode with another codec': call(name('_codecs', 'encode'), text('A' * 9), text('idna')),
    'decode': call(name('_codecs', 'decode'), EIGHT, text('zip')),
    'bytes of a number': call(name('__builtin__', 'bytes'), number(1 << 30)),
    'set of a text': call(name('__builtin__', 'set'), text('abc')),
    'attributes of a name': name('numpy', 'dtype') + items(b'N', b'}' + text('_call') + b'Ns') + BUILD,
    'state of a name': name('numpy', 'ndarray') + b'}' + text('__setstate__') + b'Ns' + BUILD,
    'class of an array': name('projects.occ.safe_pickle.stand_ins', 'ReadArray'),
    'attribute of an allowed name': name('numpy', 'dtype.__init__'),
    'eval': call(name('builtins', 'eval'), text('1')),
}  # fmt: skip


def test_the_parts_of_the_attacks_make_an_array_where_they_are_right():
    assert load_plain_pickle(pickled(array(*ONE))).tobytes() == b'AAAAAAAA'
    text_array = array(
        items(number(1)), dtype('U2', state(*PLAIN[:5], number(8), number(4), number(8))), raw(b'A\0\0\0B\0\0\0')
    )
    assert load_plain_pickle(pickled(text_array)).tolist() == ['AB']


@pytest.mark.parametrize('what', REFUSED)
def test_everything_else_is_refused(what):
    with pytest.raises(PickleRefusedError):
        load_plain_pickle(pickled(REFUSED[what]))
    # and nothing of it changed the stand-ins
    assert load_plain_pickle(pickle.dumps(np.arange(3), 2)).tolist() == [0, 1, 2]


def test_an_array_cannot_be_called():
    with pytest.raises(PickleDamagedError, match='not callable'):
        load_plain_pickle(pickled(array(*ONE), b')', REDUCE))


def test_the_bytes_of_a_file_cannot_be_used_again_and_again():
    long = text('A' * 100_000) + b'q\x01'
    encode = name('_codecs', 'encode') + b'q\x02'
    again = b'h\x02' + items(b'h\x01', text('latin1')) + REDUCE
    with pytest.raises(PickleRefusedError, match='again and again'):
        load_plain_pickle(pickled(b'](', long, encode, again * 1000, b'e'))
