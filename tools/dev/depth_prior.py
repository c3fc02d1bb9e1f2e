"""Scores depth predictors that look at no image: what a depth network has to beat.

    python tools/dev/depth_prior.py CONFIG

One number for all pixels, and one per cell of every camera's image (that of the whole camera where no point fell), from the
LiDAR of the training split: the mean, and the value that makes abs_rel smallest there. Scored as the config scores its model,
by its DepthMetric.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mmdet3d.registry import DATASETS, METRICS  # noqa: E402
from mmengine.registry import init_default_scope  # noqa: E402

from projects.occ.engine.command_line import CfgOptionsAction, read_config, run_tool  # noqa: E402
from projects.occ.engine.evaluators import find_evaluator  # noqa: E402

CELLS = (8, 12)  # rows, columns of the map of a camera


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file whose test_evaluator has a DepthMetric')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptionsAction, default={}, metavar='KEY=VALUE')
    parser.set_defaults(allow_new_keys=False, trust_checkpoint=False)
    return parser.parse_args(argv)


def best_constant(depth: np.ndarray) -> float:
    """The prediction with the smallest mean of ``|prediction - depth| / depth``: the median weighted by inverse depth."""
    order = np.sort(depth)
    weight = np.cumsum(1 / order)
    return float(order[np.searchsorted(weight, weight[-1] / 2)])


def predictors(points: list[list[np.ndarray]], sizes: np.ndarray) -> dict[str, torch.Tensor]:
    """Depth maps (N, rows, columns) by name, from the measured pixels of all training frames.

    Args:
        points: Per frame N arrays (P, 3) of column, row and depth, metres.
        sizes: (N, 2), width and height of the images.
    """
    views = len(sizes)
    maps = {name: torch.zeros(views, *CELLS) for name in ('constant mean', 'constant best', 'map mean', 'map best')}
    everything = np.concatenate([rows[:, 2] for frame in points for rows in frame])
    maps['constant mean'] += float(everything.mean())
    maps['constant best'] += best_constant(everything)
    for view, (width, height) in enumerate(sizes):
        rows = np.concatenate([frame[view] for frame in points])
        cell = (rows[:, 1] * CELLS[0] // height).astype(int), (rows[:, 0] * CELLS[1] // width).astype(int)
        for name, rule in (('map mean', np.mean), ('map best', best_constant)):
            maps[name][view] = float(rule(rows[:, 2]))
            for i, j in np.ndindex(*CELLS):
                inside = rows[(cell[0] == i) & (cell[1] == j), 2]
                if len(inside):
                    maps[name][view, i, j] = float(rule(inside))
    return maps


def score(args: argparse.Namespace) -> None:
    """Scores as the arguments say.

    Raises:
        OccError: If the config has no DepthMetric.
    """
    cfg = read_config(args)
    init_default_scope(cfg.get('default_scope', 'mmdet3d'))
    block = find_evaluator(cfg.test_evaluator, 'DepthMetric', f'which scores the predictors ({args.config})')
    test = cfg.test_dataloader.dataset
    train = {**cfg.train_dataloader.dataset, 'pipeline': test.pipeline, 'data_prefix': test.data_prefix}
    train, test = (DATASETS.build({**split, 'frames': [0], 'test_mode': True}) for split in (train, test))
    samples = [train[i]['data_samples'] for i in range(len(train))]
    limits = block.get('min_depth', 0.1), block.get('max_depth', 80.0)
    points = [[r[(r[:, 2] > limits[0]) & (r[:, 2] < limits[1])] for r in sample.depth_pixels] for sample in samples]
    maps = predictors(points, samples[0].ori_img_wh)
    frames = [test[i]['data_samples'].to_dict() for i in range(len(test))]
    found = {}
    for name, depth in maps.items():
        metric = METRICS.build(block)
        metric.process({}, [{**frame, 'pred_depth': depth} for frame in frames])
        values = metric.compute_metrics(metric.results)
        found[name] = {key: round(values[key], 4) for key in ('abs_rel', 'sq_rel', 'rmse', 'rmse_log', 'a1', 'a2', 'a3')}
    print(json.dumps(found, indent=1))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the tool and returns its exit code."""
    return run_tool(score, parse_args(argv))


if __name__ == '__main__':
    sys.exit(main())
