"""Checkpoints with a hole in them, made from good ones."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from projects.occ.engine.checkpoint import load_from_local

MARK_TEXT = 'import pathlib\npathlib.Path({path!r}).touch()\nmodel = dict()\n'


def with_code_texts(source: Path, target: Path, mark: Path) -> Path:
    """A copy of a checkpoint whose texts of configs would make the file ``mark`` when executed."""
    content = load_from_local(source)
    text = MARK_TEXT.format(path=str(mark))
    content.setdefault('meta', {}).update(config=text, cfg=text)
    content.setdefault('message_hub', {}).setdefault('runtime_info', {})['cfg'] = text
    torch.save(content, target)
    return target


def rewrite(source: Path, target: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A copy of an archive with changed records and right check sums."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, 'w', compression) as new:
        for info in old.infolist():
            new.writestr(info.filename, change(info.filename, old.read(info)))
    return target


def with_pickle(source: Path, target: Path, change: Callable[[bytes], bytes]) -> Path:
    """A copy of a checkpoint with a changed pickle."""
    return rewrite(source, target, lambda name, data: change(data) if name.endswith('/data.pkl') else data)
