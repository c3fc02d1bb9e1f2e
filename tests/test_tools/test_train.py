import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOY_DIR = Path(__file__).resolve().parents[1] / 'test_occ' / 'test_engine'
sys.path.insert(0, str(TOY_DIR))

from toy_occupancy import load_tool, read_losses, train, write_config  # noqa: E402


def last_error(capfd):
    return capfd.readouterr().err.strip().split('\n')[-1]


def test_as_a_program(tmp_path, repo_root):
    config = write_config(tmp_path)
    run = subprocess.run(
        [sys.executable, str(repo_root / 'tools' / 'train.py'), str(config), '--cfg-options', 'train_cfg.max_epochs=1'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(TOY_DIR), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    work_dir = tmp_path / 'work_dirs' / 'toy'
    assert (work_dir / 'epoch_1.pth').is_file() and (work_dir / 'toy.py').is_file()
    assert sorted(read_losses(tmp_path / 'losses_toy')) == [0, 1, 2, 3]


def test_flags_of_mmdet3d_are_there():
    args = load_tool('train').parse_args(
        ['c.py', '--work-dir', 'w', '--amp', '--sync_bn', 'mmcv', '--auto-scale-lr', '--resume', '--launcher', 'slurm']
        + ['--local-rank', '3', '--cfg-options', 'a.b=1', 'c=[1,2]']
    )
    assert (args.config, args.work_dir, args.amp, args.sync_bn, args.auto_scale_lr) == ('c.py', 'w', True, 'mmcv', True)
    assert (args.resume, args.cfg_options, args.launcher, args.local_rank) == ('auto', {'a.b': 1, 'c': [1, 2]}, 'slurm', 3)
    assert load_tool('train').parse_args(['c.py', '--resume', 'x.pth', '--local_rank', '1']).resume == 'x.pth'
    assert load_tool('train').parse_args(['c.py']).cfg_options == {}


def test_missing_files_are_named(tmp_path, capfd):
    assert train(tmp_path / 'absent.py') == 1
    assert last_error(capfd).startswith(f"error: config '{tmp_path}/absent.py' does not exist")
    config = write_config(tmp_path)
    sentence = f"checkpoint '{tmp_path}/absent.pth' does not exist; give the path of a .pth file"
    assert train(config, '--resume', tmp_path / 'absent.pth') == 1
    assert last_error(capfd) == f'error: {sentence}'
    assert train(config, '--cfg-options', f'load_from={tmp_path}/absent.pth') == 1
    message = last_error(capfd)
    assert message.startswith(f'error: load_from of the config: {sentence}') and 'load_from=None' in message
    assert not list(tmp_path.glob('work_toy/*.pth'))


def test_a_misspelt_option_stops_the_tool(tmp_path, capfd):
    config = write_config(tmp_path)
    assert train(config, '--cfg-options', 'optim_wrapper.optimiser.lr=1') == 1
    assert last_error(capfd) == (
        'error: --cfg-options optim_wrapper.optimiser.lr: no such key. Nearest existing: optim_wrapper.optimizer.lr. '
        'To add a new key, use --allow-new-keys'
    )


def test_auto_scale_lr(tmp_path, capfd):
    config = write_config(tmp_path)
    assert train(config, '--auto-scale-lr') == 1
    assert 'auto_scale_lr = dict(enable=False, base_batch_size=...)' in last_error(capfd)
    config = write_config(tmp_path, extra='auto_scale_lr = dict(enable=False, base_batch_size=8)\n')
    assert train(config, '--auto-scale-lr', '--cfg-options', 'train_cfg.max_epochs=1') == 0
    # batch 2 instead of 8, and the warm-up starts at 0.3
    assert f'lr: {0.01 * 2 / 8 * 0.3:.4e}' in capfd.readouterr().out
    # four of them share a step
    accumulated = ('train_cfg.max_epochs=1', 'optim_wrapper.accumulative_counts=4', '--allow-new-keys')
    assert train(config, '--auto-scale-lr', '--cfg-options', *accumulated) == 0
    assert f'lr: {0.01 * 2 * 4 / 8 * 0.3:.4e}' in capfd.readouterr().out


def test_resume_without_a_checkpoint_starts_anew_from_the_weights_of_the_config(tmp_path):
    assert train(write_config(tmp_path, 'first'), '--resume', '--cfg-options', 'train_cfg.max_epochs=1') == 0
    weights = tmp_path / 'work_first' / 'epoch_1.pth'
    assert torch.load(weights, weights_only=True)['meta']['iter'] == 4

    options = ('--cfg-options', 'train_cfg.max_epochs=1', 'optim_wrapper.optimizer.lr=0.0')
    config = write_config(tmp_path, 'second', extra=f'load_from = {str(weights)!r}\n')
    assert train(config, '--resume', *options) == 0
    first, second = (
        torch.load(path, weights_only=True)['state_dict'] for path in (weights, tmp_path / 'work_second' / 'epoch_1.pth')
    )
    torch.testing.assert_close(second['classifier.weight'], first['classifier.weight'], rtol=0, atol=0)


def test_an_untrusted_checkpoint_is_refused_until_the_flag_is_given(tmp_path, capfd):
    assert train(write_config(tmp_path), '--cfg-options', 'train_cfg.max_epochs=1') == 0
    path = tmp_path / 'work_toy' / 'epoch_1.pth'
    checkpoint = torch.load(path, weights_only=True)
    checkpoint['meta']['note'] = Path('an object')
    torch.save(checkpoint, path)
    assert train(write_config(tmp_path), '--resume') == 1
    message = last_error(capfd)
    assert 'pathlib' in message and '--trust-checkpoint' in message
    assert train(write_config(tmp_path), '--resume', '--trust-checkpoint') == 0


@pytest.mark.parametrize('option', ['argument', 'config'])
def test_an_unwritable_work_directory_is_reported_first(tmp_path, capfd, option):
    (tmp_path / 'file').write_text('')
    wrong = tmp_path / 'file' / 'work'
    if option == 'argument':
        code = train(write_config(tmp_path), '--work-dir', wrong)
    else:
        code = load_tool('train').main([str(write_config(tmp_path, extra=f'work_dir = {str(wrong)!r}\n'))])
    assert code == 1
    assert last_error(capfd).startswith(f"error: cannot write to '{wrong}'")
    assert not (tmp_path / 'losses_toy.0').exists()


def test_missing_rasteriser_is_told_before_anything_is_built(tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gaussian_rasterization', None)
    config = write_config(tmp_path, extra="model['aggregator'] = True\n")
    assert train(config) == 1
    message = last_error(capfd)
    assert 'the rasteriser cannot be imported' in message and 'install it with pip install' in message
    assert message.endswith('--cfg-options model.aggregator=None')
    assert train(config, '--cfg-options', 'model.aggregator=None', 'train_cfg.max_epochs=1') == 0


def test_missing_backend_is_told_before_anything_is_built(monkeypatch):
    from gaussian_rasterization import backends

    tool = load_tool('train')
    monkeypatch.setattr(backends, 'AVAILABLE', dict(cpu=True, cuda=False, reference=True))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    cfg = tool.Config(dict(model=dict(aggregator=dict(type='X', renderer=dict(backend=None)))))
    with pytest.raises(tool.OccError, match=r"renders, but the 'cuda' backend .* is missing(.|\n)*FORCE_CUDA=1 pip install"):
        tool.check_rasteriser(cfg)
    for backend in ('reference', 'cpu'):
        cfg.model.aggregator.renderer.backend = backend
        tool.check_rasteriser(cfg)
    cfg.model.aggregator.renderer.backend = None
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    tool.check_rasteriser(cfg)


@pytest.fixture
def echo(tmp_path):
    """Environment in which python and srun print their arguments, one per line."""
    for name in ('python', 'srun'):
        (tmp_path / name).write_text('#!/usr/bin/env bash\nprintf "%s\\n" "port $MASTER_PORT" "$@" | grep -v "port $"\n')
        (tmp_path / name).chmod(0o755)
    known = {
        key: value
        for key, value in os.environ.items()
        if key not in ('NNODES', 'PORT', 'GPUS', 'GPUS_PER_NODE', 'SLURM_JOB_ID')
    }
    return {**known, 'PATH': f'{tmp_path}:{os.environ["PATH"]}'}


@pytest.mark.parametrize('name', ['train', 'test'])
def test_launch_scripts_pass_every_argument(repo_root, echo, name):
    checkpoint = [] if name == 'train' else ['x.pth']

    def run(script, *arguments, **variables):
        command = [str(repo_root / 'tools' / script), *arguments]
        done = subprocess.run(command, env={**echo, **variables}, capture_output=True, text=True)
        return done.returncode, done.stdout.split('\n')[:-1], done.stderr

    code, printed, _ = run(f'dist_{name}.sh', 'c.py', *checkpoint, '4', '--cfg-options', 'a=1 2', PORT='1234')
    script = f'{repo_root}/tools/{name}.py'
    assert code == 0 and '--nproc_per_node=4' in printed and '--master_port=1234' in printed
    assert printed[printed.index(script) :] == [script, 'c.py', *checkpoint, '--launcher', 'pytorch', '--cfg-options', 'a=1 2']

    work_dir = ['w'] if name == 'train' else checkpoint
    code, printed, _ = run(f'slurm_{name}.sh', 'part', 'job', 'c.py', *work_dir, '--amp', GPUS='4', SRUN_ARGS='-A me')
    target = ['c.py', '--work-dir=w'] if name == 'train' else ['c.py', 'x.pth']
    assert code == 0 and '--ntasks=4' in printed and '--gres=gpu:4' in printed and printed[printed.index('-A') + 1] == 'me'
    assert printed[printed.index(script) :] == [script, *target, '--launcher', 'slurm', '--amp']

    for kind in ('dist', 'slurm'):
        code, _, message = run(f'{kind}_{name}.sh', 'c.py')
        assert code == 2 and message.startswith('usage: ')


@pytest.mark.parametrize('name', ['train', 'test'])
def test_jobs_on_one_machine_have_their_ports(repo_root, echo, name):
    rest = ['x.pth'] if name == 'test' else []

    def run(script, *arguments, **variables):
        done = subprocess.run(
            [str(repo_root / 'tools' / script), *arguments], env={**echo, **variables}, capture_output=True, text=True
        )
        return done.returncode, done.stdout, done.stderr

    code, printed, _ = run(f'dist_{name}.sh', 'c.py', *rest, '4', SLURM_JOB_ID='41234')
    assert code == 0 and '--master_port=21234\n' in printed
    with socket.create_server(('127.0.0.1', 0)) as server:
        port = str(server.getsockname()[1])
        code, _, message = run(f'dist_{name}.sh', 'c.py', *rest, '4', PORT=port)
        assert code == 1 and f'port {port} is taken' in message and 'PORT=' in message
        # the other machines of a job connect to it
        assert run(f'dist_{name}.sh', 'c.py', *rest, '4', PORT=port, NODE_RANK='1')[0] == 0
    last = ['w'] if name == 'train' else rest
    assert 'port 21234\n' in run(f'slurm_{name}.sh', 'part', 'job', 'c.py', *last, SLURM_JOB_ID='41234')[1]
    assert 'port 777\n' in run(f'slurm_{name}.sh', 'part', 'job', 'c.py', *last, PORT='777')[1]
