"""One training step at full size: real image size, real grid, real network, made-up frames; time, memory, losses.

Every configuration runs in a process of its own. Results are added to the json file, which may be filled in several calls, and
the table of docs/benchmarks.md is written from all of it.

python tests/benchmarks/bm_full_size_step.py                                   # all configs of the model index, one by one
python tests/benchmarks/bm_full_size_step.py --config CONFIG --checkpointing --memory-limit 20
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import yaml
from measured_step import ROOT, measure, parse_options
from tqdm import tqdm

from tools.dev.benchmark_report import describe_machine, markdown_table, replace_section, write_report

# what tells two rows apart
KEYS = ('config', 'options', 'device', 'gpu', 'batch_size', 'amp', 'checkpointing', 'threads')


def listed_configs() -> list[str]:
    """The cells of the matrix: configs of the model index that have a partner with or without rendering."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    names = [m['Config'] for path in index['Import'] for m in yaml.safe_load((ROOT / path).read_text())['Models']]
    return [n for n in names if n.replace('.py', '_gaussrender.py') in names or n.replace('_gaussrender.py', '.py') != n]


def add(rows: list[dict], row: dict) -> list[dict]:
    """Rows with one more, which replaces an older one of the same setting."""
    return [old for old in rows if any(old[key] != row[key] for key in KEYS)] + [row]


def table(rows: list[dict]) -> str:
    """The rows in Markdown, in the order of the configs."""
    lines = []
    for row in sorted(rows, key=lambda r: (r['device'], r['config'])):
        marks = [text for key, text in (('checkpointing', 'checkpointing'), ('amp', 'AMP')) if row[key]]
        marks += [f'{key}={value}' for key, value in row['options'].items()]
        device = row['gpu'] or (f'CPU, {row["threads"]} threads' if row['threads'] else 'CPU')
        if 'error' in row:
            numbers = [row['error'].replace('|', '/')[:80], '', '']
        else:
            rendered = any('render' in name for name in row['losses'])
            numbers = [
                f'{statistics.median(row["seconds"]):.1f}',
                f'{row["peak_gib"]:.1f}',
                'voxel, rendered' if rendered else 'voxel',
            ]
        lines.append([f'`{Path(row["config"]).stem}`', device, ', '.join(marks) or '–', *numbers])
    return markdown_table(
        ['config', 'device', 'options', 'losses, all finite', 's per step', 'peak GiB'],
        [[*line[:3], line[5], line[3], line[4]] for line in lines],
        left=4,
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns 1 if a configuration failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', nargs='+', help='config files; without it all cells of the model index')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--steps', type=int, default=1, help='timed steps; the median counts [%(default)s]')
    parser.add_argument('--warmup', type=int, default=0, help='steps before them [%(default)s]')
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--amp', action='store_true')
    parser.add_argument('--checkpointing', action='store_true', help='recompute activations in the backward pass')
    parser.add_argument('--threads', type=int, help='threads of the CPU')
    parser.add_argument('--memory-limit', type=float, metavar='GIB', help='end a process that allocates more (CPU only)')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/benchmarks/full_size_step.json')
    parser.add_argument('--document', type=Path, default=ROOT / 'docs/benchmarks.md', help='where the table goes')
    args = parser.parse_args(argv)
    rows = json.loads(args.out.read_text())['rows'] if args.out.exists() else []
    machine = describe_machine(ROOT)
    failed = 0
    for config in tqdm(args.config or listed_configs(), unit='config'):
        result = measure(
            config,
            parse_options(args.cfg_options),
            args.device,
            args.steps,
            args.warmup,
            args.batch_size,
            args.amp,
            args.checkpointing,
            args.memory_limit,
            args.threads,
        )
        result['gpu'] = machine['gpu'] if args.device == 'cuda' else None
        failed += 'error' in result
        rows = add(rows, {**result, 'machine': machine})
        write_report(args.out, dict(rows=rows))
        replace_section(args.document, 'full-size step', table(rows))
        shown = result.get('error') or f'{statistics.median(result["seconds"]):.1f} s, {result["peak_gib"]:.1f} GiB'
        tqdm.write(f'{Path(config).stem}: {shown}')
    print(table(rows))
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
