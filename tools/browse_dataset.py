"""Shows what the data pipeline of a config delivers, after augmentation; the first thing to run on new data.

    python tools/browse_dataset.py CONFIG --split train --out DIR [--max-frames N]

Writes DIR/<number>_<token>_input.png (the images that the network gets with the label laid over: cars have to lie on cars),
DIR/<number>_<token>_label.png (label in 3D and from above, masks, counts) and DIR/statistics.json, and prints the classes.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np  # noqa: E402
from mmdet3d.registry import DATASETS  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402
from mmengine.runner import set_random_seed  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from tqdm import tqdm  # noqa: E402

import projects.occ.datasets  # noqa: E402, F401  (registers data sets and transforms, for configs that are no experiments)
from projects.occ.atomic_write import write_atomically  # noqa: E402
from projects.occ.engine.command_line import add_common_arguments, load_config, run_tool  # noqa: E402
from projects.occ.engine.errors import OccError  # noqa: E402
from projects.occ.engine.file_io import check_writable  # noqa: E402
from projects.occ.file_names import plain_name, shown_text  # noqa: E402
from projects.occ.structures import VoxelGrid  # noqa: E402
from projects.occ.visualization import VoxelPainter  # noqa: E402
from projects.occ.visualization.dataset_page import class_counts, dataset_figures  # noqa: E402
from projects.occ.visualization.figure_layout import write_png  # noqa: E402
from projects.occ.visualization.occ_visualizer import network_images  # noqa: E402

MASKS = ('mask_camera', 'mask_lidar')
NAME_WIDTH = 8  # of class names in a terminal that is too narrow for the table


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train', help='which data loader (default: train)')
    parser.add_argument('--out', required=True, metavar='DIR', help='folder to write to')
    parser.add_argument('--max-frames', type=int, metavar='N', help='so many frames, spread evenly over the set (default: all)')
    parser.add_argument('--indices', type=int, nargs='+', metavar='I', help='these frames instead')
    parser.add_argument('--seed', type=int, default=0, help='of the augmentation (default: 0)')
    parser.add_argument('--no-pictures', action='store_true', help='only the statistics')
    parser.add_argument('--show-ignored', action='store_true', help='draw ignored voxels grey instead of leaving them out')
    add_common_arguments(parser)
    return parser.parse_args(argv)


def browse(args: argparse.Namespace) -> None:
    """Draws and counts as the arguments say.

    Raises:
        OccError: If the config has no such split, grid or frame.
    """
    check_writable(args.out, '--out')
    args.work_dir = args.work_dir or args.out
    cfg = load_config(args)
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    loader = cfg.get(f'{args.split}_dataloader')
    if loader is None:
        raise OccError(f'config {args.config!r} has no {args.split}_dataloader')
    dataset = DATASETS.build(loader.dataset)
    grid = dataset.metainfo.get('grid') or cfg.get('grid')
    if grid is None:
        raise OccError('neither the metainfo of the data set nor the config has a grid')
    painter = VoxelPainter(grid, hide_ignored=not args.show_ignored)
    indices = choose(len(dataset), args.max_frames, args.indices)
    set_random_seed(args.seed)

    statistics = Statistics(painter.grid)
    for index in tqdm(indices, desc='drawing', unit='frame'):
        item = dataset[index]
        sample = item['data_samples']
        gt = sample.gt_occ.numpy() if 'gt_occ' in sample else None
        masks = {key: getattr(sample, key).numpy() != 0 for key in MASKS if key in sample}
        statistics.add(gt, masks)
        if args.no_pictures:
            continue
        images = item['inputs'].get('img')
        cameras = None if images is None else network_images(sample, images)
        token = sample.get('token', 'frame')
        title = ' '.join(shown_text(part) for part in (args.split, index, sample.get('scene_name', ''), token) if part != '')
        for page, image in dataset_figures(painter, cameras, gt, masks, title).items():
            write_png(Path(args.out) / f'{index:06d}_{plain_name(token)}_{page}.png', image)
    result = dict(config=args.config, split=args.split, frames_in_set=len(dataset), **statistics.result())
    write_atomically(Path(args.out) / 'statistics.json', lambda file: file.write(json.dumps(result, indent=2).encode()))
    report(result)


def choose(length: int, most: int | None, indices: Sequence[int] | None) -> list[int]:
    """Positions of the frames to show.

    Raises:
        OccError: If there is none, or one does not exist.
    """
    if not length:
        raise OccError('the data set has no frame')
    if indices is not None:
        outside = [i for i in indices if not 0 <= i < length]
        if outside:
            raise OccError(f'--indices {outside}: the data set has {length} frames, 0 to {length - 1}')
        return list(indices)
    if most is not None and most < 1:
        raise OccError(f'--max-frames must be at least 1, got {most}')
    return np.unique(np.linspace(0, length - 1, min(most or length, length)).round().astype(int)).tolist()


class Statistics:
    """Counts the voxels of the frames that were shown."""

    def __init__(self, grid: VoxelGrid) -> None:
        self.grid = grid
        self.frames = self.labelled = 0
        self.voxels = np.zeros(256, dtype=np.int64)
        self.frames_with = np.zeros(256, dtype=np.int64)
        self.in_mask: dict[str, np.ndarray] = {}

    def add(self, gt: np.ndarray | None, masks: dict[str, np.ndarray]) -> None:
        """Counts one frame: label (X, Y, Z) or None, masks (X, Y, Z) bool."""
        self.frames += 1
        if gt is None:
            return
        self.labelled += 1
        counts = class_counts(gt)
        self.voxels += counts
        self.frames_with += counts > 0
        for key, mask in masks.items():
            self.in_mask[key] = self.in_mask.get(key, 0) + class_counts(gt[mask])

    def result(self) -> dict[str, Any]:
        """Plain numbers for the file."""
        names = [*enumerate(self.grid.class_names), (self.grid.ignore_index, 'ignored')]
        classes = {
            name: dict(
                voxels=int(self.voxels[c]),
                frames=int(self.frames_with[c]),
                **{key: int(counts[c]) for key, counts in self.in_mask.items()},
            )
            for c, name in names
        }
        return dict(frames=self.frames, labelled_frames=self.labelled, grid=list(self.grid.shape), classes=classes)


def report(result: dict[str, Any]) -> None:
    """Prints the classes of :meth:`Statistics.result`."""
    masks = [key for key in MASKS if key in next(iter(result['classes'].values()))]
    table = Table(title=f'{result["split"]}: {result["labelled_frames"]} of {result["frames_in_set"]} frames')
    table.add_column('class', overflow='fold')
    for column in ('voxels', '%', 'frames', *(f'in {key}' for key in masks)):
        table.add_column(column, justify='right', no_wrap=True)
    total = max(1, sum(entry['voxels'] for entry in result['classes'].values()))
    for name, entry in result['classes'].items():
        share = f'{100 * entry["voxels"] / total:.3f}'
        table.add_row(name, f'{entry["voxels"]:,}', share, str(entry['frames']), *(f'{entry[key]:,}' for key in masks))
    console = Console()
    width = console.measure(table, options=console.options.update(max_width=sys.maxsize)).maximum
    if console.is_terminal:
        width -= max(0, max(map(len, result['classes'])) - NAME_WIDTH)
    # where there is less room, rich would cut off numbers
    Console(width=max(console.width, width)).print(table)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    return run_tool(browse, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
