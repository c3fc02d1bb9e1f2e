import pickle
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from checkpoint_files import rewrite, with_code_texts, with_pickle
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn
from toy_occupancy import evaluate, load_tool, train, write_config

from projects.occ.engine.checkpoint import load_from_local, loading_policy
from projects.occ.engine.errors import CheckpointError

WITHOUT_HOOKS = """
default_hooks.update(
    plain_checkpoint=dict(type='EmptyCacheHook', _delete_=True), checkpoint_keys=dict(type='EmptyCacheHook', _delete_=True))
"""


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Config and checkpoint of one finished toy training."""
    folder = tmp_path_factory.mktemp('trained')
    config = write_config(folder)
    assert train(config, '--cfg-options', 'train_cfg.max_epochs=1') == 0
    return config, folder / 'work_toy' / 'epoch_1.pth'


@pytest.fixture
def weights(tmp_path):
    """A small file of weights."""
    path = tmp_path / 'weights.pth'
    torch.save(dict(state_dict=nn.Linear(100, 7).state_dict(), meta=dict(epoch=1)), path)
    return path


def test_texts_of_configs_never_run(trained, tmp_path, monkeypatch):
    config, good = trained
    mark = tmp_path / 'mark'
    bad = with_code_texts(good, tmp_path / 'bad.pth', mark)
    # a hook of the config must not be what protects
    bare = write_config(tmp_path, 'bare', WITHOUT_HOOKS)
    assert evaluate(config, bad) == 0
    assert train(config, '--cfg-options', f'load_from={bad}', 'train_cfg.max_epochs=1') == 0
    init = f"model['init_cfg'] = dict(type='Pretrained', checkpoint={str(bad)!r})\n"
    assert train(write_config(tmp_path, 'init', init), '--cfg-options', 'train_cfg.max_epochs=1') == 0
    assert train(config, '--resume', bad, '--cfg-options', 'train_cfg.max_epochs=2') == 0
    assert train(bare, '--cfg-options', 'train_cfg.max_epochs=1') == 0
    stock = with_code_texts(tmp_path / 'work_bare' / 'epoch_1.pth', tmp_path / 'stock.pth', mark)
    assert train(bare, '--resume', stock, '--cfg-options', 'train_cfg.max_epochs=2') == 0
    assert not mark.exists()


def test_the_other_runner_and_the_inferencer_of_mmengine_get_no_text_either(trained, tmp_path):
    mark = tmp_path / 'mark'
    bad = with_code_texts(trained[1], tmp_path / 'bad.pth', mark)
    for content in (CheckpointLoader.load_checkpoint(str(bad)), load_from_local(bad)):
        assert not {'config', 'cfg'} & set(content['meta'])
        assert 'cfg' not in content['message_hub']['runtime_info']
        assert content['meta']['epoch'] == 1  # the rest stays
    with loading_policy(trust=True):
        assert 'config' in load_from_local(bad)['meta']


def test_a_trained_file_of_mmengine_with_its_history_and_numpy_scalars_loads(tmp_path):
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = dict(
        meta=dict(iter=np.int64(4), dataset_meta=dict(palette=np.arange(9).reshape(3, 3), size=torch.Size([1, 2]))),
        state_dict=model.state_dict(),
        half=[torch.zeros(2, dtype=kind) for kind in (torch.float16, torch.bfloat16, torch.int32, torch.bool, torch.uint8)],
        parameter=model.weight,
        optimizer=optimizer.state_dict(),
        param_schedulers=[dict(milestones=Counter([3, 4]), base=1e-3)],
        message_hub=dict(log_scalars=OrderedDict(loss=HistoryBuffer([1.0, 3.0], [1, 1])), eta=np.float64(0.1)),
        transposed=torch.arange(6).reshape(2, 3).t(),
        empty=torch.zeros(0, 3),
    )  # fmt: skip
    for new in (True, False):
        torch.save(content, tmp_path / 'stock.pth', _use_new_zipfile_serialization=new)
        loaded = load_from_local(tmp_path / 'stock.pth')
        history = loaded['message_hub']['log_scalars']['loss']
        assert type(history) is HistoryBuffer and history.mean() == 2 and history.statistics('max') == 3
        assert torch.equal(loaded['state_dict']['weight'], model.weight) and loaded['meta']['iter'] == 4
        assert loaded['state_dict']._metadata is not None and torch.equal(loaded['transposed'], content['transposed'])
        assert loaded['meta']['dataset_meta']['palette'].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
        assert loaded['param_schedulers'][0]['milestones'] == Counter([3, 4])
        optimizer.load_state_dict(loaded['optimizer'])


def test_numpys_own_callables_are_never_handed_out(weights, tmp_path):
    """The crash of issue number one: an array of objects made of the bytes of the file."""
    attack = (
        b'\x80\x02c__builtin__\nset\ncnumpy\nndarray\n(K\x01\x85X\x01\x00\x00\x00Oc_codecs\nencode\n'
        b'X\x08\x00\x00\x00AAAAAAAAX\x06\x00\x00\x00latin1\x86RtR\x85R.'
    )
    bad = with_pickle(weights, tmp_path / 'bad.pth', lambda data: attack)
    with pytest.raises(CheckpointError, match='nothing was loaded'):
        load_from_local(bad)
    # torch alone, after this package was imported
    with pytest.raises(pickle.UnpicklingError):
        torch.load(bad, weights_only=True)
    assert not {np.ndarray, np.dtype} & set(torch.serialization.get_safe_globals())


@pytest.mark.parametrize('new', [True, False])
def test_every_flipped_bit_is_found(tmp_path, new):
    path, bad = tmp_path / 'good.pth', tmp_path / 'bad.pth'
    state = nn.Linear(64, 64).state_dict()
    torch.save(dict(state_dict=state), path, _use_new_zipfile_serialization=new)
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, len(data), 60):
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(0, 8))
        bad.write_bytes(damaged)
        try:
            loaded = load_from_local(bad)
        except CheckpointError as error:
            assert 'bad.pth' in str(error)
            refused += 1
            continue
        if new:  # only the padding between records may differ
            assert all(torch.equal(loaded['state_dict'][key], value) for key, value in state.items())
    assert refused > (45 if new else 0)


def test_the_damaged_record_is_named(weights, tmp_path):
    data = bytearray(weights.read_bytes())
    with zipfile.ZipFile(weights) as archive:
        record = next(info for info in archive.infolist() if info.filename.endswith('data/0'))
        data[data.index(archive.read(record)) + 17] ^= 1
    (tmp_path / 'bad.pth').write_bytes(data)
    with pytest.raises(CheckpointError, match=r"record '\w+/data/0'"):
        load_from_local(tmp_path / 'bad.pth')


def test_archives_that_torch_does_not_write_are_refused(weights, tmp_path):
    def same(name, data):
        return data

    bad = tmp_path / 'bad.pth'
    rewrite(weights, bad, same)
    assert load_from_local(bad)['meta']['epoch'] == 1
    attempts = [lambda: rewrite(weights, bad, same, zipfile.ZIP_DEFLATED)]

    def twice(name):
        rewrite(weights, bad, same)
        with zipfile.ZipFile(bad, 'a') as archive:
            archive.writestr(name, b'\x80\x02N.')

    # torch looks names up without regard to case
    attempts += [lambda: twice('weights/DATA.PKL'), lambda: twice('other/data.pkl'), lambda: twice('weights/constants.pkl')]
    for attempt in attempts:
        attempt()
        with pytest.raises(CheckpointError, match='nothing was loaded'):
            load_from_local(bad)


@pytest.mark.parametrize(
    'change',
    [
        lambda data: data.replace(b'M\xbc\x02', b'J\xbc\x02\x00\x01'),  # more elements than the record has
        lambda data: data.replace(b'K\x07Kd', b'K\x07Ke'),  # a view that reaches out of its storage
        lambda data: data.replace(b'K\x07Kd', b'J\xf9\xff\xff\xffKd'),  # negative
        lambda data: data.replace(b'FloatStorage', b'DoubleStorage'),
        lambda data: data.replace(b'_rebuild_tensor_v2', b'_rebuild_sparse_tensor'),
        lambda data: data.replace(b'_rebuild_tensor_v2', b'_rebuild_nested_tensor'),
        lambda data: data.replace(b'torch._utils\n_rebuild_tensor_v2', b'torch\nFloatTensor'),
        lambda data: data.replace(b'ccollections\nOrderedDict', b'cbuiltins\nbytearray'),
    ],
)  # fmt: skip
def test_tensors_that_could_harm_the_process_are_refused(weights, tmp_path, change):
    bad = with_pickle(weights, tmp_path / 'bad.pth', change)
    assert bad.read_bytes() != weights.read_bytes()
    with pytest.raises(CheckpointError):
        load_from_local(bad)


def test_views_that_repeat_memory_do_not_multiply_the_file(tmp_path):
    path = tmp_path / 'wide.pth'
    torch.save(dict(state_dict=dict(weight=torch.zeros(1).expand(1 << 40))), path)
    with pytest.raises(CheckpointError, match='again and again'):
        load_from_local(path)


@pytest.mark.parametrize('trust', [False, True])
@pytest.mark.parametrize(
    'value, fault',
    [
        (torch.eye(3).to_sparse(), 'sparse'),
        (torch.eye(3, device='meta'), 'meta'),
        (torch.eye(3) * 1j, 'complex'),
        (torch.tensor([1.0, float('nan')]), 'NaN'),
        (torch.tensor([1.0, -float('inf')]).half(), 'infinite'),
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), 'quantised'),
    ],
)  # fmt: skip
@pytest.mark.parametrize('place', ['state_dict', 'ema_state_dict', None])
def test_values_that_are_no_weights_are_refused(tmp_path, value, fault, trust, place):
    path = tmp_path / 'odd.pth'
    state = dict(good=torch.ones(2), odd=value)
    torch.save({place: state, 'state_dict': state} if place else state, path)
    with loading_policy(trust), pytest.raises(CheckpointError) as caught:
        load_from_local(path)
    # without trust some kinds are refused before they are made
    assert ("'odd'" in str(caught.value) and fault in str(caught.value)) or (not trust and 'torch._utils.' in str(caught.value))


def test_conversion_runs_no_text(tmp_path):
    mark = tmp_path / 'mark'
    golden_like = tmp_path / 'official.pth'
    torch.save({'state_dict': {'head.tpv_embedding_hw.weight': torch.zeros(4, 2)}}, golden_like)
    bad = with_code_texts(golden_like, tmp_path / 'bad.pth', mark)
    assert load_tool('convert_checkpoint').main(['tpvformer', str(bad), str(tmp_path / 'out.pth'), '--no-strict']) == 0
    assert not mark.exists() and (tmp_path / 'out.pth').is_file()
