"""What holds for all scripts of tools/: help from any folder, a test that runs them, launchers that pass their arguments on."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
DEV_SCRIPTS = ('compare_class_maps', 'fuzz_files', 'real_frame', 'real_kitti360_frame')
HELP = """
import contextlib, io, json, runpy, sys
root, found = sys.argv[1], {}
for script in sys.argv[2:]:
    # as if started alone: nothing but the script itself may make the project importable
    sys.path[:] = [entry for entry in sys.path if entry not in ('', root)]
    sys.argv, out = [script, '--help'], io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            runpy.run_path(script, run_name='__main__')
        status = 'no exit'
    except SystemExit as end:
        status = end.code
    found[script] = dict(status=status, text=out.getvalue(), finds_project=root in sys.path)
print(json.dumps(found))
"""


def test_help_of_every_script_from_another_folder(tmp_path):
    scripts = sorted(map(str, TOOLS.glob('*.py'))) + [str(TOOLS / 'dev' / f'{name}.py') for name in DEV_SCRIPTS]
    assert len(scripts) >= 14
    run = subprocess.run(
        [sys.executable, '-c', HELP, str(TOOLS.parent), *scripts],
        cwd=tmp_path,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    for script, found in json.loads(run.stdout.splitlines()[-1]).items():
        assert found['status'] == 0, (script, found)
        assert found['text'].startswith(f'usage: {Path(script).name}') and len(found['text']) > 150, script
        assert found['finds_project'], f'{script} does not put the project on the path'
    assert not list(tmp_path.iterdir())


# below tests/
RUN_BY = {
    'browse_dataset': 'test_tools/test_browse_dataset.py',
    'calibrate_threshold': 'test_tools/test_calibrate_threshold.py',
    'check_install': 'test_tools/test_check_install.py',
    'compare_class_maps': 'test_occ/test_real_frames.py',
    'compare_supervision': 'test_tools/test_compare_supervision.py',
    'convert_checkpoint': 'test_tools/test_convert_checkpoint.py',
    'create_data': 'test_tools/test_create_data.py',
    'demo': 'test_tools/test_demo.py',
    'eval_predictions': 'test_tools/test_eval_predictions.py',
    'fuzz_files': 'test_tools/test_dev/test_fuzz_files.py',
    'infer': 'test_occ/test_apis/test_occ_inferencer.py',
    'model_zoo': 'test_tools/test_model_zoo.py',
    'profile_model': 'test_tools/test_profile_model.py',
    'real_frame': 'test_occ/test_real_frames.py',
    'real_kitti360_frame': 'test_tools/test_dev/test_real_kitti360_frame.py',
    'refine': 'test_tools/test_refine.py',
    'test': 'test_tools/test_test.py',
    'train': 'test_tools/test_train.py',
    'visualize': 'test_tools/test_visualize.py',
}


def test_every_script_is_run_by_a_test():
    assert set(RUN_BY) == {path.stem for path in TOOLS.glob('*.py')} | set(DEV_SCRIPTS)
    for tool, file in RUN_BY.items():
        assert re.search(rf'\b{tool}\b', (TOOLS.parent / 'tests' / file).read_text()), (tool, file)


ECHO = '#!/usr/bin/env bash\nprintf "%s\\n" "$(basename "$0")" "threads=$OMP_NUM_THREADS" "$@"\n'


def launch(script, tmp_path, *arguments, **variables):
    """Runs a launcher with stand-ins for python and srun that print what they are given."""
    for name in ('python', 'srun'):
        (tmp_path / name).write_text(ECHO)
        (tmp_path / name).chmod(0o755)
    environment = {key: value for key, value in os.environ.items() if key not in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')}
    environment |= {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'PYTHON': 'python', **variables}
    run = subprocess.run([TOOLS / script, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)
    return run, run.stdout.splitlines()


@pytest.mark.parametrize('script, tool', [('dist_train.sh', 'train.py'), ('dist_test.sh', 'test.py')])
def test_launchers_for_one_machine(tmp_path, script, tool):
    files = ['my config.py'] if tool == 'train.py' else ['my config.py', 'epoch_1.pth']
    extra = ['--cfg-options', 'model.aggregator=None', 'a="[1, 2]"']
    run, words = launch(script, tmp_path, *files, '4', *extra, PORT='29777')
    assert run.returncode == 0, run.stderr
    assert words[:4] == ['python', 'threads=1', '-m', 'torch.distributed.run']
    assert {'--nnodes=1', '--node_rank=0', '--master_port=29777', '--nproc_per_node=4'} <= set(words)
    assert words[-len(files) - 6 :] == [str(TOOLS / tool), *files, '--launcher', 'pytorch', *extra]


@pytest.mark.parametrize('script, tool', [('slurm_train.sh', 'train.py'), ('slurm_test.sh', 'test.py')])
def test_launchers_for_slurm(tmp_path, script, tool):
    extra = ['--cfg-options', 'randomness.seed=1']
    run, words = launch(script, tmp_path, 'gpu', 'name', 'config.py', 'second', *extra, GPUS='4', SRUN_ARGS='--time=1 --qos=x')
    assert run.returncode == 0, run.stderr
    assert words[:4] == ['srun', 'threads=1', '-p', 'gpu']
    # no more per machine than there are at all
    expected = ['--job-name=name', '--gres=gpu:4', '--ntasks=4', '--ntasks-per-node=4', '--time=1', '--qos=x']
    assert set(expected) <= set(words)
    last = ['--work-dir=second'] if tool == 'train.py' else ['second']
    assert words[words.index('python') :] == [
        'python',
        '-u',
        str(TOOLS / tool),
        'config.py',
        *last,
        '--launcher',
        'slurm',
        *extra,
    ]


@pytest.mark.parametrize('script', sorted(path.name for path in TOOLS.glob('*.sh')))
def test_launchers_tell_how_they_are_called(tmp_path, script):
    run, words = launch(script, tmp_path, 'config.py')
    assert run.returncode == 2 and not words
    assert run.stderr.startswith('usage: ') and 'CONFIG' in run.stderr
