"""Time and memory of a training step with the options that trade one for the other: checkpointing, AMP, fewer or smaller views.

By default the small configs of ``configs/debug`` with images of twice their size on the CPU; a GPU takes the full ones:

python tests/benchmarks/bm_training_options.py
python tests/benchmarks/bm_training_options.py --device cuda --enlarge 1 --config configs/tpvformer/*_gaussrender.py
"""

import argparse
import statistics
import sys
from pathlib import Path

from measured_step import ROOT, measure
from mmengine.config import Config
from tqdm import tqdm

from tools.dev.benchmark_report import describe_machine, markdown_table, replace_section, write_report

CONFIGS = [
    'configs/debug/tpvformer_tiny_synthetic-occ3d_gaussrender.py',
    'configs/debug/surroundocc_tiny_synthetic-surroundocc_gaussrender.py',
    'configs/debug/symphonies_tiny_synthetic-sscbench-kitti360_gaussrender.py',
]
CAMERAS = 'model.aggregator.cameras.num_cameras'
# name -> arguments of measure(); the first is what the others are compared with
VARIANTS = {
    "as configured: one view and the bird's-eye view": dict(),
    'no rendering (`model.aggregator=None`)': dict(options={'model.aggregator': None}),
    'activation checkpointing (`with_cp=True`)': dict(checkpointing=True),
    'mixed precision (`--amp`)': dict(amp=True),
    'six views (`num_cameras=6`)': dict(options={CAMERAS: 6}),
    'three views (`num_cameras=3`)': dict(options={CAMERAS: 3}),
    'views of half the size (`reduction=2`)': dict(options={'model.aggregator.cameras.reduction': 2}),
    "no bird's-eye view (`bev_sem=0 bev_depth=0`)": dict(
        options={'model.aggregator.loss.bev_sem': 0, 'model.aggregator.loss.bev_depth': 0}
    ),
}


def image_options(config: str, factor: int) -> dict[str, list[int]]:
    """Overrides that make the training images larger."""
    pipeline = Config.fromfile(ROOT / config, import_custom_modules=False).train_dataloader.dataset.pipeline
    return {
        f'train_dataloader.dataset.pipeline.{index}.final_wh': [factor * n for n in step.final_wh]
        for index, step in enumerate(pipeline)
        if step.type == 'ResizeCropFlipImages' and factor > 1
    }


def table(rows: list[dict]) -> str:
    """Seconds and memory per option, absolute and relative to the first row of the config."""
    lines = []
    for config in dict.fromkeys(row['config'] for row in rows):
        group = [row for row in rows if row['config'] == config]
        base = group[0]
        for row in group:
            name = f'`{Path(config).stem}`' if row is base else ''
            if 'error' in row or 'error' in base:
                lines.append([name, row['variant'], row.get('error', '–')[:60].replace('|', '/'), '', '', ''])
                continue
            seconds = [statistics.median(r['seconds']) for r in (row, base)]
            memory = [r['peak_gib'] - r['before_gib'] for r in (row, base)]
            numbers = (seconds[0], seconds[0] / seconds[1], memory[0], memory[0] / memory[1])
            lines.append([name, row['variant'], *(f'{number:.2f}' for number in numbers)])
    return markdown_table(['config', 'option', 's per step', 'relative', 'GiB of the step', 'relative'], lines, left=2)


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark; returns 1 if a setting failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', nargs='+', default=CONFIGS, help='rendered configs')
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument('--enlarge', type=int, default=2, help='factor of the size of the training images [%(default)s]')
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--steps', type=int, default=3, help='timed steps; the median counts [%(default)s]')
    parser.add_argument('--threads', type=int, help='threads of the CPU')
    parser.add_argument('--memory-limit', type=float, metavar='GIB', help='end a process that allocates more (CPU only)')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/benchmarks/training_options.json')
    parser.add_argument('--document', type=Path, default=ROOT / 'docs/benchmarks.md', help='where the table goes')
    args = parser.parse_args(argv)
    rows = []
    settings = [(config, name) for config in args.config for name in VARIANTS]
    for config, name in tqdm(settings, unit='setting'):
        arguments = dict(VARIANTS[name])
        arguments['options'] = {**image_options(config, args.enlarge), **arguments.get('options', {})}
        result = measure(
            config,
            device=args.device,
            steps=args.steps,
            warmup=1,
            batch_size=args.batch_size,
            threads=args.threads,
            memory_limit=args.memory_limit,
            **arguments,
        )
        rows.append(dict(variant=name, **result))
    write_report(args.out, dict(machine=describe_machine(ROOT), rows=rows))
    replace_section(args.document, 'training options', table(rows))
    print(table(rows))
    return 1 if any('error' in row for row in rows) else 0


if __name__ == '__main__':
    sys.exit(main())
