"""Reads damaged and hostile annotation pickles and checkpoints, and watches what the interpreter does.

    python tools/dev/fuzz_files.py --pickles 200000 --checkpoints 20000 --out fuzz.json

Every file is made from a good one by changing bytes, instructions, names and lengths; files that made the readers behave in a
new way are changed further. The readers run in a process of their own, under an audit hook of Python: nothing but opening the
file itself may happen. The script counts crashes, forbidden events, errors other than the promised ones and the growth of the
memory, and returns 1 if there is any of them. The same seed makes the same files.
"""

import argparse
import io
import json
import multiprocessing
import os
import pickle
import pickletools
import re
import resource
import struct
import sys
import tempfile
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmengine.logging import HistoryBuffer  # noqa: E402

from projects.occ.atomic_write import write_atomically  # noqa: E402
from projects.occ.datasets.safe_pickle import load_numpy_pickle  # noqa: E402
from projects.occ.engine.checkpoint import load_from_local  # noqa: E402
from projects.occ.engine.errors import CheckpointError  # noqa: E402
from projects.occ.safe_pickle import scan  # noqa: E402

MAX_GROWTH = 1 << 30
CORPUS = 400
# outcomes from which no change leads on
SHALLOW = re.compile('instruction|cut short|runs empty|start with|starts with|names')
# what reading a file may do; everything else that Python audits is a finding
QUIET_EVENTS = {'object.__getattr__', 'object.__setattr__', 'object.__delattr__', 'sys._getframe', 'gc.get_referrers'}
THREADS = {'_thread.start_new_thread', '_thread.start_joinable_thread'}
NAMES = [
    b'cos\nsystem\n',
    b'cbuiltins\neval\n',
    b'cbuiltins\ngetattr\n',
    b'cbuiltins\nset\n',
    b'cnumpy\nndarray\n',
    b'cnumpy\ndtype\n',
    b'cnumpy\nfromfile\n',
    b'cnumpy.core.multiarray\n_reconstruct\n',
    b'cnumpy.core.multiarray\nscalar\n',
    b'cnumpy.core.numeric\n_frombuffer\n',
    b'c_codecs\nencode\n',
    b'ccollections\nOrderedDict\n',
    b'ctorch._utils\n_rebuild_tensor_v2\n',
    b'ctorch._utils\n_rebuild_sparse_tensor\n',
    b'ctorch.storage\nUntypedStorage\n',
    b'ctorch\nFloatStorage\n',
    b'cmmengine.logging.history_buffer\nHistoryBuffer\n',
]
PARTS = [
    b'(', b')', b'}', b']', b'\x8f', b'N', b'0', b'1', b'2', b'R', b'b', b'a', b'e', b's', b'u', b't', b'\x81', b'\x85',
    b'\x86', b'\x87', b'\x85' * 60, b'\x90', b'\x91', b'\x92', b'\x93', b'\x94', b'\x97', b'\x98', b'Q', b'h\x00',
    b'h\x01', b'q\x00', b'q\x01', b'r\xff\xff\xff\x7f', b'r\x00\x00\x10\x00', b'j\x01\x00\x00\x00', b'K\xff',
    b'J\xff\xff\xff\x7f', b'J\xff\xff\xff\xff', b'X\x01\x00\x00\x00O', b'X\x02\x00\x00\x00f8', b'C\x08AAAAAAAA',
    b'X\x08\x00\x00\x00AAAAAAAA', b'B\xff\xff\xff\x7f', b'\x8e' + b'\xff' * 8, b'\x96' + struct.pack('<Q', 1 << 34),
    b'\x8a\x08' + b'\xff' * 8, b'\x8b\xff\xff\xff\x7f', b'.', b'(K\x01t', b'(K\x00t', b'K\x00\x85', b'K\x07\x85',
    b'\x88', b'\x89',
    *NAMES,
]  # fmt: skip


def pickle_seeds() -> list[bytes]:
    """Good annotation pickles of every protocol."""
    rng = np.random.default_rng(0)
    frame = dict(
        token='a' * 32,
        timestamp=1.5e15,
        cams=dict(CAM_FRONT=dict(data_path='samples/x.jpg', cam_intrinsic=rng.normal(size=(3, 3)), sensor2ego=[1.0, 2.0])),
        gt_boxes=rng.normal(size=(2, 7)).astype(np.float32),
        gt_names=np.array(['car', 'bus']),
        valid=np.array([True, False]),
        count=np.int64(3),
        fortran=np.asfortranarray(rng.normal(size=(2, 3))),
        more=[(1, 2), {1, 2}, None, 2**70, b'ab', 'ä' * 70],
    )  # fmt: skip
    content = dict(infos=[frame, dict(frame, token='b' * 32)], metadata=dict(version='v1.0-mini'))
    return [pickle.dumps(content, protocol) for protocol in (2, 3, 4, 5)] + [pickle.dumps(frame['gt_boxes'], 2)]


