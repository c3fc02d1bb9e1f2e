import functools
import os
import pickle
import threading
from collections import OrderedDict
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import FlexibleRunner
from mmengine.runner.checkpoint import CheckpointLoader

from projects.occ.engine.checkpoint import (
    check_checkpoint_file,
    compare_keys,
    find_latest_checkpoint,
    load_from_local,
    load_weights_strictly,
    loading_policy,
)
from projects.occ.engine.errors import CheckpointError


class Payload:
    """Pickles as a call of ``function(*arguments)``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def trap(tmp_path):
    """Builds checkpoints that create the file ``sprung`` when they are unpickled without care."""
    sprung = tmp_path / 'sprung'

    def build(name, *call):
        path = tmp_path / name
        torch.save(dict(state_dict=dict(weight=torch.zeros(2)), extra=Payload(*call)), path)
        return path

    return build, sprung


def test_checkpoints_with_the_history_of_mmengine_load_as_plain_data(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save(
        dict(
            message_hub=dict(log_scalars=OrderedDict(loss=buffer), runtime_info=dict(eta=np.float64(3.5))),
            arrays=[np.array([0, 1, 1], dtype=kind) for kind in ('f4', 'f8', 'i4', 'i8', 'u1', '?')],
        ),
        tmp_path / 'stock.pth',
    )
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / 'stock.pth'))
    assert loaded['message_hub']['log_scalars']['loss'].mean() == 1.5
    assert loaded['message_hub']['runtime_info']['eta'] == 3.5
    assert loaded['arrays'][3].tolist() == [0, 1, 1]


@pytest.mark.parametrize('kind', ['system', 'eval', 'getattr'])
def test_a_malicious_checkpoint_is_refused_and_not_executed(trap, kind):
    build, sprung = trap
    calls = dict(
        system=(os.system, f'touch {sprung}'),
        eval=(eval, f"open({str(sprung)!r}, 'w')"),
        getattr=(getattr, HistoryBuffer.update, '__globals__'),
    )
    path = build(f'{kind}.pth', *calls[kind])
    with pytest.raises(CheckpointError, match='nothing was loaded') as caught:
        CheckpointLoader.load_checkpoint(str(path))
    assert '--trust-checkpoint' in str(caught.value) and kind in str(caught.value)
    assert not sprung.exists()


def test_the_getter_reaches_nothing_but_four_statistics(trap):
    build, _ = trap
    for owner, name in (
        (HistoryBuffer, '__init__'),
        (HistoryBuffer, '__dict__'),
        (HistoryBuffer, 'update'),
    ):
        with pytest.raises(CheckpointError, match='getattr'):
            load_from_local(build('attribute.pth', getattr, owner, name))


def test_a_trusted_checkpoint_loads_whole_inside_the_policy_only(trap):
    build, sprung = trap
    path = build('system.pth', os.system, f'touch {sprung}')
    with loading_policy(trust=True):
        assert load_from_local(path)['state_dict']['weight'].shape == (2,)
    assert sprung.exists()
    sprung.unlink()
    with pytest.raises(CheckpointError):
        load_from_local(path)
    assert not sprung.exists()


def test_the_policy_binds_other_loaders_and_restores_the_environment(trap, monkeypatch):
    build, sprung = trap
    path = build('system.pth', os.system, f'touch {sprung}')
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
    with loading_policy(), pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=False)
    assert not sprung.exists()
    assert os.environ['TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD'] == '1'
    assert 'TORCH_FORCE_WEIGHTS_ONLY_LOAD' not in os.environ


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Of a server for the files of the test; what is downloaded lands in a folder of its own."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize('scheme', ['http', 'torchvision'])
def test_files_from_an_address_are_held_to_the_same_rules(trap, tmp_path, address, scheme, monkeypatch):
    build, sprung = trap
    build('system.pth', os.system, f'touch {sprung}')
    text = f'import os\nos.system("touch {sprung}")\n'
    torch.save(dict(state_dict=dict(weight=torch.ones(2)), meta=dict(config=text, epoch=3)), tmp_path / 'text.pth')
    torch.save(dict(state_dict=dict(weight=torch.full((2,), torch.nan))), tmp_path / 'nan.pth')
    names = {name: f'{address}/{name}.pth' for name in ('system', 'text', 'nan')}
    if scheme == 'torchvision':
        monkeypatch.setattr('mmengine.runner.checkpoint.get_torchvision_models', lambda urls=names: urls)
        names = {name: f'torchvision://{name}' for name in names}
    with pytest.raises((CheckpointError, pickle.UnpicklingError)):
        CheckpointLoader.load_checkpoint(names['system'])
    with pytest.raises(CheckpointError, match='weight'):
        CheckpointLoader.load_checkpoint(names['nan'])
    loaded = CheckpointLoader.load_checkpoint(names['text'])
    assert loaded['meta'] == dict(epoch=3) and loaded['state_dict']['weight'].tolist() == [1, 1]
    assert not sprung.exists()


def test_the_flexible_runner_resumes_without_the_text_of_a_config(trap, tmp_path):
    _, sprung = trap

    class Toy(BaseModel):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def forward(self, x, mode='loss'):
            return dict(loss=self.layer(x).square().mean())

    def runner(folder, **kwargs):
        return FlexibleRunner(
            Toy(),
            work_dir=str(tmp_path / folder),
            experiment_name=folder,
            train_dataloader=torch.utils.data.DataLoader([dict(x=torch.ones(2))] * 2),
            train_cfg=dict(by_epoch=True, max_epochs=kwargs.pop('epochs')),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            custom_hooks=[],
            default_scope='mmdet3d',  # the library's own would stay for the tests that follow
            **kwargs,
        )

    runner('first', epochs=1).train()
    path = tmp_path / 'first' / 'epoch_1.pth'
    content = torch.load(path, weights_only=False)
    content['meta']['config'] = content['meta']['cfg'] = f'import os\nos.system("touch {sprung}")\n'
    torch.save(content, path)
    again = runner('second', epochs=2, resume=str(path))
    again.train()
    assert again.epoch == 2 and not sprung.exists()


def test_broken_and_missing_files_are_named(tmp_path):
    torch.save(dict(weight=torch.zeros(1000)), tmp_path / 'good.pth')
    data = (tmp_path / 'good.pth').read_bytes()
    (tmp_path / 'cut.pth').write_bytes(data[: len(data) // 2])
    (tmp_path / 'page.pth').write_text('<html>not found</html>')
    (tmp_path / 'empty.pth').write_bytes(b'')
    for name in ('cut', 'page', 'empty'):
        with pytest.raises(CheckpointError, match=f'{name}.pth.*no readable PyTorch file'):
            load_from_local(tmp_path / f'{name}.pth')
    rng = np.random.default_rng(0)
    for content in (b'hello', b'rate limited', b'error', bytes(600), *(rng.bytes(64) for _ in range(100))):
        (tmp_path / 'other.pth').write_bytes(content)
        for trust in (False, True):
            # not the advice of torch to load it without care
            with (
                loading_policy(trust),
                pytest.raises(CheckpointError, match=r'no readable PyTorch file: it starts with b.{2,80}\. It'),
            ):
                load_from_local(tmp_path / 'other.pth')
    with pytest.raises(CheckpointError, match='does not exist; give the path of a .pth file'):
        load_from_local(tmp_path / 'absent.pth')
    check_checkpoint_file('https://example.org/absent.pth')


def test_latest_checkpoint(tmp_path):
    assert find_latest_checkpoint(tmp_path) is None
    for index, name in enumerate(('epoch_10.pth', 'epoch_9.pth', 'best_occ_mIoU_epoch_9.pth', 'other.pth')):
        (tmp_path / name).write_text('')
        os.utime(tmp_path / name, (index, index))
    newest = str(tmp_path / 'epoch_9.pth')
    assert find_latest_checkpoint(tmp_path) == newest
    pointer = tmp_path / 'last_checkpoint'
    for broken in ('', '/gone/epoch_77.pth'):
        pointer.write_text(broken)
        assert find_latest_checkpoint(tmp_path) == newest
    # moved work directory: the name counts, not the folder it was in
    pointer.write_text('/gone/epoch_10.pth')
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / 'epoch_10.pth')
    pointer.write_text(f'{tmp_path}/best_occ_mIoU_epoch_9.pth\n')
    assert find_latest_checkpoint(tmp_path) == str(tmp_path / 'best_occ_mIoU_epoch_9.pth')


def test_key_report_counts_and_names_what_differs():
    def weights(**shapes):
        return {name.replace('_of_', '.'): torch.zeros(shape) for name, shape in shapes.items()}

    model = weights(head_of_w=(2, 3), neck_of_w=(1,), neck_of_b=(1,), aggregator_of_x=(4,), bn_of_num_batches_tracked=())
    same = compare_keys(model, model, ('aggregator.',))
    assert same.exact and same.matched == 5 and not same.skipped

    other = weights(head_of_w=(2, 4), neck_of_w=(1,), old_of_a=(1,), old_of_b=(1,), aggregator_of_y=(1,))
    report = compare_keys(other, model, ('aggregator.',))
    assert compare_keys(other, model).missing == ['neck.b', 'aggregator.x']
    assert not report.exact and report.matched == 1
    assert (report.missing, report.unexpected) == (['neck.b'], ['old.a', 'old.b'])
    assert report.reshaped == {'head.w': ((2, 4), (2, 3))}
    assert sorted(report.skipped) == ['aggregator.x', 'aggregator.y']
    assert report.describe() == (
        '1 of 3 model entries match; only in the model: neck.* (1); only in the checkpoint: old.* (2); '
        'other shape: head.w (2, 4) in the checkpoint, (2, 3) in the model'
    )
    # an aggregator of another shape is of no use and no obstacle
    other = weights(aggregator_of_x=(9,)), weights(aggregator_of_x=(4,))
    assert compare_keys(*other, ('aggregator.',)).skipped == ['aggregator.x']


def test_weights_that_fit_are_loaded_whole():
    model, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    weights = {f'module.{key}': value for key, value in other.state_dict().items()}
    weights['aggregator.scale'] = torch.ones(1)
    model.training_only_prefixes = ('aggregator.',)
    load_weights_strictly(model, dict(state_dict=weights, meta={}))
    assert all(torch.equal(model.state_dict()[key], value) for key, value in other.state_dict().items())


@pytest.mark.parametrize(
    'content, message',
    [
        (
            dict(weight=torch.zeros(1, 2)),
            r'1 of 2 model entries match; only in the model: bias\.\* \(1\)\. Use the config',
        ),
        (dict(weight=torch.zeros(1, 3), bias=torch.zeros(1)), r'weight \(1, 3\) in the checkpoint, \(1, 2\) in the model'),
        (dict(weight=torch.zeros(1, 2), bias=torch.zeros(1), extra=torch.zeros(1)), r'only in the checkpoint: extra\.\* \(1\)'),
        ([torch.zeros(2)], 'holds no weights: expected a dict of tensors, or one under state_dict'),
        (dict(state_dict=dict(epoch=3)), 'holds no weights'),
    ],
)
def test_weights_that_do_not_fit_change_nothing(content, message):
    model = torch.nn.Linear(2, 1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_weights_strictly(model, content)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
