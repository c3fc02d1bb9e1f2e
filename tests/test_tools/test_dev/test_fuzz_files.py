import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tools.dev import fuzz_files

ROOT = Path(__file__).resolve().parents[3]

WATCH = """
import os, pickle, sys
from tools.dev.fuzz_files import Auditor
path = sys.argv[1]
auditor = Auditor()
auditor.path = path
data = open(path, 'rb').read()
quiet = list(auditor.found)
pickle.loads(data)
print(quiet, [event.split()[0] for event in auditor.found if event.startswith(('os.system', 'pickle.find_class'))])
"""


def test_mutated_files_do_nothing_but_be_read_or_refused(tmp_path):
    out = tmp_path / 'fuzz.json'
    code = fuzz_files.main(['--pickles', '800', '--checkpoints', '120', '--out', str(out), '--folder', str(tmp_path)])
    report = json.loads(out.read_text())
    assert code == 0, [finding['problem'] for kind in report.values() for finding in kind['findings']]
    for kind, count in (('pickles', 800), ('checkpoints', 120)):
        result = report[kind]
        assert sum(result['outcomes'].values()) <= count == result['files'] and result['read'] and len(result['outcomes']) > 10
        assert result['growth_mib'] < 1024
    assert [path.name for path in tmp_path.iterdir()] == ['fuzz.json']


def test_the_same_seed_makes_the_same_files():
    for make, change, _ in fuzz_files.READERS.values():
        files = [change(make()[0], np.random.default_rng((3, index))) for index in range(40)]
        if make is fuzz_files.pickle_seeds:
            assert files == [change(make()[0], np.random.default_rng((3, index))) for index in range(40)]
        assert len(set(files)) > 35


@pytest.mark.skipif(sys.platform == 'win32', reason='touch is a command of Unix')
def test_the_watch_sees_code_that_runs(tmp_path):
    path = tmp_path / 'attack.pkl'
    path.write_bytes(b'cos\nsystem\n(Vtrue\ntR.')
    run = subprocess.run(
        [sys.executable, '-c', WATCH, str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )
    assert run.stdout.splitlines()[-1] == "[] ['pickle.find_class', 'os.system']"