def checkpoint_seeds() -> list[bytes]:
    """Good checkpoints: of mmengine, of torch before version 1.6, weights alone."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    content = dict(
        meta=dict(epoch=1, iter=4, dataset_meta=dict(palette=np.arange(6).reshape(2, 3))),
        state_dict=model.state_dict(),
        optimizer=optimizer.state_dict(),
        message_hub=dict(
            log_scalars=OrderedDict(loss=HistoryBuffer([1.0, 2.0], [1, 1])),
            runtime_info=dict(lr=np.float64(1)),
            resumed_keys={},
        ),
    )
    seeds = []
    for item, new in ((content, True), (content, False), (model.state_dict(), True)):
        buffer = io.BytesIO()
        torch.save(item, buffer, _use_new_zipfile_serialization=new)
        seeds.append(buffer.getvalue())
    return seeds


def boundaries(data: bytes) -> list[int]:
    """Where instructions of a pickle start, as far as it can be followed."""
    places = []
    try:
        places.extend(position for _, _, position in pickletools.genops(data))
    except Exception:  # as far as it can
        return places
    return places


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Some changes of bytes, instructions and lengths."""
    changed = bytearray(data)
    places = boundaries(data) if rng.random() < 0.7 else []
    for _ in range(int(rng.geometric(0.6))):
        size = len(changed)
        if not size:
            break
        at = places[int(rng.integers(0, len(places)))] if places else int(rng.integers(0, size))
        at = min(at, size - 1)
        kind = int(rng.integers(0, 8))
        if kind == 0:
            changed[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            changed[at] = int(rng.integers(0, 256))
        elif kind in (2, 3):
            changed[at:at] = PARTS[int(rng.integers(0, len(PARTS)))]
        elif kind == 4:
            part = PARTS[int(rng.integers(0, len(PARTS)))]
            changed[at : at + len(part)] = part
        elif kind == 5:
            del changed[at : at + int(rng.integers(1, 20))]
        elif kind == 6:
            start = places[int(rng.integers(0, len(places)))] if places else int(rng.integers(0, size))
            changed[at:at] = changed[start : start + int(rng.integers(1, 80))]
        else:
            # exchange one name for another
            names = [match.span() for match in re.finditer(rb'c[\w.]+\n[\w.]+\n', changed)]
            if names:
                start, end = names[int(rng.integers(0, len(names)))]
                changed[start:end] = NAMES[int(rng.integers(0, len(NAMES)))]
    return bytes(changed)


def mutate_checkpoint(data: bytes, rng: np.random.Generator) -> bytes:
    """Changes the bytes of the file, or a record of its archive with a right check sum."""
    if data[:2] != b'PK' or rng.random() < 0.3:
        return mutate(data, rng)
    try:
        target = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, 'w') as new:
            infos = old.infolist()
            chosen = int(rng.integers(0, len(infos))) if rng.random() < 0.2 else -1
            for i, info in enumerate(infos):
                record = old.read(info)
                if i == chosen or (chosen < 0 and info.filename.endswith('data.pkl')):
                    record = mutate(record, rng)
                new.writestr(info.filename, record, zipfile.ZIP_DEFLATED if rng.random() < 0.01 else zipfile.ZIP_STORED)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, UnicodeError, ValueError, OSError):
        return mutate(data, rng)
    return target.getvalue()


class Auditor:
    """Collects what Python audits while a file is read."""

    def __init__(self) -> None:
        self.path: str | None = None
        self.found: list[str] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, args: tuple) -> None:
        if self.path is None or event in QUIET_EVENTS or event in THREADS:
            return
        if event == 'open' and str(args[0]) == self.path and not (isinstance(args[1], str) and set(args[1]) & set('wax+')):
            return
        if event == 'mmap.__new__':
            return
        self.found.append(f'{event} {str(args)[:200]}')


def read_pickle(path: str) -> str:
    """Reads an annotation pickle; returns what happened."""
    try:
        load_numpy_pickle(path)
    except ValueError as error:
        return str(error).removeprefix(path)
    return 'read'


def read_checkpoint(path: str) -> str:
    """Reads a checkpoint; returns what happened."""
    try:
        load_from_local(path, 'cpu')
    except CheckpointError as error:
        return str(error).replace(path, '')
    return 'read'


READERS: dict[str, tuple[Callable, Callable, Callable]] = dict(
    pickles=(pickle_seeds, mutate, read_pickle), checkpoints=(checkpoint_seeds, mutate_checkpoint, read_checkpoint)
)


