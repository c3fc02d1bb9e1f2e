"""Measured numbers as files: json with where they come from, and tables inside a document."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from projects.occ.atomic_write import write_atomically


def describe_machine(root: str | os.PathLike) -> dict[str, Any]:
    """What a measurement depends on: processor, GPU, versions and the commit of the checkout ``root`` (None outside git)."""
    cpuinfo = Path('/proc/cpuinfo')
    names = (
        [line.split(':', 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith('model name')]
        if (cpuinfo.exists())
        else []
    )
    git = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], cwd=root, capture_output=True, text=True)
    return dict(
        processor=names[0] if names else platform.processor(),
        processors=os.cpu_count(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        python=platform.python_version(),
        torch=torch.__version__,
        commit=git.stdout.strip() or None,
    )


def write_report(path: str | os.PathLike, report: Mapping[str, Any]) -> None:
    """Writes a report as JSON, atomically."""
    text = json.dumps(report, indent=1)
    write_atomically(path, lambda file: file.write(f'{text}\n'.encode()))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table in Markdown; the first ``left`` columns are aligned left, the others right."""
    lines = [header, ['---' if column < left else '---:' for column in range(len(header))], *rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def replace_section(document: str | os.PathLike, name: str, text: str) -> None:
    """Replaces what stands between ``<!-- name: begin -->`` and ``<!-- name: end -->`` of a document, atomically.

    Raises:
        ValueError: If the document does not have exactly one such pair of lines.
    """
    document = Path(document)
    begin, end = f'<!-- {name}: begin -->', f'<!-- {name}: end -->'
    content = document.read_text(encoding='utf-8')
    if content.count(begin) != 1 or content.count(end) != 1 or content.index(begin) > content.index(end):
        raise ValueError(f'{document} must contain the lines {begin!r} and {end!r} once each, in this order')
    before, rest = content.split(begin)
    after = rest.split(end)[1]
    new = f'{before}{begin}\n{text.strip()}\n{end}{after}'
    write_atomically(document, lambda file: file.write(new.encode()))
