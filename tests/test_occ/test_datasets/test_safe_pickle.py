import os
import pickle

import numpy as np
import pytest

from projects.occ.datasets.safe_pickle import load_numpy_pickle


class _Attack:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


@pytest.mark.parametrize('protocol', [2, 4, 5])
def test_arrays_and_plain_data_load(tmp_path, protocol):
    content = {
        'a': np.arange(6.0).reshape(2, 3),
        'names': np.array(['car', 'bus']),
        'scalar': np.float64(2.5),
        'flag': np.bool_(True),
        'plain': [1, 'x', (None, b'y'), {3}],
    }
    path = tmp_path / 'a.pkl'
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    loaded = load_numpy_pickle(str(path))
    assert np.array_equal(loaded['a'], content['a'])
    assert loaded['names'].tolist() == ['car', 'bus']
    assert loaded['scalar'] == 2.5 and loaded['flag'] and loaded['plain'] == content['plain']


def test_arrays_written_by_either_numpy_generation_load(tmp_path):
    data = pickle.dumps(np.arange(3), protocol=2)
    for old, new in ((b'numpy.core.', b'numpy._core.'), (b'numpy._core.', b'numpy.core.')):
        path = tmp_path / 'a.pkl'
        path.write_bytes(data.replace(old, new))
        assert load_numpy_pickle(str(path)).tolist() == [0, 1, 2]


def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path):
    marker = tmp_path / 'owned'
    path = tmp_path / 'evil.pkl'
    path.write_bytes(pickle.dumps({'infos': [_Attack(marker)]}))
    with pytest.raises(ValueError, match=r'evil\.pkl: refused to load .* names (posix|nt)\.system.*could run code'):
        load_numpy_pickle(str(path))
    assert not marker.exists()


@pytest.mark.parametrize('name', ['builtins eval', 'builtins getattr', 'numpy load', 'numpy.f2py.diagnose run'])
def test_other_names_are_refused(tmp_path, name):
    path = tmp_path / 'evil.pkl'
    path.write_bytes(b'\x80\x02c' + name.replace(' ', '\n').encode() + b'\n.')
    with pytest.raises(ValueError, match='refused to load'):
        load_numpy_pickle(str(path))


@pytest.mark.parametrize('data', [b'', b'not a pickle', pickle.dumps({'a': np.arange(100)})[:60]])
def test_damaged_files_give_one_message(tmp_path, data):
    path = tmp_path / 'cut.pkl'
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r'cut\.pkl: not a readable pickle .*download or make the file again'):
        load_numpy_pickle(str(path))
