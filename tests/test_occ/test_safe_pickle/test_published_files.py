"""Files of other people that have to load: real annotation files, and checkpoints in the layouts of official weights."""

import pytest
import torch
from pickle_parts import call, name, pickled, text

from projects.occ.datasets.info_formats import read_info_file
from projects.occ.datasets.safe_pickle import load_numpy_pickle
from projects.occ.engine.checkpoint import load_from_local
from projects.occ.safe_pickle import PickleRefusedError, load_plain_pickle

INFOS = {
    'nuscenes_mini_val_infos/nuscenes_infos_val.pkl': ('bevdet', 81),
    'nuscenes_frame/n015-2018-07-24-11-22-45+0800.pkl': ('mmdet3d-v2', 1),
}


@pytest.mark.parametrize('file', INFOS)
def test_real_annotation_files(shared_root, file):
    path = shared_root / 'data' / file
    if not path.is_file():
        pytest.skip(f'{path} is not here')
    found = read_info_file(str(path))
    assert (found.format, len(found.records)) == INFOS[file]


def test_every_real_pickle_loads(shared_root):
    paths = sorted((shared_root / 'data').rglob('*.pkl'))
    if not paths:
        pytest.skip('there are no real annotation files here')
    for path in paths:
        assert isinstance(load_numpy_pickle(str(path)), dict)


def test_checkpoints_in_the_layouts_of_official_weights(golden_dir):
    names = ['surroundocc_small.pt', 'symphonies_small.pt', 'tpvformer_small.pt']
    for file in names:
        ours, plain = load_from_local(golden_dir / file), torch.load(golden_dir / file, weights_only=True)
        assert list(ours) == list(plain)
        assert all(torch.equal(value, plain['state_dict'][key]) for key, value in ours.get('state_dict', {}).items())


def test_names_reach_no_terminal_as_they_are():
    with pytest.raises(PickleRefusedError) as caught:
        load_plain_pickle(pickled(call(name('\x1b[2Jos', 'system'), text('true'))))
    assert '\x1b' not in str(caught.value) and 'system' in str(caught.value)
