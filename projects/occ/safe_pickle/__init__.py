"""Pickles of strangers: only plain Python data and numpy arrays come out of them, and nothing in them runs.

A pickle is a program for a small stack machine. :mod:`.scan` walks through it first and refuses instructions that no data
needs, or that would crash or flood the interpreter; :mod:`.unpickler` then hands out checking stand-ins (:mod:`.stand_ins`)
for the few names that arrays consist of, never numpy's own callables, which can be led to read memory that is not theirs.
"""

from .scan import PickleDamagedError, PickleRefusedError, scan_pickle
from .stand_ins import ReadArray, ReadDType, StandIn, numpy_stand_ins
from .unpickler import RestrictedUnpickler, load_plain_pickle, shown_name

__all__ = [
    'PickleDamagedError',
    'PickleRefusedError',
    'ReadArray',
    'ReadDType',
    'RestrictedUnpickler',
    'StandIn',
    'load_plain_pickle',
    'numpy_stand_ins',
    'scan_pickle',
    'shown_name',
]
