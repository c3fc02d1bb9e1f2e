"""What the commands of tools/create_data.py share."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from .findings import Finding, print_findings, write_findings

if TYPE_CHECKING:  # torch takes seconds, which --help should not
    from projects.occ.structures import VoxelGrid


def pixels(text: str) -> tuple[int, int]:
    """Width and height of an argument ``WIDTHxHEIGHT``."""
    parts = text.lower().split('x')
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f'expected WIDTHxHEIGHT in pixels, e.g. 200x112, got {text!r}')
    return int(parts[0]), int(parts[1])


def whole_number(text: str) -> int:
    """A number from 0 on."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f'expected a whole number from 0 on, got {text!r}')
    return int(text)


def add_workers(parser: argparse.ArgumentParser, what: str = 'processes') -> None:
    """Adds ``--workers``."""
    default = min(8, os.cpu_count() or 1)
    parser.add_argument('--workers', type=int, default=default, help=f'{what} (default: {default})')


def add_check(parser: argparse.ArgumentParser) -> None:
    """Adds ``--check`` and ``--report``."""
    parser.add_argument(
        '--check',
        action='store_true',
        help='write nothing; list what is missing or damaged. Prints nothing and exits with 0 if all is well, with 1 if not',
    )
    parser.add_argument('--report', type=Path, metavar='FILE', help='with --check: write every finding to this json file')


def label_grid(benchmark: str, data_root: Path) -> 'VoxelGrid':
    """The benchmark's grid; generated data say which one they have."""
    from projects.occ.structures import VoxelGrid
    from projects.occ.structures.benchmarks import get_benchmark

    from .check_synthetic import read_marker

    marker = read_marker(data_root)
    if marker is not None and benchmark in marker['config']['grids']:
        return VoxelGrid.build(marker['config']['grids'][benchmark])
    return get_benchmark(benchmark).grid


def tell_findings(findings: list[Finding], path: Path | None) -> int:
    """Prints findings and writes them to a file, if one is named; returns the exit status."""
    print_findings(findings)
    if path is not None:
        write_findings(findings, path)
    return 1 if findings else 0
