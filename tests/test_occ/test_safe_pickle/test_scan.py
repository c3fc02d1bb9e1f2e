import pickle
import pickletools
import struct

import numpy as np
import pytest
from pickle_parts import EMPTY_TUPLE, START, STOP, TUPLE1, name, pickled

from projects.occ.safe_pickle import PickleDamagedError, PickleRefusedError, load_plain_pickle, scan_pickle
from projects.occ.safe_pickle import scan as scan_module

RNG = np.random.default_rng(0)
CONTENT = dict(
    infos=[
        dict(token=f'{i:032x}', cams=dict(front=[RNG.normal(), i, None, True, (i, (i, 'a'))]), box=RNG.normal(size=(i % 3, 7)))
        for i in range(40)
    ],
    more=[{1, 2}, frozenset({3}), b'abc', bytearray(b'abc'), 2**80, -1, 'ä', 'x' * 300, (1, 2, 3, 4), {}, []],
)


@pytest.fixture(params=['python', 'compiled'])
def walk(request, monkeypatch):
    monkeypatch.setattr(scan_module, '_COMPILED_FROM', 0 if request.param == 'compiled' else 1 << 60)


@pytest.mark.parametrize('protocol', [2, 3, 4, 5])
def test_pickles_of_data_pass(walk, protocol):
    data = pickle.dumps(CONTENT, protocol)
    for variant in (data, pickletools.optimize(data)):
        scan = scan_pickle(variant)
        assert scan.end == len(variant)
        named = {op[1].replace(' ', '.') for op in pickletools.genops(variant) if op[0].name == 'GLOBAL'}
        assert set(scan.names) == named
        assert scan_pickle(b'before' + variant + b'behind', 6).end == 6 + len(variant)


@pytest.mark.parametrize('protocol', [2, 4])
def test_every_shorter_file_is_damaged(walk, protocol):
    data = pickle.dumps(CONTENT['infos'][:2], protocol)
    for end in range(0, len(data), 3):
        with pytest.raises(PickleDamagedError):
            scan_pickle(data[:end])


def test_old_protocols_are_told(walk):
    for protocol in (0, 1):
        with pytest.raises(PickleDamagedError, match='protocol 2 to 5'):
            scan_pickle(pickle.dumps({'a': 1}, protocol))


@pytest.mark.parametrize(
    'code',
    [
        b'\x82\x01',  # EXT1
        b'P1\n',  # PERSID
        b'Q',  # BINPERSID
        b'\x81',  # NEWOBJ
        b'\x92',  # NEWOBJ_EX
        b'\x97',  # NEXT_BUFFER
        b'ios\nsystem\n',  # INST
        b'o',  # OBJ
        b'I1\n',  # INT
        b'\xff',
    ],
)
def test_instructions_that_no_data_needs_are_refused(walk, code):
    with pytest.raises(PickleRefusedError, match='instruction|code'):
        scan_pickle(START + b'(NN' + code + STOP)


def test_what_would_crash_or_flood_the_interpreter_is_refused(walk):
    # a hash of tuples in tuples goes down in C without looking at the stack
    deep = START + b'}' + EMPTY_TUPLE + TUPLE1 * 100_000 + b'Ns' + STOP
    through_memo = START + b'}' + EMPTY_TUPLE + b''.join(TUPLE1 + b'q\x00h\x00\x86' for _ in range(40)) + b'Ns' + STOP
    # the unpickler makes room for every position below the one that is written
    memo = START + b'Nr' + struct.pack('<I', 0x7FFFFFFF) + STOP
    sets = START + b'(' + b'\x8f' * 20_000_000 + b'l' + STOP
    integer = START + b'\x8b' + struct.pack('<i', 1 << 20) + bytes(1 << 20) + STOP
    room = START + b'\x96' + struct.pack('<Q', 1 << 40) + STOP
    for data in (deep, through_memo, memo, integer):
        with pytest.raises(PickleRefusedError):
            scan_pickle(data)
    with pytest.raises(PickleDamagedError):
        scan_pickle(room)
    if scan_module._COMPILED_FROM == 0:  # takes Python a minute
        with pytest.raises(PickleRefusedError, match='memory'):
            scan_pickle(sets)


@pytest.mark.parametrize(
    'body', [b'', b'a', b'R', b'0', b'h\x07', b'(', b'N(a', b'(t0', b'Nu', b'u', b'q\x00', b'1', b'2', b'b', b'(NR']
)
def test_stacks_that_run_empty_are_damage(walk, body):
    with pytest.raises(PickleDamagedError):
        scan_pickle(pickled(body))


def test_both_walks_agree_and_foresee_what_the_unpickler_does(monkeypatch):
    rng = np.random.default_rng(1)
    seeds = [pickle.dumps(CONTENT['infos'][:1] + CONTENT['more'], protocol) for protocol in (2, 3, 4, 5)]
    passed = 0
    for round_ in range(3000):
        data = bytearray(seeds[round_ % 4])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(2, len(data))] = rng.integers(0, 256)
        found = []
        for limit in (0, 1 << 60):
            monkeypatch.setattr(scan_module, '_COMPILED_FROM', limit)
            try:
                found.append(scan_pickle(bytes(data)))
            except (PickleRefusedError, PickleDamagedError) as error:
                found.append((type(error), str(error)))
        assert found[0] == found[1]
        if not isinstance(found[0], tuple):
            passed += 1
            try:
                load_plain_pickle(bytes(data))
            except (PickleRefusedError, PickleDamagedError) as error:
                # the stack of the unpickler is that of the walk
                assert 'underflow' not in str(error) and 'MARK' not in str(error)
    assert passed > 300


def test_names_are_listed_once(walk):
    assert scan_pickle(pickled(name('os', 'system'), name('a.b', 'c.d'), name('os', 'system'))).names == [
        'os.system',
        'a.b.c.d',
    ]
