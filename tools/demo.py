"""The whole way once on a CPU: generate data, train TPVFormer with GaussRender, evaluate on held-out scenes, draw.

Writes ``work_dirs/demo/metrics.json`` and pictures under ``work_dirs/demo/pictures``; the trained model is compared with a
static prior (the most frequent class of every voxel in the training labels).
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CONFIG = 'configs/debug/tpvformer_tiny_synthetic-occ3d_gaussrender.py'
DATA = 'data/synthetic'
DRAWN = (0, 7, 15)  # frames of the test set
GENERATE = [
    *('synthetic', '--format', 'both', '--preset', 'tiny', '--image-size', '200x112', '--seed', '0', '--workers', '2'),
    *('--scenes-train', '24', '--scenes-val', '4', '--frames', '4'),
]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'demo', help='where results go')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], help='passed on to training and test, e.g. train_cfg.max_epochs=1'
    )
    return parser.parse_args(argv)


def run(step: str, script: str, *args: object) -> float:
    """Runs one of our tools in a process of its own and returns the seconds that it took."""
    print(f'\n=== {step}\n$ python {script} {" ".join(map(str, args))}', flush=True)
    start = time.monotonic()
    status = subprocess.run([sys.executable, script, *map(str, args)], cwd=ROOT).returncode
    if status:
        sys.exit(f'demo: "{step}" failed with exit status {status}; its message stands above')
    return time.monotonic() - start


def static_prior_metrics(config: Path) -> dict:
    """Metrics of the most frequent class per voxel of the training labels, on the test split of a config."""
    from mmdet3d.registry import DATASETS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from projects.occ.evaluation.functional import summarize_confusion
    from projects.occ.evaluation.static_prior import most_frequent_class, score_static_prior
    from projects.occ.structures import VoxelGrid

    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    grid = VoxelGrid.build(cfg.grid)
    labels_only = dict(pipeline=[dict(type='LoadOccLabels')], test_mode=True)
    train, test = (DATASETS.build({**cfg[f'{split}_dataloader'].dataset, **labels_only}) for split in ('train', 'test'))
    prior = most_frequent_class((train[i]['gt_occ'] for i in range(len(train))), grid.num_classes, grid.ignore_index)
    items = (test[i] for i in range(len(test)))
    labels = ((item['gt_occ'], item['mask_camera']) for item in items)
    metrics = summarize_confusion(score_static_prior(prior, labels, grid.num_classes, grid.ignore_index), grid.free_index)
    return {**metrics, 'per_class': dict(zip(grid.class_names, metrics['per_class']))}


def main(argv: list[str] | None = None) -> int:
    """Runs all steps and returns 0 if the trained model beats the static prior."""
    from rich.console import Console
    from rich.table import Table

    from projects.occ.engine.metrics_file import write_metrics

    args = parse_args(argv)
    work_dir: Path = args.work_dir
    work_dir.mkdir(parents=True, exist_ok=True)
    options = ['--cfg-options', *args.cfg_options] if args.cfg_options else []
    scores = work_dir / 'test_metrics.json'
    seconds = {
        'data': run('generate street scenes', 'tools/create_data.py', *GENERATE, '--out', DATA),
        'train': run('train TPVFormer + GaussRender', 'tools/train.py', CONFIG, '--work-dir', work_dir, *options),
    }
    checkpoint = (work_dir / 'last_checkpoint').read_text().strip()
    seconds['test'] = run(
        'evaluate on held-out scenes',
        *('tools/test.py', CONFIG, checkpoint, '--work-dir', work_dir, '--metrics-json', scores, *options),
    )
    seconds['pictures'] = run(
        'draw', 'tools/visualize.py', CONFIG, checkpoint, '--show-dir', work_dir / 'pictures', '--indices', *DRAWN, *options
    )
    model = json.loads(scores.read_text())
    prior = static_prior_metrics(ROOT / CONFIG)
    write_metrics(
        work_dir / 'metrics.json',
        dict(model=model, static_prior=prior, seconds=seconds),
        source=dict(config=CONFIG, checkpoint=checkpoint),
    )

    table = Table(title='Held-out scenes, voxels seen by a camera (percent)')
    for column in ('', 'mIoU', 'IoU'):
        table.add_column(column, justify='left' if not column else 'right')
    table.add_row('static prior', *(f'{100 * prior[key]:.2f}' for key in ('mIoU', 'IoU')))
    table.add_row('TPVFormer + GaussRender', *(f'{100 * model[key]:.2f}' for key in ('mIoU', 'IoU')))
    console = Console()
    console.print(table)
    console.print('seconds: ' + ', '.join(f'{key} {value:.0f}' for key, value in seconds.items()))
    console.print(f'metrics: {work_dir / "metrics.json"}\npictures: {work_dir / "pictures"}')
    if model['mIoU'] <= prior['mIoU']:
        console.print('the trained model does not beat the static prior')
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