def peak_memory() -> int:
    """Largest resident memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def work(kind: str, start: int, count: int, seed: int, folder: str, results: Any) -> None:
    """Reads ``count`` files in this process; the file that is read lies in ``folder`` until it has been."""
    make_seeds, change, read = READERS[kind]
    torch.set_num_threads(1)
    'é'.encode('cp437')  # names in archives; the codec is a module
    auditor = Auditor()
    path = os.path.join(folder, f'{kind}.bin')
    seeds = make_seeds()
    scan._COMPILED_FROM = 0
    for data in seeds:  # whatever is imported or compiled at the first time
        Path(path).write_bytes(data)
        assert read(path) == 'read'
    corpus, outcomes, kinds = list(seeds), Counter(), set()
    before, findings = peak_memory(), []
    for index in range(start, start + count):
        rng = np.random.default_rng((seed, index))
        data = change(corpus[int(rng.integers(0, len(corpus)))], rng)
        Path(path).write_bytes(data)
        with open(os.path.join(folder, f'{kind}.index'), 'w') as file:
            file.write(str(index))
        auditor.found, auditor.path = [], path
        problem = ''
        # the compiled walk, which looks at no bounds, and now and then that of Python
        scan._COMPILED_FROM = 0 if index % 16 else sys.maxsize
        try:
            outcome = read(path)
        except BaseException as error:  # the promise is one kind of error
            outcome = f'{type(error).__name__}: {error}'
            problem = f'raises {outcome[:200]}'
        auditor.path = None
        problem = problem or '; '.join(auditor.found[:3])
        growth = peak_memory() - before
        if not problem and growth > MAX_GROWTH:
            problem = f'memory grew by {growth >> 20} MiB'
            before = peak_memory()
        if problem:
            findings.append(dict(index=index, problem=problem, data=data.hex()[:20000]))
        sort = re.sub(r'\d+|b([\'"]).*?\1|[\'"].*?[\'"]', '#', outcome)[:160]
        outcomes[sort[:60]] += 1
        deep = not SHALLOW.search(sort)
        if sort not in kinds and deep and len(corpus) < CORPUS and len(data) < 200_000:
            kinds.add(sort)
            corpus.append(data)
    results.put(
        dict(outcomes=dict(outcomes.most_common(40)), kinds=len(kinds), findings=findings, growth=peak_memory() - before)
    )


def fuzz(kind: str, count: int, seed: int, folder: Path, chunk: int = 5000) -> dict[str, Any]:
    """Reads ``count`` files of a kind, in processes of ``chunk`` files each.

    Returns:
        Counts of outcomes, and the findings: crashes, forbidden events, errors that are no sentence, memory.
    """
    context = multiprocessing.get_context('spawn')
    total: dict[str, Any] = dict(files=count, read=0, outcomes=Counter(), findings=[], growth_mib=0)
    done = 0
    while done < count:
        size = min(chunk, count - done)
        results = context.Queue()
        process = context.Process(target=work, args=(kind, done, size, seed, str(folder), results))
        process.start()
        report = None
        while report is None and (process.is_alive() or not results.empty()):
            try:
                report = results.get(timeout=1)
            except Exception:  # nothing yet
                continue
        process.join()
        if report is None:
            index = int((folder / f'{kind}.index').read_text())
            data = (folder / f'{kind}.bin').read_bytes()
            problem = f'the interpreter crashed (exit code {process.exitcode})'
            total['findings'].append(dict(index=index, problem=problem, data=data.hex()[:20000]))
            size = index + 1 - done
        else:
            total['outcomes'].update(report['outcomes'])
            total['findings'] += report['findings']
            total['growth_mib'] = max(total['growth_mib'], report['growth'] >> 20)
        done += size
        print(f'{kind}: {done} of {count} files, {len(total["findings"])} findings', flush=True)
    total['read'] = total['outcomes']['read']
    total['outcomes'] = dict(total['outcomes'].most_common(40))
    return total


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pickles', type=int, default=2000, help='number of annotation pickles (default: 2000)')
    parser.add_argument('--checkpoints', type=int, default=200, help='number of checkpoints (default: 200)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', metavar='FILE', help='write the report as JSON')
    parser.add_argument('--folder', metavar='DIR', help='folder for the file that is read (default: a temporary one)')
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        report = {kind: fuzz(kind, getattr(args, kind), args.seed, Path(folder)) for kind in READERS if getattr(args, kind)}
    if args.out:
        text = json.dumps(report, indent=1)
        write_atomically(args.out, lambda file: file.write(text.encode()))
    for kind, result in report.items():
        print(f'{kind}: {result["files"]} files, {result["read"]} read, {len(result["findings"])} findings')
        for finding in result['findings'][:10]:
            print(f'  {finding["index"]}: {finding["problem"]}')
    return int(any(result['findings'] for result in report.values()))


if __name__ == '__main__':
    sys.exit(main())
